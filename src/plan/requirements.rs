//! The requirements of a task on a model's denoiser.

use super::conditions::ConditionPart;
use super::packed;
use crate::bundle::{Bundle, Component, DenoiserSignature, Filler, Role};
use crate::error::{Error, Result};
use crate::scheduler::ForwardProcess;
use crate::task::{TASKS, Task};

/// The requirements of a task on a model.
pub(super) struct TaskRequirements<'a> {
    pub(super) task: &'a dyn Task,
    pub(super) bundle: &'a Bundle,
    pub(super) component: &'a Component,
    pub(super) signature: &'a DenoiserSignature,
    pub(super) wanted_for: &'a str,
    pub(super) conditions: &'a [ConditionPart],
}

impl TaskRequirements<'_> {
    fn at_fault(&self, problem: String, help: &str) -> Error {
        Error::model(&self.component.graph.path, problem, help)
    }

    /// Requires that the graph's channels are those of the latents, and returns the number that the task puts behind them.
    pub(super) fn check_channels(&self) -> Result<usize> {
        let concatenated = self.concatenated()?;
        self.out_channels()?;
        self.plain_scaling()?;
        Ok(concatenated)
    }

    /// The number of channels that the task puts behind the latents, if the graph takes as many.
    fn concatenated(&self) -> Result<usize> {
        let channels = self.bundle.facts.latent_channels.value;
        if packed::packed_images(self.task, self.bundle, self.signature) > 1 {
            return Ok(channels);
        }
        let Some(taken) = self.signature.in_channels else { return Ok(self.task.concatenated(channels, channels)) };
        let told: usize = self.conditions.iter().map(ConditionPart::channels).sum();
        let more = self.task.concatenated(channels, taken.saturating_sub(told)) + told;
        if taken == channels + more {
            return Ok(more - told);
        }
        Err(self.at_fault(
            format!(
                "input {} takes {taken} channels, and {} gives it {}: {channels} of the latents{}",
                self.signature.sample.name,
                self.wanted_for,
                channels + more,
                if more == 0 { String::new() } else { format!(" and {more} more") }
            ),
            &task_for_channels(taken.checked_sub(channels), channels),
        ))
    }

    fn out_channels(&self) -> Result<()> {
        let channels = self.bundle.facts.latent_channels.value;
        match self.signature.out_channels.filter(|&given| given != channels && given != 2 * channels) {
            None => Ok(()),
            Some(given) => Err(self.at_fault(
                format!(
                    "output {} gives {given} channels, and the VAE's latents have {channels}",
                    self.signature.output.name
                ),
                "denoiser and VAE are not of one model, or [model] latent_channels is wrong",
            )),
        }
    }

    fn plain_scaling(&self) -> Result<()> {
        match self.bundle.facts.latent_statistics {
            None => Ok(()),
            Some(_) => Err(Error::model(
                &self.bundle.dir,
                "its VAE scales each channel of the latents by itself (latents_mean, latents_std)",
                "this version scales all channels alike, and would draw wrong images",
            )),
        }
    }

    /// Requires that the task fills every input of the denoiser, and that the denoiser has an input for what the task gives.
    pub(super) fn fills_inputs(&self, embeds_classes: bool) -> Result<()> {
        self.fills_tokens(embeds_classes)?;
        self.fills_other_inputs(embeds_classes)?;
        self.takes_sizes()
    }

    fn fills_tokens(&self, embeds_classes: bool) -> Result<()> {
        let Self { signature, task, wanted_for, .. } = self;
        let has_prompt = task.prompting().is_some();
        let told_tokens = self.conditions.iter().any(ConditionPart::is_tokens);
        if task.needs_conditions() && self.conditions.is_empty() {
            return Err(Error::input(
                format!("task.{}", task.name()),
                "there is no [[condition]] table, and so nothing that the image is to show",
                "add one, or choose [task.unconditional]",
            ));
        }
        match signature.input(Role::Context) {
            Some(context) if !has_prompt && !embeds_classes && !told_tokens => {
                return Err(self.at_fault(
                    format!("{wanted_for} has no prompt, and input {} wants the tokens of one", context.name),
                    match task.has_optional_prompt() {
                        true => "give the task a prompt",
                        false => "choose a task with a prompt, such as [task.text-to-image]",
                    },
                ));
            }
            None if told_tokens => {
                return Err(self.at_fault(
                    "a [[condition]] tells tokens, and no input of this graph takes any".to_owned(),
                    "leave the condition out, or choose the model it was made for",
                ));
            }
            None if has_prompt => {
                return Err(self.at_fault(
                    format!("{wanted_for} has a prompt, and no input of this graph takes its tokens"),
                    match task.has_optional_prompt() {
                        true => "leave the prompt out",
                        false => "choose [task.unconditional]",
                    },
                ));
            }
            _ => {}
        }
        Ok(())
    }

    fn fills_other_inputs(&self, embeds_classes: bool) -> Result<()> {
        let Self { signature, task, wanted_for, .. } = self;
        if task.classes().is_some() && !embeds_classes && !signature.takes(Role::ClassLabels) {
            return Err(self.at_fault(
                format!("{wanted_for} has classes, and this graph takes no class"),
                "choose [task.unconditional], or a model directory with class_embedder/",
            ));
        }
        let is_filled = |role: Role| match role.row().filler {
            Filler::Prompt | Filler::Size | Filler::GuidanceScale => task.prompting().is_some(),
            Filler::Class => task.tells_class(),
            // Tokens are checked before; the other inputs depend on no task.
            _ => true,
        };
        let is_left = |role: Role| !is_filled(role) && role.row().default.is_none();
        let unfilled = signature.inputs.iter().filter(|(role, _)| is_left(**role));
        let unfilled: Vec<String> = unfilled.map(|(_, info)| info.to_string()).collect();
        if !unfilled.is_empty() {
            return Err(self.at_fault(
                format!("{wanted_for} has nothing to fill {} with", unfilled.join(", ")),
                "choose the task that the model was made for (`ldm-ort inspect`)",
            ));
        }
        Ok(())
    }

    /// Requires that the denoiser takes the sizes or scores that the task states.
    fn takes_sizes(&self) -> Result<()> {
        let Self { signature, task, .. } = self;
        let sizes = task.prompting().and_then(|prompting| Some((prompting, prompting.sizes.given()?)));
        if let Some((prompting, key)) = sizes {
            let is_score = key.ends_with("aesthetic_score") || prompting.sizes.aesthetic_score.is_some();
            let takes_score = signature.time_ids_width() == Some(5);
            if !signature.takes(Role::TimeIds) || is_score != takes_score && is_score {
                return Err(Error::input(
                    format!("task.{}.{key}", task.name()),
                    "this model is not told such a thing",
                    "leave the key out; sizes ([width, height], where diffusers has the height first) belong to Stable Diffusion XL, \
                     aesthetic scores to its refiner",
                ));
            }
        }
        Ok(())
    }

    /// The forward process of the small image, for a task with a small image on a model that is told its noise.
    pub(super) fn low_res(&self) -> Result<Option<ForwardProcess>> {
        let key = || format!("task.{}.noise_level", self.task.name());
        match (self.signature.input(Role::ClassLabels), &self.bundle.low_res_scheduler) {
            (Some(_), Some(file)) if self.task.noises_image() => {
                let process = ForwardProcess::new(file.class.as_deref().unwrap_or("DDPMScheduler"), &file.config)?;
                let rows = self.signature.class_rows.unwrap_or(process.len()).min(process.len());
                let most = self.bundle.index.get("max_noise_level").and_then(serde_json::Value::as_u64).unwrap_or(350);
                let most = rows.saturating_sub(1).min(most as usize);
                match self.task.noise_level().filter(|&level| level > most) {
                    None => Ok(Some(process)),
                    Some(level) => Err(Error::input(
                        key(),
                        format!("{level} is more noise than the model was trained on, which is up to {most}"),
                        "20 is usual",
                    )),
                }
            }
            (Some(info), None) if self.task.noises_image() => Err(Error::model(
                self.bundle.dir.join("low_res_scheduler/scheduler_config.json"),
                format!("missing, and input {} is told how much noise lies over the small image", info.name),
                "copy the low_res_scheduler/ folder of the checkpoint that was exported",
            )),
            _ => match self.task.noise_level() {
                None => Ok(None),
                Some(level) => Err(Error::input(
                    key(),
                    format!("{level} is given, and this model takes the small image without noise"),
                    "leave the key out",
                )),
            },
        }
    }
}

/// A hint at the task for models that take this number of channels besides the latents' own.
fn task_for_channels(extra: Option<usize>, latent_channels: usize) -> String {
    let mut made_for = TASKS.iter().filter_map(|entry| Some((entry.name, entry.own_models.as_ref()?)));
    match extra {
        Some(0) => "choose a task for plain models, such as [task.text-to-image] or [task.inpaint]".to_owned(),
        Some(extra) => match made_for.find(|(_, own)| (own.channels)(latent_channels) == extra) {
            Some((name, own)) => format!("such a model {}: [task.{name}]", own.about),
            None => "choose the task that the model was made for (`ldm-ort inspect`)".to_owned(),
        },
        None => "choose the task that the model was made for (`ldm-ort inspect`)".to_owned(),
    }
}
