//! DPM-Solver and DPM-Solver++ in their singlestep forms (Lu et al. 2022): a step of order 2 or 3 spans as many
//! evaluations.

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::dpm_update::{Algorithm, OutputConverter};
use super::sample::{Bounds, History, mix, predict_x0};
use super::settings::SchedulerSettings;
use super::solver_schedule::{self, NoiseLevel, ScheduleOptions};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, betas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-singlestep",
    class: "DPMSolverSinglestepScheduler",
    aliases: &[SchedulerAlias::plain("DPM++ 2S"), SchedulerAlias::plain("dpmpp_2s")],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::TIMESTEPS,
    about: "DPM-Solver++ whose steps of order 2 or 3 span as many model evaluations.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::new("solver_order", SchedulerKeyKind::Order { default: 2, max: 3, clamp: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        SchedulerKey::new(
            "algorithm_type",
            SchedulerKeyKind::Choice {
                default: "dpmsolver++",
                valid: &["dpmsolver", "dpmsolver++", "sde-dpmsolver++"],
                foreign: &["deis"],
            },
        ),
        SchedulerKey::new(
            "solver_type",
            SchedulerKeyKind::Choice {
                default: "midpoint",
                valid: &["midpoint", "heun"],
                foreign: &["logrho", "bh1", "bh2"],
            },
        ),
        SchedulerKey::switch("lower_order_final", false),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        SchedulerKey::switch("use_flow_sigmas", false),
        SchedulerKey::float("flow_shift", 1.0),
        keys::FINAL_SIGMAS_TYPE,
        SchedulerKey::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver_schedule::VARIANCE_TYPE,
        SchedulerKey::switch("use_dynamic_shifting", false),
        solver_schedule::TIME_SHIFT_TYPE,
    ],
    build,
};

#[derive(Debug)]
struct DpmSinglestep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The order of each evaluation: 1 starts a step, 2 and 3 continue it.
    orders: Vec<usize>,
    flow: bool,
    algorithm: Algorithm,
    converter: OutputConverter,
    heun: bool,
    steps_done: usize,
    model_outputs: History,
    sample: Vec<f32>,
    noise: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let order = settings.count("solver_order")?;
    if algorithm == Algorithm::DpmSolver && !matches!(Bounds::from_settings(settings, 1)?, Bounds::None) {
        let help = "set algorithm_type = \"dpmsolver++\"";
        return Err(settings.error("thresholding", "dpmsolver predicts epsilon, which cannot be thresholded", help));
    }
    let alphas = betas::alphas_cumprod(settings)?;
    let options = ScheduleOptions { cosine_fractions: false, repeats_last: false, inverse: false };
    let schedule = solver_schedule::build_schedule(settings, request, &alphas, options)?;
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    let lower = settings.switch("lower_order_final")? || !request.steps.is_multiple_of(order) || to_zero;
    Ok(Box::new(DpmSinglestep {
        orders: orders(request.steps, order, lower, to_zero),
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        algorithm,
        converter: OutputConverter::from_settings(settings, algorithm, request.images)?,
        heun: settings.choice("solver_type")? == "heun",
        steps_done: 0,
        model_outputs: History::new(order),
        sample: Vec::new(),
        noise: Vec::new(),
    }))
}

/// Returns the order of each of `steps` evaluations. With `lower` the last full step is split into lower orders.
fn orders(steps: usize, order: usize, lower: bool, to_zero: bool) -> Vec<usize> {
    let mut orders: Vec<usize> = (0..steps).map(|i| i % order + 1).collect();
    if lower && steps.is_multiple_of(order) {
        match orders.as_mut_slice() {
            [.., a, b, c] if order == 3 => [*a, *b, *c] = [1, 2, 1],
            [.., a, b] if order == 2 => [*a, *b] = [1, 1],
            _ => {}
        }
    }
    if to_zero && let Some(last) = orders.last_mut() {
        *last = 1;
    }
    orders
}

impl DpmSinglestep {
    fn noise_level(&self, step: usize) -> NoiseLevel {
        NoiseLevel::new(self.sigmas[step], self.flow)
    }
}

impl Scheduler for DpmSinglestep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.noise_level(step);
        let stochastic = self.algorithm.is_stochastic();
        if stochastic {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
        }
        self.steps_done += 1;
        // A run that started in the middle of a step has no earlier model outputs yet.
        let order = self.orders[step].min(self.steps_done);
        let to = self.noise_level(step + 1);
        let from = self.noise_level(step + 1 - order);
        let h = to.lambda - from.lambda;
        let w = self.algorithm.weights(order == 3 || self.heun, to, from, h);
        // Distances in lambda of a step's later model outputs from its first, as fractions of the step.
        let [r0, r1] = match order {
            1 => [0.0; 2],
            2 => [(level.lambda - from.lambda) / h, 0.0],
            _ => [(level.lambda - from.lambda) / h, (self.noise_level(step - 1).lambda - from.lambda) / h],
        };
        let (slope0, slope1) = (1.0 / r0, 1.0 / r1);
        let second = if self.heun { w.d2 } else { 0.0 };
        self.sample.resize(x.len(), 0.0);
        let (newest, older) = self.model_outputs.advance_with_older(x.len());
        for (block, model_output) in self.converter.blocks(x.len(), model_output) {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            let sample = &mut self.sample[block.clone()];
            self.converter.convert(level, self.sigmas[step], model_output, x, m0);
            match order {
                1 => {
                    sample.copy_from_slice(x);
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = w.sample * *x + w.d0 * *m0;
                    }
                }
                2 => {
                    for (((x, sample), m0), m1) in x.iter_mut().zip(sample).zip(m0).zip(&older[0][block.clone()]) {
                        let d1 = slope0 * (*m0 - m1);
                        *x = w.sample * *sample + w.d0 * m1 + w.d1 * d1;
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block.clone()]);
                    for (((x, sample), m0), (m1, m2)) in x.iter_mut().zip(sample).zip(m0).zip(older) {
                        let (d10, d11) = (slope1 * (m1 - m2), slope0 * (*m0 - m2));
                        let (d1, d2) = if self.heun {
                            ((r0 * d10 - r1 * d11) / (r0 - r1), 2.0 * (d11 - d10) / (r0 - r1))
                        } else {
                            (d11, 0.0)
                        };
                        *x = w.sample * *sample + w.d0 * m2 + w.d1 * d1 + second * d2;
                    }
                }
            }
            if stochastic {
                for (x, noise) in x.iter_mut().zip(&self.noise[block]) {
                    *x += w.noise * noise;
                }
            }
        }
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

#[cfg(test)]
mod tests {
    use super::orders;

    #[test]
    fn short_ends_take_lower_orders() {
        assert_eq!(orders(6, 3, true, false), [1, 2, 3, 1, 2, 1]);
        assert_eq!(orders(7, 3, true, false), [1, 2, 3, 1, 2, 3, 1]);
        assert_eq!(orders(4, 2, true, false), [1, 2, 1, 1]);
        assert_eq!(orders(5, 2, true, false), [1, 2, 1, 2, 1]);
        assert_eq!(orders(4, 2, false, false), [1, 2, 1, 2]);
        assert_eq!(orders(5, 3, true, true), [1, 2, 3, 1, 1]);
    }
}
