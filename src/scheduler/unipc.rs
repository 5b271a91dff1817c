//! UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models".

use super::config::{CLASS_NAME, Key, Kind, Settings, keys};
use super::dpm_update::Converter;
use super::sample::{Bounds, History, Prediction, estimate, mix};
use super::sigmas::{self, Ramp};
use super::solver::{self, Level, Manner, Schedule};
use super::spacing::linspace;
use super::{Accepts, Alias, Custom, Noise, ScheduleRequest, Scheduler, SchedulerEntry, Setting, flow, noise};
use crate::error::Result;
use serde_json::Value;
use std::ops::Range;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "unipc",
    class: "UniPCMultistepScheduler",
    aliases: &[
        Alias { name: "uni_pc_bh1", settings: &[("solver_type", Setting::Word("bh1"))] },
        Alias { name: "uni_pc_bh2", settings: &[("solver_type", Setting::Word("bh2"))] },
    ],
    order: 1,
    stochastic: false,
    inverse: false,
    accepts: Accepts::FLOW_SIGMAS,
    about: "Predictor and corrector of any order at one call a step; strong at 5 to 15 steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::new("solver_order", Kind::Order { default: 2, most: MOST, lowers: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        Key::switch("predict_x0", true),
        Key::new(
            "solver_type",
            Kind::Choice { default: "bh2", valid: &["bh1", "bh2"], foreign: &["midpoint", "heun", "logrho"] },
        ),
        Key::switch("lower_order_final", true),
        Key::new("disable_corrector", Kind::MaybeFloats),
        Key::new("solver_p", Kind::MaybeScheduler),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        keys::FINAL_SIGMAS_TYPE,
        keys::RESCALE_BETAS_ZERO_SNR,
        Key::switch("use_dynamic_shifting", false),
        Key::choice("time_shift_type", "exponential", &["exponential", "linear"]),
        Key::new("sigma_min", Kind::MaybeFloat),
        Key::new("sigma_max", Kind::MaybeFloat),
        Key::new("shift_terminal", Kind::MaybeFloat),
    ],
    build,
};

/// The highest order.
const MOST: usize = 6;

struct UniPc {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    order: usize,
    of_image: bool,
    bh1: bool,
    lower_order_final: bool,
    /// Steps that are not corrected by the answer after them.
    uncorrected: Vec<f64>,
    /// A scheduler that predicts in this one's place, which then only corrects.
    solver_p: Option<Box<dyn Scheduler>>,
    converter: Converter,
    made: usize,
    /// The order of the latest prediction.
    predicted_order: usize,
    /// One more than the order: the corrector looks from the newest answer to all those that the predictor knew.
    answers: History,
    last_sample: Vec<f32>,
    residual: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let order = settings.count("solver_order")?;
    let prediction = Prediction::from_settings(settings)?;
    let of_image = settings.switch("predict_x0")?;
    if prediction == Prediction::Flow && !of_image {
        return Err(settings.error("prediction_type", "flow_prediction needs a solver of the image", "set predict_x0"));
    }
    let bounds = if of_image { Bounds::from_settings(settings, request.images)? } else { Bounds::None };
    let schedule = schedule(settings, request)?;
    let uncorrected = settings.maybe_floats("disable_corrector")?.unwrap_or_default();
    let solver_p = solver_p(settings, request, &schedule.timesteps)?;
    Ok(Box::new(UniPc {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        order,
        of_image,
        bh1: settings.choice("solver_type")? == "bh1",
        lower_order_final: settings.switch("lower_order_final")?,
        uncorrected,
        solver_p,
        converter: Converter::new(prediction, !of_image, bounds, request.images),
        made: 0,
        predicted_order: 0,
        answers: History::new(order + 1),
        last_sample: Vec::new(),
        residual: Vec::new(),
    }))
}

/// The scheduler of `solver_p`, which has to be asked about the same timesteps.
fn solver_p(settings: &Settings, request: &ScheduleRequest, timesteps: &[f64]) -> Result<Option<Box<dyn Scheduler>>> {
    let Some(table) = settings.maybe_scheduler("solver_p")? else { return Ok(None) };
    let name = table.get(CLASS_NAME).and_then(Value::as_str).unwrap_or_default();
    let predictor = super::build(name, None, table, &ScheduleRequest::new(timesteps.len(), request.images))?;
    if predictor.initial_noise_sigma() != 1.0 {
        let help = "take one of ddpm, ddim, dpm-multistep, dpm-singlestep, deis, unipc or sa-solver";
        return Err(settings.error("solver_p", format!("{name} scales its samples otherwise"), help));
    }
    if predictor.timesteps() != timesteps {
        let first = |timesteps: &[f64]| timesteps.iter().take(3).map(f64::to_string).collect::<Vec<_>>().join(", ");
        return Err(settings.error(
            "solver_p",
            format!("{name} visits timesteps {} ..., not {} ...", first(predictor.timesteps()), first(timesteps)),
            "give both the same timestep_spacing, \"trailing\" for ddim",
        ));
    }
    Ok(Some(predictor))
}

fn schedule(settings: &Settings, request: &ScheduleRequest) -> Result<Schedule> {
    let train = settings.count("num_train_timesteps")? as f64;
    let in_flow = settings.switch("use_flow_sigmas")?;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let terminal = settings.maybe_float("shift_terminal")?;
    if terminal.is_some() && !in_flow {
        return Err(settings.error("shift_terminal", "only flow sigmas have one", "set use_flow_sigmas = true"));
    }
    if dynamic && request.mu.is_none() {
        let help = "set use_dynamic_shifting = false and a flow_shift";
        return Err(settings.error("use_dynamic_shifting", "the task gives no shift for the image's size", help));
    }
    let alphas = noise::positive_alphas_cumprod(settings)?;
    let ramp = Ramp::from_settings(settings)?;
    let mut levels: Vec<f64> = match ramp {
        Some(Ramp::Karras) if in_flow => {
            let training = sigmas::training_sigmas(&alphas);
            let (least, most) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
            let levels = Ramp::Karras.sigmas(settings, least, most, request.steps)?;
            levels.into_iter().map(|sigma| sigma / (sigma + 1.0)).collect()
        }
        None if in_flow => {
            let linear = settings.choice("time_shift_type")? == "linear";
            let shift = settings.float("flow_shift")?;
            let mut levels = match &request.custom {
                Some(Custom::Sigmas(list)) => list.clone(),
                _ => {
                    let mut levels = linspace(1.0, 1.0 / train, request.steps + 1);
                    levels.pop();
                    levels
                }
            };
            for level in &mut levels {
                *level = match request.mu.filter(|_| dynamic) {
                    Some(mu) => {
                        let factor = if linear { mu } else { mu.exp() };
                        factor / (factor + (1.0 / *level - 1.0))
                    }
                    None => flow::shift(shift, *level),
                };
            }
            if let Some(terminal) = terminal.filter(|terminal| *terminal != 0.0) {
                let scale = (1.0 - levels[levels.len() - 1]) / (1.0 - terminal);
                levels.iter_mut().for_each(|level| *level = 1.0 - (1.0 - *level) / scale);
            }
            // A level that is noise alone has no logarithm.
            if (levels[0] - 1.0).abs() < 1e-6 {
                levels[0] -= 1e-6;
            }
            levels
        }
        _ => {
            let manner = Manner { cosine_fractions: false, repeats_last: true, inverse: false };
            return solver::schedule(settings, request, &alphas, manner);
        }
    };
    let timesteps = levels.iter().map(|level| (level * train).trunc()).collect();
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    levels.push(if to_zero { 0.0 } else { levels[levels.len() - 1] });
    Ok(Schedule { timesteps, sigmas: levels.into_iter().map(|level| level as f32).collect() })
}

/// The solution of a system of `n` linear equations, by elimination with pivots.
fn solve(mut rows: [[f32; MOST]; MOST], mut right: [f32; MOST], n: usize) -> [f32; MOST] {
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        let pivot = pivot.unwrap_or(column);
        rows.swap(column, pivot);
        right.swap(column, pivot);
        let pivot_row = rows[column];
        for i in column + 1..n {
            let factor = rows[i][column] / pivot_row[column];
            for (value, pivot) in rows[i][..n].iter_mut().zip(&pivot_row).skip(column) {
                *value -= factor * pivot;
            }
            right[i] -= factor * right[column];
        }
    }
    let mut solution = [0.0; MOST];
    for i in (0..n).rev() {
        let known: f32 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (right[i] - known) / rows[i][i];
    }
    solution
}

/// One update from a step to the next: the weights of sample and answer, and of the differences of earlier answers.
#[derive(Debug)]
struct Update {
    order: usize,
    sample: f32,
    answer: f32,
    /// The factor of all differences.
    scale: f32,
    /// The distance of each earlier answer in lambda, as a fraction of the step; one less than the order.
    distances: [f32; MOST],
    /// The weights of the differences; the corrector's has one more, for the newest answer.
    rhos: [f32; MOST],
}

impl Update {
    /// Writes to `sum` the weighted differences of earlier answers from `m0`, all of them at this block.
    fn gather(&self, m0: &[f32], earlier: &[Vec<f32>], block: &Range<usize>, sum: &mut [f32]) {
        sum.fill(0.0);
        let weights = self.distances.iter().zip(&self.rhos).take(self.order - 1);
        for ((distance, rho), earlier) in weights.zip(earlier) {
            for ((sum, m), m0) in sum.iter_mut().zip(&earlier[block.clone()]).zip(m0) {
                *sum += rho * ((m - m0) / distance);
            }
        }
    }
}

impl UniPc {
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }

    /// The update of this order from step `at` to the next, section 3.2 of the paper.
    fn update(&self, at: usize, order: usize, corrects: bool) -> Update {
        let (from, to) = (self.level(at), self.level(at + 1));
        let h = to.lambda - from.lambda;
        let mut distances = [0.0; MOST];
        for (i, distance) in (1..order).zip(&mut distances) {
            *distance = (self.level(at - i).lambda - from.lambda) / h;
        }
        let signed = if self.of_image { -h } else { h };
        let phi = f64::from(signed).exp_m1() as f32;
        let b_h = if self.bh1 { signed } else { phi };
        let mut nodes = distances;
        nodes[order - 1] = 1.0;
        let mut term = phi / signed - 1.0;
        let mut factorial = 1.0_f64;
        let (mut rows, mut right) = ([[0.0; MOST]; MOST], [0.0; MOST]);
        for i in 0..order {
            rows[i] = nodes.map(|node: f32| node.powi(i as i32));
            right[i] = term * factorial as f32 / b_h;
            factorial *= (i + 2) as f64;
            term = term / signed - (1.0 / factorial) as f32;
        }
        let rhos = match (corrects, order) {
            (true, 1) | (false, 2) => [0.5; MOST],
            (true, _) => solve(rows, right, order),
            // The predictor does without the newest answer.
            (false, _) => solve(rows, right, order - 1),
        };
        let (sample, weight) =
            if self.of_image { (to.sigma / from.sigma, to.alpha) } else { (to.alpha / from.alpha, to.sigma) };
        Update { order, sample, answer: weight * phi, scale: weight * b_h, distances, rhos }
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.level(step);
        let corrects = self.made > 0 && !self.uncorrected.contains(&(step as f64 - 1.0));
        let corrector = corrects.then(|| self.update(step - 1, self.predicted_order, true));
        let left = self.timesteps.len() - step;
        let order = if self.lower_order_final { self.order.min(left) } else { self.order };
        self.predicted_order = order.min(self.made + 1);
        let predictor = self.update(step, self.predicted_order, false);
        self.last_sample.resize(x.len(), 0.0);
        let (newest, older) = self.answers.advance_beside(x.len());
        for (block, model_output) in self.converter.blocks(x.len(), model_output) {
            let (x, answer) = (&mut x[block.clone()], &mut newest[block.clone()]);
            let last = &mut self.last_sample[block.clone()];
            self.converter.convert(level, self.sigmas[step], model_output, x, answer);
            self.residual.resize(x.len(), 0.0);
            if let (Some(update), [m0, earlier @ ..]) = (&corrector, older) {
                let m0 = &m0[block.clone()];
                update.gather(m0, earlier, &block, &mut self.residual);
                let rho = update.rhos[update.order - 1];
                let answers = m0.iter().zip(answer.iter());
                for (((x, last), (m0, m)), residual) in x.iter_mut().zip(last.iter()).zip(answers).zip(&self.residual) {
                    let base = update.sample * last - update.answer * m0;
                    *x = base - update.scale * (residual + rho * (m - m0));
                }
            }
            last.copy_from_slice(x);
            let update = &predictor;
            if self.solver_p.is_some() {
                continue;
            }
            if update.order == 1 {
                for (x, m0) in x.iter_mut().zip(answer) {
                    *x = update.sample * *x - update.answer * *m0;
                }
            } else {
                update.gather(answer, older, &block, &mut self.residual);
                for ((x, m0), residual) in x.iter_mut().zip(answer).zip(&self.residual) {
                    *x = update.sample * *x - update.answer * *m0 - update.scale * residual;
                }
            }
        }
        self.made += 1;
        match &mut self.solver_p {
            Some(predictor) => predictor.step(step, model_output, x, noise),
            None => Ok(()),
        }
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = self.level(step);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.converter.prediction, step, model_output, x, out);
    }
}
