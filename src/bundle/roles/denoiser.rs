//! What a denoiser takes and gives.

use super::{Switch, Unassigned, fixed_batch, is_float, is_number, output};
use crate::bundle::component::Component;
use crate::bundle::json;
use crate::error::Result;
use crate::tensor::{DType, Dim, TensorInfo};

/// The inputs through which a control network reaches a UNet.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Residuals {
    /// What is added to the skip connections, from the first to the last.
    pub down: Vec<TensorInfo>,
    /// What is added in the middle.
    pub mid: Option<TensorInfo>,
}

impl Residuals {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.down.is_empty() && self.mid.is_none()
    }
}

/// The inputs that tell where each token stands, of graphs that take the sample as a sequence of tokens (Flux): three
/// numbers a token, the last two its row and its column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Positions {
    /// Those of the sample's tokens, `[h/2 · w/2, 3]`, or `[n, h/2 · w/2, 3]`.
    pub image: TensorInfo,
    /// Those of the tokens attended to, `[tokens, 3]`, or `[n, tokens, 3]`: all of them zero.
    pub text: TensorInfo,
}

/// The roles of a denoiser's inputs and its output.
#[derive(Debug, Clone, PartialEq)]
pub struct DenoiserContract {
    /// The noisy latents, `[n, c, h, w]`; with `positions` packed, `[n, h/2 · w/2, 4 c]`.
    pub sample: TensorInfo,
    /// Where the tokens of a packed sample stand.
    pub positions: Option<Positions>,
    /// The model's t: a scalar, `[1]` or `[n]`; integer or float.
    pub timestep: TensorInfo,
    /// The tokens attended to, `[n, tokens, width]`.
    pub context: Option<TensorInfo>,
    /// 1 for each token attended to and 0 for each that is padding, `[n, tokens]`.
    pub context_mask: Option<TensorInfo>,
    /// The pooled text, `[n, width]`.
    pub text_embeds: Option<TensorInfo>,
    /// Sizes and crop, `[n, 6]`, or with an aesthetic score `[n, 5]`.
    pub time_ids: Option<TensorInfo>,
    /// Height and width of the image in pixels, `[n, 2]`.
    pub resolution: Option<TensorInfo>,
    /// The image's height by its width, `[n, 1]`.
    pub aspect_ratio: Option<TensorInfo>,
    /// The embedded guidance scale, `[n, width]`.
    pub timestep_cond: Option<TensorInfo>,
    /// The guidance scale as a number, `[n]`.
    pub guidance: Option<TensorInfo>,
    /// Class ids or the noise level, `[n]`.
    pub class_labels: Option<TensorInfo>,
    /// Rows of the table that `class_labels` indexes, where it indexes one.
    pub class_rows: Option<usize>,
    /// The inputs for a control network's residuals.
    pub residuals: Residuals,
    /// Switches left over from tracing, each with what to feed.
    pub constants: Vec<Switch>,
    /// The prediction, in the form of `sample`.
    pub output: TensorInfo,
    /// The batch the graph is fixed to, where it is.
    pub batch: Option<usize>,
    /// c of `sample`, from its shape, the configuration or the first convolution.
    pub in_channels: Option<usize>,
    /// c of `output`, from its shape or the configuration.
    pub out_channels: Option<usize>,
    /// The latent height the graph is fixed to, where it is.
    pub height: Option<usize>,
    /// The latent width the graph is fixed to, where it is.
    pub width: Option<usize>,
    /// The number of tokens of a packed sample that the graph is fixed to, where it is.
    pub sequence_length: Option<usize>,
}

/// The values of a latent square of two by two, one token of a packed sample, for each of its channels.
const PATCH: usize = 4;

impl DenoiserContract {
    /// Finds the roles of a denoiser's inputs and its output.
    ///
    /// # Errors
    ///
    /// [`crate::Error::Model`] with a table of names, types and shapes, where a role that every denoiser has is not
    /// found, or where an input is left that nothing can fill.
    pub fn resolve(component: &Component) -> Result<Self> {
        let graph = &component.graph;
        let mut inputs = Unassigned::new(component);
        let constants = inputs.switches();
        let positions = positions(&mut inputs);
        let rank = if positions.is_some() { 3 } else { 4 };
        let image = |t: &TensorInfo| is_float(t, rank);
        let scalar_or_list = |t: &TensorInfo| is_number(t) && t.shape.len() <= 1;
        let wide = |t: &TensorInfo| is_float(t, 2);
        let residuals = residuals(&mut inputs);

        let mut sample = inputs.named(&["sample", "latent_model_input", "latent", "hidden_states", "x"], image);
        let mut timestep =
            inputs.named(&["timestep", "timesteps", "time", "t", "sigma", "timestep_ratio"], scalar_or_list);
        let mut context =
            inputs.named(&["encoder_hidden_states", "context", "text_embeddings", "c_crossattn"], |t| is_float(t, 3));
        let mut context_mask =
            inputs.named(&["encoder_attention_mask", "context_mask", "prompt_attention_mask"], is_mask);
        let of_width = |t: &TensorInfo, width: usize| wide(t) && axis(t, 1).is_none_or(|fixed| fixed == width);
        let mut resolution = inputs.named(&["resolution"], |t| of_width(t, 2));
        let mut aspect_ratio = inputs.named(&["aspect_ratio"], |t| of_width(t, 1));
        let mut text_embeds = inputs.named(&["text_embeds", "pooled_projections", "add_text_embeds", "y"], wide);
        let mut time_ids = inputs.named(&["time_ids", "add_time_ids"], |t| t.shape.len() == 2 && is_number(t));
        let timestep_cond = inputs.named(&["timestep_cond"], wide);
        let guidance = inputs.named(&["guidance"], |t| t.dtype.is_float() && t.shape.len() <= 1);
        let mut class_labels =
            inputs.named(&["class_labels", "class_label", "class_ids", "noise_level"], scalar_or_list);

        // What the names did not settle, shape does: the most telling shapes first.
        sample = sample.or_else(|| inputs.only(image));
        context = context.or_else(|| inputs.only(|t| is_float(t, 3)));
        timestep = timestep.or_else(|| inputs.only(scalar_or_list));
        context_mask = context_mask.or_else(|| inputs.only(|t| masks(t, context.as_ref())));
        if context_mask.is_some() {
            resolution = resolution.or_else(|| inputs.only(|t| wide(t) && axis(t, 1) == Some(2)));
            aspect_ratio = aspect_ratio.or_else(|| inputs.only(|t| wide(t) && axis(t, 1) == Some(1)));
        }
        time_ids = time_ids.or_else(|| inputs.only(|t| is_number(t) && has_time_ids_shape(t)));
        text_embeds = text_embeds.or_else(|| inputs.only(|t| wide(t) && t.name.starts_with("onnx::")));
        class_labels = class_labels.or_else(|| inputs.only(|t| t.dtype.is_integer() && t.shape.len() == 1));

        let Some(sample) = sample else {
            let form = if positions.is_some() { "float, [n, tokens, 4 c]" } else { "float, [n, c, h, w]" };
            return Err(inputs.lacks("sample", form));
        };
        let Some(timestep) = timestep else { return Err(inputs.lacks("timestep", "a number, [], [1] or [n]")) };
        inputs.finish()?;
        let output = output(component, rank, &["out_sample", "noise_pred", "latent", "sample", "out_hidden_states"])?;

        let batched = [Some(&sample), context.as_ref(), context_mask.as_ref(), text_embeds.as_ref(), time_ids.as_ref()];
        let configured = |key: &str| json::count(&component.config, key);
        let (channels, values) = if positions.is_some() { (2, PATCH) } else { (1, 1) };
        let in_channels = axis(&sample, channels)
            .or_else(|| configured("in_channels"))
            .or_else(|| graph.convolved_channels.get(&sample.name).copied())
            .map(|taken| taken / values);
        Ok(Self {
            batch: fixed_batch(component, batched.into_iter().flatten())?,
            in_channels,
            // PixArt predicts a variance too.
            out_channels: axis(&output, channels)
                .or_else(|| configured("out_channels"))
                .or_else(|| Some(2 * in_channels.filter(|_| context_mask.is_some())?))
                .map(|given| given / values),
            height: axis(&sample, 2).filter(|_| positions.is_none()),
            width: axis(&sample, 3),
            sequence_length: axis(&sample, 1).filter(|_| positions.is_some()),
            class_rows: class_labels.as_ref().and_then(|c| graph.table_rows.get(&c.name).copied()),
            sample,
            positions,
            timestep,
            context,
            context_mask,
            text_embeds,
            time_ids,
            resolution,
            aspect_ratio,
            timestep_cond,
            guidance,
            class_labels,
            residuals,
            constants,
            output,
        })
    }

    /// The width of the tokens attended to, where the graph fixes it.
    pub fn context_width(&self) -> Option<usize> {
        self.context.as_ref()?.shape.get(2)?.fixed()
    }

    /// Whether it is a multimodal transformer (Esser et al. 2024, arXiv 2403.03206), as Stable Diffusion 3 and Flux have:
    /// told the pooled text and no sizes.
    pub fn is_multimodal(&self) -> bool {
        self.text_embeds.is_some() && self.time_ids.is_none()
    }

    /// How many numbers `time_ids` holds an image: 6, or 5 where one of them is an aesthetic score.
    pub fn time_ids_width(&self) -> Option<usize> {
        self.time_ids.as_ref()?.shape.get(1)?.fixed()
    }

    /// Whether the model learnt the effect of guidance, so that `guidance_scale` is a number it is told or nothing to it,
    /// and what guides it from outside has a scale of its own: latent consistency models and Flux.
    pub fn is_guidance_distilled(&self) -> bool {
        self.timestep_cond.is_some() || self.guidance.is_some() || self.positions.is_some()
    }

    /// Each input and the output with the word for its role.
    pub fn roles(&self) -> Vec<(&TensorInfo, String)> {
        let plain = [
            (Some(&self.sample), "sample"),
            (self.positions.as_ref().map(|p| &p.image), "positions in the image"),
            (self.positions.as_ref().map(|p| &p.text), "positions in the text"),
            (Some(&self.timestep), "timestep"),
            (self.context.as_ref(), "context"),
            (self.context_mask.as_ref(), "mask over the context"),
            (self.text_embeds.as_ref(), "pooled text"),
            (self.time_ids.as_ref(), "sizes and crop"),
            (self.resolution.as_ref(), "height and width"),
            (self.aspect_ratio.as_ref(), "height by width"),
            (self.timestep_cond.as_ref(), "embedded guidance scale"),
            (self.guidance.as_ref(), "guidance scale"),
            (self.class_labels.as_ref(), "class labels"),
            (self.residuals.mid.as_ref(), "control residual, middle"),
            (Some(&self.output), "prediction"),
        ];
        let mut roles: Vec<_> = plain.into_iter().filter_map(|(t, role)| Some((t?, role.to_owned()))).collect();
        roles.extend(self.residuals.down.iter().enumerate().map(|(i, t)| (t, format!("control residual {i}"))));
        roles.extend(self.constants.iter().map(|s| (&s.input, format!("switch, {}", s.value))));
        roles
    }
}

fn axis(t: &TensorInfo, at: usize) -> Option<usize> {
    t.shape.get(at).and_then(Dim::fixed)
}

fn is_mask(t: &TensorInfo) -> bool {
    t.shape.len() == 2 && (is_number(t) || t.dtype == DType::Bool)
}

/// Whether an input has a whole number or a bool for each token of the context.
fn masks(t: &TensorInfo, context: Option<&TensorInfo>) -> bool {
    let tokens = context.and_then(|context| context.shape.get(1));
    let is_told = tokens.is_some_and(|tokens| !matches!(tokens, Dim::Free(name) if name.is_empty()));
    is_mask(t) && !t.dtype.is_float() && is_told && t.shape.get(1) == tokens
}

fn has_time_ids_shape(t: &TensorInfo) -> bool {
    matches!(t.shape.as_slice(), [_, Dim::Fixed(5 | 6)]) && t.dtype != DType::Bool
}

/// Takes the inputs for positions, where the graph has both.
fn positions(inputs: &mut Unassigned<'_>) -> Option<Positions> {
    let is_triple = |t: &TensorInfo| {
        let last = t.shape.last().and_then(Dim::fixed);
        is_number(t) && matches!(t.shape.len(), 2 | 3) && last.is_none_or(|numbers| numbers == 3)
    };
    match (inputs.named(&["img_ids"], is_triple), inputs.named(&["txt_ids"], is_triple)) {
        (Some(image), Some(text)) => Some(Positions { image, text }),
        (image, text) => {
            let lone = image.or(text)?;
            inputs.left.extend(inputs.component.graph.input(&lone.name));
            None
        }
    }
}

/// Takes the residual inputs: their names differ by exporter, their order does not.
fn residuals(inputs: &mut Unassigned<'_>) -> Residuals {
    let is_mid = |t: &TensorInfo| is_float(t, 4) && t.name.starts_with("mid_block");
    let mid = inputs.only(is_mid);
    let down = inputs.all(|t| if is_float(t, 4) { down_block_number(&t.name) } else { None });
    Residuals { down: down.into_iter().map(|(_, t)| t).collect(), mid }
}

/// The number in a name such as `down_block_3_additional_residual`, `down_block_3` or `down_block_additional_residual_3`.
pub(super) fn down_block_number(name: &str) -> Option<usize> {
    let rest = name.strip_prefix("down_block")?;
    let digits: String = rest.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}
