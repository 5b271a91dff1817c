//! PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds".

use super::config::{SchedulerKey, keys};
use super::sample::{History, PredictionType, add_noise, blocks, lookup, lookup_timestep, predict_x0};
use super::settings::SchedulerSettings;
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, betas, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "pndm",
    class: "PNDMScheduler",
    aliases: &[SchedulerAlias::plain("PLMS")],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Pseudo numerical methods: linear multistep, started with Runge-Kutta unless skip_prk_steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::switch("skip_prk_steps", false),
        SchedulerKey::switch("set_alpha_to_one", false),
        keys::prediction_type(&["epsilon", "v_prediction"]),
        keys::timestep_spacing_or_compvis("leading"),
        keys::STEPS_OFFSET,
    ],
    build,
};

/// The order of the multistep method, and the number of timesteps that its Runge-Kutta start spans.
const ORDER: usize = 4;

#[derive(Debug)]
struct Pndm {
    /// The timestep of each evaluation as an integer.
    int_timesteps: Vec<i64>,
    timesteps: Vec<f64>,
    /// The number of evaluations in the Runge-Kutta start.
    prk_count: usize,
    alphas: Vec<f32>,
    final_alpha: f32,
    /// Training timesteps from one step of the run to the next.
    ratio: i64,
    prediction_type: PredictionType,
    /// Evaluations so far, whatever the index at which the run started.
    counter: usize,
    ets: History,
    cur_sample: Vec<f32>,
    sum: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let ratio = (train / steps) as i64;
    let alphas = betas::alphas_cumprod(settings)?;
    let first = lookup_timestep(settings, &alphas, 0)?;
    let spaced: Vec<i64> = spacing::timesteps(settings, request, true)?.into_iter().map(|t| t as i64).collect();

    let mut int_timesteps = Vec::with_capacity(spaced.len() + 3 * ORDER);
    let prk_count;
    if settings.switch("skip_prk_steps")? {
        // The second timestep is visited twice: by an Euler step, then again with the mean of both model outputs.
        int_timesteps.extend(spaced.iter().take(2));
        int_timesteps.extend(spaced.get(1));
        int_timesteps.extend(spaced.iter().skip(2));
        prk_count = 0;
    } else {
        if spaced.len() < ORDER {
            let problem = format!("a Runge-Kutta start needs at least 4 steps, found {steps}");
            let help = "use at least 4 steps, or set skip_prk_steps = true";
            return Err(settings.error("skip_prk_steps", problem, help));
        }
        // Each of the four highest timesteps and the one half a step below it is visited twice, except at both ends.
        let halves: Vec<i64> = spaced[..ORDER].iter().flat_map(|t| [t + ratio / 2, *t]).skip(1).collect();
        let doubled: Vec<i64> = halves.iter().flat_map(|t| [*t, *t]).collect();
        int_timesteps.extend(&doubled[1..doubled.len() - 1]);
        prk_count = int_timesteps.len();
        int_timesteps.extend(&spaced[ORDER - 1..]);
    }
    for (i, t) in int_timesteps.iter().enumerate() {
        lookup_timestep(settings, &alphas, *t)?;
        if i > 0 && prk_count == 0 {
            // The second evaluation of a run looks one step up, at any index.
            lookup_timestep(settings, &alphas, t + ratio)?;
        }
    }
    Ok(Box::new(Pndm {
        timesteps: int_timesteps.iter().map(|t| *t as f64).collect(),
        int_timesteps,
        prk_count,
        final_alpha: if settings.switch("set_alpha_to_one")? { 1.0 } else { first },
        alphas,
        ratio,
        prediction_type: PredictionType::from_settings(settings)?,
        counter: 0,
        ets: History::new(ORDER),
        cur_sample: Vec::new(),
        sum: Vec::new(),
    }))
}

/// The coefficients of equation 9 of the paper between two timesteps.
#[derive(Debug, Clone, Copy)]
struct Transfer {
    keep: f32,
    difference: f32,
    denominator: f32,
    signal: f32,
    sigma: f32,
    velocity: bool,
}

impl Transfer {
    /// Moves `x` along the model output `m`.
    fn apply(&self, x: f32, m: f32) -> f32 {
        let m = if self.velocity { self.signal * m + self.sigma * x } else { m };
        self.keep * x - self.difference * m / self.denominator
    }
}

impl Pndm {
    fn alpha(&self, timestep: i64) -> f32 {
        lookup(&self.alphas, timestep).unwrap_or(self.final_alpha)
    }

    fn transfer(&self, timestep: i64, previous: i64) -> Transfer {
        let alpha = self.alpha(timestep);
        let previous_alpha = if previous >= 0 { self.alpha(previous) } else { self.final_alpha };
        let (beta, previous_beta) = (1.0 - alpha, 1.0 - previous_alpha);
        Transfer {
            keep: (previous_alpha / alpha).sqrt(),
            difference: previous_alpha - alpha,
            denominator: alpha * previous_beta.sqrt() + (alpha * beta * previous_alpha).sqrt(),
            signal: alpha.sqrt(),
            sigma: beta.sqrt(),
            velocity: self.prediction_type == PredictionType::Velocity,
        }
    }

    /// Performs one of the four evaluations of a Runge-Kutta step. The sample moves along the latest model output,
    /// always from the start of the step, until the fourth output completes the weighted sum.
    fn step_prk(&mut self, timestep: i64, model_output: &[f32], x: &mut [f32]) {
        let previous = if self.counter % 2 == 1 { timestep } else { timestep - self.ratio / 2 };
        let transfer = self.transfer(self.int_timesteps[self.counter / 4 * 4], previous);
        let (sixth, third) = ((1.0 / 6.0) as f32, (1.0 / 3.0) as f32);
        match self.counter % 4 {
            0 => {
                self.ets.push(model_output);
                self.cur_sample.clear();
                self.cur_sample.extend_from_slice(x);
                self.sum.clear();
                self.sum.extend(model_output.iter().map(|m| sixth * m));
                for (x, m) in x.iter_mut().zip(model_output) {
                    *x = transfer.apply(*x, *m);
                }
            }
            3 => {
                for (((x, sample), sum), m) in x.iter_mut().zip(&self.cur_sample).zip(&self.sum).zip(model_output) {
                    *x = transfer.apply(*sample, sum + sixth * m);
                }
            }
            _ => {
                for (((x, sample), sum), m) in x.iter_mut().zip(&self.cur_sample).zip(&mut self.sum).zip(model_output) {
                    *sum += third * m;
                    *x = transfer.apply(*sample, *m);
                }
            }
        }
    }

    /// Performs one linear multistep step (equation 12 and its lower orders).
    fn step_plms(&mut self, timestep: i64, model_output: &[f32], x: &mut [f32]) {
        if self.counter == 1 {
            // The second evaluation is at the end of the first step: repeat that step with the mean of both outputs.
            let transfer = self.transfer(timestep + self.ratio, timestep);
            let first = &self.ets[0];
            for (((x, sample), m), e) in x.iter_mut().zip(&self.cur_sample).zip(model_output).zip(first) {
                *x = transfer.apply(*sample, (m + e) / 2.0);
            }
            return;
        }
        let transfer = self.transfer(timestep, timestep - self.ratio);
        if self.ets.len() == 0 {
            self.cur_sample.clear();
            self.cur_sample.extend_from_slice(x);
        }
        let weight = (1.0 / 24.0) as f32;
        let (newest, older) = self.ets.advance_with_older(x.len());
        for block in blocks(x.len()) {
            let (x, e0) = (&mut x[block.clone()], &model_output[block.clone()]);
            newest[block.clone()].copy_from_slice(e0);
            match older {
                [] => {
                    for (x, e0) in x.iter_mut().zip(e0) {
                        *x = transfer.apply(*x, *e0);
                    }
                }
                [e1] => {
                    for ((x, e0), e1) in x.iter_mut().zip(e0).zip(&e1[block]) {
                        *x = transfer.apply(*x, (3.0 * e0 - e1) / 2.0);
                    }
                }
                [e1, e2] => {
                    for (((x, e0), e1), e2) in x.iter_mut().zip(e0).zip(&e1[block.clone()]).zip(&e2[block]) {
                        *x = transfer.apply(*x, (23.0 * e0 - 16.0 * e1 + 5.0 * e2) / 12.0);
                    }
                }
                [e1, e2, e3, ..] => {
                    let older = e1[block.clone()].iter().zip(&e2[block.clone()]).zip(&e3[block]);
                    for ((x, e0), ((e1, e2), e3)) in x.iter_mut().zip(e0).zip(older) {
                        *x = transfer.apply(*x, weight * (55.0 * e0 - 59.0 * e1 + 37.0 * e2 - 9.0 * e3));
                    }
                }
            }
        }
    }
}

impl Scheduler for Pndm {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let timestep = self.int_timesteps[step];
        if self.counter < self.prk_count {
            self.step_prk(timestep, model_output, x);
        } else {
            self.step_plms(timestep, model_output, x);
        }
        self.counter += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.alpha(self.int_timesteps[step]), x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
