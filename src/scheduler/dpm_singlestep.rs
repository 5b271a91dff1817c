//! DPM-Solver and DPM-Solver++ in their singlestep forms (Lu et al. 2022): a step of order 2 or 3 spans as many calls.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::{Algorithm, Converter};
use super::sample::{Bounds, History, estimate, mix};
use super::solver::{self, Level, Manner};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, noise};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "dpm-singlestep",
    class: "DPMSolverSinglestepScheduler",
    aliases: &[Alias::plain("DPM++ 2S"), Alias::plain("dpmpp_2s")],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::TIMESTEPS,
    about: "DPM-Solver++ whose steps of order 2 or 3 span as many calls of the model.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::new("solver_order", Kind::Order { default: 2, most: 3, lowers: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        Key::new(
            "algorithm_type",
            Kind::Choice {
                default: "dpmsolver++",
                valid: &["dpmsolver", "dpmsolver++", "sde-dpmsolver++"],
                foreign: &["deis"],
            },
        ),
        Key::new(
            "solver_type",
            Kind::Choice { default: "midpoint", valid: &["midpoint", "heun"], foreign: &["logrho", "bh1", "bh2"] },
        ),
        Key::switch("lower_order_final", false),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        keys::FINAL_SIGMAS_TYPE,
        Key::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver::VARIANCE_TYPE,
        Key::switch("use_dynamic_shifting", false),
        solver::TIME_SHIFT_TYPE,
    ],
    build,
};

#[derive(Debug)]
struct DpmSinglestep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The order of each call: 1 begins a step, 2 and 3 go on with it.
    orders: Vec<usize>,
    flow: bool,
    algorithm: Algorithm,
    converter: Converter,
    heun: bool,
    made: usize,
    answers: History,
    held_sample: Vec<f32>,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let order = settings.count("solver_order")?;
    if algorithm == Algorithm::Noise && !matches!(Bounds::from_settings(settings, 1)?, Bounds::None) {
        let help = "set algorithm_type = \"dpmsolver++\"";
        return Err(settings.error("thresholding", "the solver of the noise has no image to bound", help));
    }
    let alphas = noise::alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: false, repeats_last: false, inverse: false };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    let lower = settings.switch("lower_order_final")? || !request.steps.is_multiple_of(order) || to_zero;
    Ok(Box::new(DpmSinglestep {
        orders: orders(request.steps, order, lower, to_zero),
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        algorithm,
        converter: Converter::from_settings(settings, algorithm, request.images)?,
        heun: settings.choice("solver_type")? == "heun",
        made: 0,
        answers: History::new(order),
        held_sample: Vec::new(),
        drawn: Vec::new(),
    }))
}

/// The order of each of `steps` calls. With `lower` the last whole step gives way to smaller ones.
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
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }
}

impl Scheduler for DpmSinglestep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.level(step);
        let stochastic = self.algorithm.is_stochastic();
        if stochastic {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
        }
        self.made += 1;
        // A run that began in the middle of a step has no earlier answers yet.
        let order = self.orders[step].min(self.made);
        let to = self.level(step + 1);
        let from = self.level(step + 1 - order);
        let h = to.lambda - from.lambda;
        let w = self.algorithm.weights(order == 3 || self.heun, to, from, h);
        // How far the later answers of a step lie from its first one, as fractions of it.
        let [r0, r1] = match order {
            1 => [0.0; 2],
            2 => [(level.lambda - from.lambda) / h, 0.0],
            _ => [(level.lambda - from.lambda) / h, (self.level(step - 1).lambda - from.lambda) / h],
        };
        let (slope0, slope1) = (1.0 / r0, 1.0 / r1);
        let second = if self.heun { w.second } else { 0.0 };
        self.held_sample.resize(x.len(), 0.0);
        let (newest, older) = self.answers.advance_beside(x.len());
        for (block, model_output) in self.converter.blocks(x.len(), model_output) {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            let held = &mut self.held_sample[block.clone()];
            self.converter.convert(level, self.sigmas[step], model_output, x, m0);
            match order {
                1 => {
                    held.copy_from_slice(x);
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = w.sample * *x + w.answer * *m0;
                    }
                }
                2 => {
                    for (((x, held), m0), m1) in x.iter_mut().zip(held).zip(m0).zip(&older[0][block.clone()]) {
                        let d1 = slope0 * (*m0 - m1);
                        *x = w.sample * *held + w.answer * m1 + w.first * d1;
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block.clone()]);
                    for (((x, held), m0), (m1, m2)) in x.iter_mut().zip(held).zip(m0).zip(older) {
                        let (d10, d11) = (slope1 * (m1 - m2), slope0 * (*m0 - m2));
                        let (d1, d2) = if self.heun {
                            ((r0 * d10 - r1 * d11) / (r0 - r1), 2.0 * (d11 - d10) / (r0 - r1))
                        } else {
                            (d11, 0.0)
                        };
                        *x = w.sample * *held + w.answer * m2 + w.first * d1 + second * d2;
                    }
                }
            }
            if stochastic {
                for (x, drawn) in x.iter_mut().zip(&self.drawn[block]) {
                    *x += w.noise * drawn;
                }
            }
        }
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
