//! UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models".

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::Converter;
use super::sample::{Bounds, History, Prediction, mix};
use super::sigmas::{self, Ramp};
use super::solver::{self, Level, Manner, Schedule};
use super::spacing::linspace;
use super::{Accepts, Alias, Custom, Entry, Noise, Request, Scheduler, Setting, flow, noise};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "unipc",
    class: "UniPCMultistepScheduler",
    aliases: &[
        Alias { name: "uni_pc_bh1", settings: &[("solver_type", Setting::Word("bh1"))] },
        Alias { name: "uni_pc_bh2", settings: &[("solver_type", Setting::Word("bh2"))] },
    ],
    order: 1,
    stochastic: false,
    accepts: Accepts::FLOW_SIGMAS,
    about: "Predictor and corrector of any order at one call a step; strong at 5 to 15 steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::new("solver_order", Kind::Count(2)),
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

#[derive(Debug)]
struct UniPc {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    order: usize,
    of_picture: bool,
    bh1: bool,
    lower_order_final: bool,
    /// Steps that are not corrected by the answer after them.
    uncorrected: Vec<usize>,
    converter: Converter,
    made: usize,
    /// The order of the latest prediction.
    predicted_order: usize,
    answers: History,
    /// The newest answer, before it joins the others.
    answer: Vec<f32>,
    last_sample: Vec<f32>,
    residual: Vec<f32>,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let order = settings.count("solver_order")?;
    if order > 6 {
        return Err(settings.error("solver_order", format!("expected 1 to 6, found {order}"), "2 or 3 is usual"));
    }
    let prediction = Prediction::from_settings(settings)?;
    let of_picture = settings.switch("predict_x0")?;
    if prediction == Prediction::Flow && !of_picture {
        return Err(settings.error(
            "prediction_type",
            "flow_prediction needs a solver of the picture",
            "set predict_x0",
        ));
    }
    let bounds = if of_picture { Bounds::from_settings(settings, request.images)? } else { Bounds::None };
    let schedule = schedule(settings, request)?;
    let uncorrected = settings.maybe_floats("disable_corrector")?.unwrap_or_default();
    Ok(Box::new(UniPc {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        order,
        of_picture,
        bh1: settings.choice("solver_type")? == "bh1",
        lower_order_final: settings.switch("lower_order_final")?,
        uncorrected: uncorrected.into_iter().map(|step| step as usize).collect(),
        converter: Converter::new(prediction, !of_picture, bounds, request.images),
        made: 0,
        predicted_order: 0,
        answers: History::new(order),
        answer: Vec::new(),
        last_sample: Vec::new(),
        residual: Vec::new(),
    }))
}

fn schedule(settings: &Settings, request: &Request) -> Result<Schedule> {
    let train = settings.count("num_train_timesteps")? as f64;
    let in_flow = settings.switch("use_flow_sigmas")?;
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let terminal = settings.maybe_float("shift_terminal")?;
    if terminal.is_some() && !in_flow {
        return Err(settings.error("shift_terminal", "only flow sigmas have one", "set use_flow_sigmas = true"));
    }
    if dynamic && request.mu.is_none() {
        let help = "set use_dynamic_shifting = false and a flow_shift";
        return Err(settings.error("use_dynamic_shifting", "the task gives no shift for the picture's size", help));
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
            let manner = Manner { cosine_fractions: false, repeats_last: true };
            return solver::schedule(settings, request, &alphas, manner);
        }
    };
    let timesteps = levels.iter().map(|level| (level * train).trunc()).collect();
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    levels.push(if to_zero { 0.0 } else { levels[levels.len() - 1] });
    Ok(Schedule { timesteps, sigmas: levels.into_iter().map(|level| level as f32).collect() })
}

/// The solution of a small system of linear equations, by elimination with pivots; `rows` hold the right side last.
fn solve(mut rows: Vec<Vec<f32>>) -> Vec<f32> {
    let n = rows.len();
    for column in 0..n {
        let pivot = (column..n).max_by(|a, b| rows[*a][column].abs().total_cmp(&rows[*b][column].abs()));
        rows.swap(column, pivot.unwrap_or(column));
        let pivot_row = rows[column].clone();
        for row in rows.iter_mut().skip(column + 1) {
            let factor = row[column] / pivot_row[column];
            for (value, pivot) in row.iter_mut().zip(&pivot_row).skip(column) {
                *value -= factor * pivot;
            }
        }
    }
    let mut solution = vec![0.0; n];
    for i in (0..n).rev() {
        let known: f32 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (rows[i][n] - known) / rows[i][i];
    }
    solution
}

/// One update from `from` to `to`: the weights of sample and answer, and of the differences of earlier answers.
#[derive(Debug)]
struct Update {
    sample: f32,
    answer: f32,
    /// The factor of all differences.
    scale: f32,
    /// The distance of each earlier answer in lambda, as a fraction of the step.
    distances: Vec<f32>,
    /// The weights of the differences; the corrector's has one more, for the newest answer.
    rhos: Vec<f32>,
}

impl UniPc {
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }

    /// The update of this order from step `at` to the next, section 3.2 of the paper.
    fn update(&self, at: usize, order: usize, corrects: bool) -> Update {
        let (from, to) = (self.level(at), self.level(at + 1));
        let h = to.lambda - from.lambda;
        let distances: Vec<f32> = (1..order).map(|i| (self.level(at - i).lambda - from.lambda) / h).collect();
        let signed = if self.of_picture { -h } else { h };
        let phi = f64::from(signed).exp_m1() as f32;
        let b_h = if self.bh1 { signed } else { phi };
        let nodes: Vec<f32> = distances.iter().copied().chain([1.0]).collect();
        let mut term = phi / signed - 1.0;
        let mut factorial = 1.0_f64;
        let mut rows: Vec<Vec<f32>> = Vec::with_capacity(order);
        for i in 0..order {
            let mut row: Vec<f32> = nodes.iter().map(|node| node.powi(i as i32)).collect();
            row.push(term * factorial as f32 / b_h);
            rows.push(row);
            factorial *= (i + 2) as f64;
            term = term / signed - (1.0 / factorial) as f32;
        }
        let rhos = match (corrects, order) {
            (true, 1) | (false, 2) => vec![0.5],
            (true, _) => solve(rows),
            (false, 1) => Vec::new(),
            (false, _) => {
                rows.pop();
                rows.iter_mut().for_each(|row| {
                    row.remove(order - 1);
                });
                solve(rows)
            }
        };
        let (sample, weight) =
            if self.of_picture { (to.sigma / from.sigma, to.alpha) } else { (to.alpha / from.alpha, to.sigma) };
        Update { sample, answer: weight * phi, scale: weight * b_h, distances, rhos }
    }

    /// Fills the residual with the weighted differences of earlier answers.
    fn gather(&mut self, update: &Update) {
        let m0 = &self.answers[0];
        self.residual.clear();
        self.residual.resize(m0.len(), 0.0);
        for (i, (distance, rho)) in update.distances.iter().zip(&update.rhos).enumerate() {
            for ((sum, m), m0) in self.residual.iter_mut().zip(&self.answers[i + 1]).zip(m0) {
                *sum += rho * ((m - m0) / distance);
            }
        }
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let level = self.level(step);
        self.answer.resize(x.len(), 0.0);
        self.converter.convert(level, self.sigmas[step], model_output, x, &mut self.answer);
        if self.made > 0 && !self.uncorrected.contains(&(step - 1)) {
            let update = self.update(step - 1, self.predicted_order, true);
            self.gather(&update);
            let rho = update.rhos[update.rhos.len() - 1];
            let m0 = &self.answers[0];
            let values = x.iter_mut().zip(&self.last_sample).zip(m0).zip(&self.answer).zip(&self.residual);
            for ((((x, last), m0), m), residual) in values {
                let base = update.sample * last - update.answer * m0;
                *x = base - update.scale * (residual + rho * (m - m0));
            }
        }
        self.answers.push(&self.answer);
        let left = self.timesteps.len() - step;
        let order = if self.lower_order_final { self.order.min(left) } else { self.order };
        self.predicted_order = order.min(self.made + 1);
        self.last_sample.resize(x.len(), 0.0);
        self.last_sample.copy_from_slice(x);
        let update = self.update(step, self.predicted_order, false);
        if self.predicted_order == 1 {
            for (x, m0) in x.iter_mut().zip(&self.answers[0]) {
                *x = update.sample * *x - update.answer * m0;
            }
        } else {
            self.gather(&update);
            for ((x, m0), residual) in x.iter_mut().zip(&self.answers[0]).zip(&self.residual) {
                *x = update.sample * *x - update.answer * m0 - update.scale * residual;
            }
        }
        self.made += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = self.level(step);
        mix(level.alpha, x0, level.sigma, noise, out);
    }
}
