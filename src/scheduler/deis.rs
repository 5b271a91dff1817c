//! DEIS: Zhang and Chen 2022, "Fast Sampling of Diffusion Models with Exponential Integrator", in its log-rho form.

use super::betas::{exp_f32, numpy_ln_f32 as ln_f32};
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::multistep::Orders;
use super::sample::{Bounds, History, PredictionType, mix, predict_x0};
use super::settings::SchedulerSettings;
use super::solver_schedule::{self, NoiseLevel, ScheduleOptions};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerEntry, betas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "deis",
    class: "DEISMultistepScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Exponential integrator with multistep polynomials of order 1 to 3 in log-rho.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::new("solver_order", SchedulerKeyKind::Order { default: 2, max: 3, clamp: true }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        SchedulerKey::new(
            "algorithm_type",
            SchedulerKeyKind::Choice { default: "deis", valid: &["deis"], foreign: &["dpmsolver", "dpmsolver++"] },
        ),
        SchedulerKey::new(
            "solver_type",
            SchedulerKeyKind::Choice {
                default: "logrho",
                valid: &["logrho"],
                foreign: &["midpoint", "heun", "bh1", "bh2"],
            },
        ),
        SchedulerKey::switch("lower_order_final", true),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        SchedulerKey::switch("use_flow_sigmas", false),
        SchedulerKey::float("flow_shift", 1.0),
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        SchedulerKey::switch("use_dynamic_shifting", false),
        solver_schedule::TIME_SHIFT_TYPE,
    ],
    build,
};

#[derive(Debug)]
struct Deis {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    orders: Orders,
    converter: DeisOutputConverter,
    model_outputs: History,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    settings.choice("algorithm_type")?;
    settings.choice("solver_type")?;
    let order = settings.count("solver_order")?;
    let alphas = betas::alphas_cumprod(settings)?;
    let options = ScheduleOptions { cosine_fractions: false, repeats_last: true, inverse: false };
    let schedule = solver_schedule::build_schedule(settings, request, &alphas, options)?;
    let steps = schedule.timesteps.len();
    let lower = settings.switch("lower_order_final")? && steps < 15;
    let last = steps.saturating_sub(1);
    Ok(Box::new(Deis {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        orders: Orders { order, second_before_last: lower, first_at_last: lower, last, steps_done: 0 },
        converter: DeisOutputConverter {
            prediction_type: PredictionType::from_settings(settings)?,
            bounds: Bounds::from_settings(settings, request.images)?,
        },
        model_outputs: History::new(order),
    }))
}

impl Deis {
    fn noise_level(&self, step: usize) -> NoiseLevel {
        NoiseLevel::new(self.sigmas[step], self.flow)
    }
}

/// Converts model outputs to epsilon predictions.
#[derive(Debug)]
struct DeisOutputConverter {
    prediction_type: PredictionType,
    bounds: Bounds,
}

impl DeisOutputConverter {
    /// Writes the epsilon prediction to `converted`, by way of x0 so that it can be thresholded.
    fn convert(
        &mut self,
        level: NoiseLevel,
        schedule_sigma: f32,
        model_output: &[f32],
        x: &[f32],
        converted: &mut [f32],
    ) {
        let NoiseLevel { alpha, sigma, .. } = level;
        let prediction_type = self.prediction_type;
        for ((converted, x), m) in converted.iter_mut().zip(x).zip(model_output) {
            *converted = match prediction_type {
                PredictionType::Sample => *m,
                PredictionType::Velocity => alpha * x - sigma * m,
                PredictionType::Flow => x - schedule_sigma * m,
                PredictionType::Epsilon => (x - sigma * m) / alpha,
            };
        }
        self.bounds.apply(converted);
        // diffusers continues with the schedule's own sigma for flow predictions.
        let sigma = if prediction_type == PredictionType::Flow { schedule_sigma } else { sigma };
        for (converted, x) in converted.iter_mut().zip(x) {
            *converted = (x - alpha * *converted) / sigma;
        }
    }
}

/// Integrates, from `from` to `to` in rho, the line in log-rho that is 1 at `b` and 0 at `c`.
fn integrate_line(to: f32, from: f32, b: f32, c: f32) -> f32 {
    let antiderivative = |t: f32| t * (-ln_f32(c) + ln_f32(t) - 1.0) / (ln_f32(b) - ln_f32(c));
    antiderivative(to) - antiderivative(from)
}

/// Integrates, from `from` to `to` in rho, the parabola in log-rho that is 1 at `b` and 0 at `c` and `d`.
fn integrate_parabola(to: f32, from: f32, b: f32, c: f32, d: f32) -> f32 {
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

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let (from, to) = (self.noise_level(step), self.noise_level(step + 1));
        let rho = |level: NoiseLevel| level.sigma / level.alpha;
        let (rho_t, rho0) = (rho(to), rho(from));
        let order = self.orders.order_at(step);
        let keep = to.alpha / from.alpha;
        let weight = to.sigma * (exp_f32(to.lambda - from.lambda) - 1.0);
        let [c0, c1, c2] = match order {
            1 => [0.0; 3],
            2 => {
                let rho1 = rho(self.noise_level(step - 1));
                [integrate_line(rho_t, rho0, rho0, rho1), integrate_line(rho_t, rho0, rho1, rho0), 0.0]
            }
            _ => {
                let (rho1, rho2) = (rho(self.noise_level(step - 1)), rho(self.noise_level(step - 2)));
                [
                    integrate_parabola(rho_t, rho0, rho0, rho1, rho2),
                    integrate_parabola(rho_t, rho0, rho1, rho2, rho0),
                    integrate_parabola(rho_t, rho0, rho2, rho0, rho1),
                ]
            }
        };
        let (newest, older) = self.model_outputs.advance_with_older(x.len());
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
        self.orders.steps_done += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = self.noise_level(step);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.converter.prediction_type, step, model_output, x, out);
    }
}
