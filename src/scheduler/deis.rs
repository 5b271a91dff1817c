//! DEIS: Zhang and Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator", in its log-rho form.

use super::config::{Key, Kind, Settings, keys};
use super::multistep::Orders;
use super::noise::{exp_f32, numpy_ln_f32 as ln_f32};
use super::sample::{Bounds, History, Prediction, estimate, mix};
use super::solver::{self, Level, Manner};
use super::{Accepts, Noise, ScheduleRequest, Scheduler, SchedulerEntry, noise};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "deis",
    class: "DEISMultistepScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Exponential integrator with multistep polynomials of order 1 to 3 in log-rho.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::new("solver_order", Kind::Order { default: 2, most: 3, lowers: true }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        Key::new(
            "algorithm_type",
            Kind::Choice { default: "deis", valid: &["deis"], foreign: &["dpmsolver", "dpmsolver++"] },
        ),
        Key::new(
            "solver_type",
            Kind::Choice { default: "logrho", valid: &["logrho"], foreign: &["midpoint", "heun", "bh1", "bh2"] },
        ),
        Key::switch("lower_order_final", true),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        Key::switch("use_dynamic_shifting", false),
        solver::TIME_SHIFT_TYPE,
    ],
    build,
};

#[derive(Debug)]
struct Deis {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    orders: Orders,
    converter: Converter,
    answers: History,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    settings.choice("algorithm_type")?;
    settings.choice("solver_type")?;
    let order = settings.count("solver_order")?;
    let alphas = noise::alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: false, repeats_last: true, inverse: false };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let steps = schedule.timesteps.len();
    let lower = settings.switch("lower_order_final")? && steps < 15;
    let last = steps.saturating_sub(1);
    Ok(Box::new(Deis {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        orders: Orders { order, second_before_last: lower, first_at_last: lower, last, made: 0 },
        converter: Converter {
            prediction: Prediction::from_settings(settings)?,
            bounds: Bounds::from_settings(settings, request.images)?,
        },
        answers: History::new(order),
    }))
}

impl Deis {
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }
}

/// Turns a model's answers into noise predictions.
#[derive(Debug)]
struct Converter {
    prediction: Prediction,
    bounds: Bounds,
}

impl Converter {
    /// Writes the noise prediction, by way of the image so that it can be bounded, to `answer`.
    fn convert(&mut self, level: Level, raw: f32, model_output: &[f32], x: &[f32], answer: &mut [f32]) {
        let Level { alpha, sigma, .. } = level;
        let prediction = self.prediction;
        for ((answer, x), m) in answer.iter_mut().zip(x).zip(model_output) {
            *answer = match prediction {
                Prediction::Sample => *m,
                Prediction::Velocity => alpha * x - sigma * m,
                Prediction::Flow => x - raw * m,
                Prediction::Epsilon => (x - sigma * m) / alpha,
            };
        }
        self.bounds.apply(answer);
        // diffusers goes on with the schedule's own sigma where the model predicts a flow.
        let sigma = if prediction == Prediction::Flow { raw } else { sigma };
        for (answer, x) in answer.iter_mut().zip(x) {
            *answer = (x - alpha * *answer) / sigma;
        }
    }
}

/// The integral from `from` to `to` in rho of the line in log-rho that is 1 at `b` and 0 at `c`.
fn line(to: f32, from: f32, b: f32, c: f32) -> f32 {
    let antiderivative = |t: f32| t * (-ln_f32(c) + ln_f32(t) - 1.0) / (ln_f32(b) - ln_f32(c));
    antiderivative(to) - antiderivative(from)
}

/// The integral from `from` to `to` in rho of the parabola in log-rho that is 1 at `b` and 0 at `c` and `d`.
fn parabola(to: f32, from: f32, b: f32, c: f32, d: f32) -> f32 {
    let (b, c, d) = (ln_f32(b), ln_f32(c), ln_f32(d));
    let antiderivative = |t: f32| {
        let l = ln_f32(t);
        let numerator = t * (c * (d - l + 1.0) - d * l + d + l * l - 2.0 * l + 2.0);
        numerator / ((b - c) * (b - d))
    };
    antiderivative(to) - antiderivative(from)
}

impl Scheduler for Deis {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (from, to) = (self.level(step), self.level(step + 1));
        let rho = |level: Level| level.sigma / level.alpha;
        let (rho_t, rho0) = (rho(to), rho(from));
        let order = self.orders.at(step);
        let keep = to.alpha / from.alpha;
        let weight = to.sigma * (exp_f32(to.lambda - from.lambda) - 1.0);
        let [c0, c1, c2] = match order {
            1 => [0.0; 3],
            2 => {
                let rho1 = rho(self.level(step - 1));
                [line(rho_t, rho0, rho0, rho1), line(rho_t, rho0, rho1, rho0), 0.0]
            }
            _ => {
                let (rho1, rho2) = (rho(self.level(step - 1)), rho(self.level(step - 2)));
                [
                    parabola(rho_t, rho0, rho0, rho1, rho2),
                    parabola(rho_t, rho0, rho1, rho2, rho0),
                    parabola(rho_t, rho0, rho2, rho0, rho1),
                ]
            }
        };
        let (newest, older) = self.answers.advance_beside(x.len());
        for (block, model_output) in self.converter.bounds.blocks(x.len(), model_output) {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            self.converter.convert(from, self.sigmas[step], model_output, x, m0);
            match order {
                1 => {
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = keep * *x - weight * *m0;
                    }
                }
                2 => {
                    for ((x, m0), m1) in x.iter_mut().zip(m0).zip(&older[0][block]) {
                        *x = to.alpha * (*x / from.alpha + c0 * *m0 + c1 * m1);
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block]);
                    for ((x, m0), (m1, m2)) in x.iter_mut().zip(m0).zip(older) {
                        *x = to.alpha * (*x / from.alpha + c0 * *m0 + c1 * m1 + c2 * m2);
                    }
                }
            }
        }
        self.orders.made += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = self.level(step);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.converter.prediction, step, model_output, x, out);
    }
}
