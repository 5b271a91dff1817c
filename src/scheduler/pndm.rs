//! PNDM: Liu et al. 2022, "Pseudo Numerical Methods for Diffusion Models on Manifolds".

use super::config::{Key, Settings, keys};
use super::sample::{History, Prediction, add_noise, at, at_timestep, blocks, estimate};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, noise, spacing};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "pndm",
    class: "PNDMScheduler",
    aliases: &[Alias::plain("PLMS")],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Pseudo numerical methods: linear multistep, begun with Runge-Kutta unless skip_prk_steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::switch("skip_prk_steps", false),
        Key::switch("set_alpha_to_one", false),
        keys::prediction_type(&["epsilon", "v_prediction"]),
        keys::timestep_spacing_or_compvis("leading"),
        keys::STEPS_OFFSET,
    ],
    build,
};

/// The order of the multistep method, and how many timesteps its Runge-Kutta start spans.
const ORDER: usize = 4;

#[derive(Debug)]
struct Pndm {
    calls: Vec<i64>,
    timesteps: Vec<f64>,
    /// How many of the calls belong to the Runge-Kutta start.
    runge_kutta: usize,
    alphas: Vec<f32>,
    final_alpha: f32,
    /// Training timesteps from one step of the run to the next.
    ratio: i64,
    prediction: Prediction,
    /// Calls made so far: the solver counts these, whatever the index at which the run began.
    made: usize,
    answers: History,
    held_sample: Vec<f32>,
    sum: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let steps = request.steps;
    let train = settings.count("num_train_timesteps")?;
    let ratio = (train / steps) as i64;
    let alphas = noise::alphas_cumprod(settings)?;
    let first = at_timestep(settings, &alphas, 0)?;
    let spaced: Vec<i64> = spacing::timesteps(settings, request, true)?.into_iter().map(|t| t as i64).collect();

    let mut calls = Vec::with_capacity(spaced.len() + 3 * ORDER);
    let runge_kutta;
    if settings.switch("skip_prk_steps")? {
        // The second step is taken twice: an Euler step there, and back with the mean of both answers.
        calls.extend(spaced.iter().take(2));
        calls.extend(spaced.get(1));
        calls.extend(spaced.iter().skip(2));
        runge_kutta = 0;
    } else {
        if spaced.len() < ORDER {
            let problem = format!("too few steps ({steps}) to begin with Runge-Kutta");
            let help = "take at least 4 steps, or set skip_prk_steps = true";
            return Err(settings.error("skip_prk_steps", problem, help));
        }
        // Each of the four highest timesteps, and the one half a step below it, is called twice, but for the two ends.
        let halves: Vec<i64> = spaced[..ORDER].iter().flat_map(|t| [t + ratio / 2, *t]).skip(1).collect();
        let doubled: Vec<i64> = halves.iter().flat_map(|t| [*t, *t]).collect();
        calls.extend(&doubled[1..doubled.len() - 1]);
        runge_kutta = calls.len();
        calls.extend(&spaced[ORDER - 1..]);
    }
    for (i, t) in calls.iter().enumerate() {
        at_timestep(settings, &alphas, *t)?;
        if i > 0 && runge_kutta == 0 {
            // A run's second call looks one step up, wherever in the schedule it falls.
            at_timestep(settings, &alphas, t + ratio)?;
        }
    }
    Ok(Box::new(Pndm {
        timesteps: calls.iter().map(|t| *t as f64).collect(),
        calls,
        runge_kutta,
        final_alpha: if settings.switch("set_alpha_to_one")? { 1.0 } else { first },
        alphas,
        ratio,
        prediction: Prediction::from_settings(settings)?,
        made: 0,
        answers: History::new(ORDER),
        held_sample: Vec::new(),
        sum: Vec::new(),
    }))
}

/// Equation 9 of the paper between two timesteps, as coefficients.
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
    /// The sample that `x` becomes along the model's answer `m`.
    fn apply(&self, x: f32, m: f32) -> f32 {
        let m = if self.velocity { self.signal * m + self.sigma * x } else { m };
        self.keep * x - self.difference * m / self.denominator
    }
}

impl Pndm {
    fn alpha(&self, timestep: i64) -> f32 {
        at(&self.alphas, timestep).unwrap_or(self.final_alpha)
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
            velocity: self.prediction == Prediction::Velocity,
        }
    }

    /// One call of the four that make a Runge-Kutta step. The sample moves along the latest answer, always from where
    /// the step began, until the fourth answer completes the weighted sum.
    fn step_runge_kutta(&mut self, called: i64, model_output: &[f32], x: &mut [f32]) {
        let previous = if self.made % 2 == 1 { called } else { called - self.ratio / 2 };
        let transfer = self.transfer(self.calls[self.made / 4 * 4], previous);
        let (sixth, third) = ((1.0 / 6.0) as f32, (1.0 / 3.0) as f32);
        match self.made % 4 {
            0 => {
                self.answers.push(model_output);
                self.held_sample.clear();
                self.held_sample.extend_from_slice(x);
                self.sum.clear();
                self.sum.extend(model_output.iter().map(|m| sixth * m));
                for (x, m) in x.iter_mut().zip(model_output) {
                    *x = transfer.apply(*x, *m);
                }
            }
            3 => {
                for (((x, held), sum), m) in x.iter_mut().zip(&self.held_sample).zip(&self.sum).zip(model_output) {
                    *x = transfer.apply(*held, sum + sixth * m);
                }
            }
            _ => {
                for (((x, held), sum), m) in x.iter_mut().zip(&self.held_sample).zip(&mut self.sum).zip(model_output) {
                    *sum += third * m;
                    *x = transfer.apply(*held, *m);
                }
            }
        }
    }

    /// One linear multistep step (equation 12 and its lower orders).
    fn step_multistep(&mut self, called: i64, model_output: &[f32], x: &mut [f32]) {
        if self.made == 1 {
            // The second call is at the timestep the first one led to: go there again, with the mean of both answers.
            let transfer = self.transfer(called + self.ratio, called);
            let first = &self.answers[0];
            for (((x, held), m), e) in x.iter_mut().zip(&self.held_sample).zip(model_output).zip(first) {
                *x = transfer.apply(*held, (m + e) / 2.0);
            }
            return;
        }
        let transfer = self.transfer(called, called - self.ratio);
        if self.answers.len() == 0 {
            self.held_sample.clear();
            self.held_sample.extend_from_slice(x);
        }
        let weight = (1.0 / 24.0) as f32;
        let (newest, older) = self.answers.advance_beside(x.len());
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

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let called = self.calls[step];
        if self.made < self.runge_kutta {
            self.step_runge_kutta(called, model_output, x);
        } else {
            self.step_multistep(called, model_output, x);
        }
        self.made += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.alpha(self.calls[step]), x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.prediction, step, model_output, x, out);
    }
}
