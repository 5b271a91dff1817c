//! UniPC: Zhao et al. 2023, "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models".

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::dpm_update::OutputConverter;
use super::linspace::linspace;
use super::sample::{Bounds, History, PredictionType, mix, predict_x0};
use super::settings::SchedulerSettings;
use super::sigmas::{self, Ramp};
use super::solver_schedule::{self, NoiseLevel, ScheduleOptions, SolverSchedule};
use super::{
    AliasValue, CustomSchedule, CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias,
    SchedulerEntry, betas, flow,
};
use crate::elementary::{exp, exp_m1};
use crate::error::Result;
use std::ops::Range;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "unipc",
    class: "UniPCMultistepScheduler",
    aliases: &[
        SchedulerAlias { name: "uni_pc_bh1", settings: &[("solver_type", AliasValue::Word("bh1"))] },
        SchedulerAlias { name: "uni_pc_bh2", settings: &[("solver_type", AliasValue::Word("bh2"))] },
    ],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::FLOW_SIGMAS,
    about: "Predictor and corrector of any order with one evaluation per step; strong at 5 to 15 steps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::new("solver_order", SchedulerKeyKind::Order { default: 2, max: MAX_ORDER, clamp: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        SchedulerKey::switch("predict_x0", true),
        SchedulerKey::new(
            "solver_type",
            SchedulerKeyKind::Choice {
                default: "bh2",
                valid: &["bh1", "bh2"],
                foreign: &["midpoint", "heun", "logrho"],
            },
        ),
        SchedulerKey::switch("lower_order_final", true),
        SchedulerKey::new("disable_corrector", SchedulerKeyKind::MaybeFloats),
        SchedulerKey::new("solver_p", SchedulerKeyKind::MaybeScheduler),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        SchedulerKey::switch("use_flow_sigmas", false),
        SchedulerKey::float("flow_shift", 1.0),
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        keys::FINAL_SIGMAS_TYPE,
        keys::RESCALE_BETAS_ZERO_SNR,
        SchedulerKey::switch("use_dynamic_shifting", false),
        SchedulerKey::choice("time_shift_type", "exponential", &["exponential", "linear"]),
        SchedulerKey::new("sigma_min", SchedulerKeyKind::MaybeFloat),
        SchedulerKey::new("sigma_max", SchedulerKeyKind::MaybeFloat),
        SchedulerKey::new("shift_terminal", SchedulerKeyKind::MaybeFloat),
    ],
    build,
};

/// The highest order.
const MAX_ORDER: usize = 6;

struct UniPc {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    order: usize,
    predict_x0: bool,
    bh1: bool,
    lower_order_final: bool,
    /// Steps that the next model output does not correct.
    disable_corrector: Vec<f64>,
    /// A scheduler that predicts instead of this one, which then only corrects.
    solver_p: Option<Box<dyn Scheduler>>,
    converter: OutputConverter,
    steps_done: usize,
    /// The order of the latest predictor step.
    this_order: usize,
    /// One more than the order: the corrector uses the newest output and all those that the predictor used.
    model_outputs: History,
    last_sample: Vec<f32>,
    residual: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let order = settings.count("solver_order")?;
    let prediction_type = PredictionType::from_settings(settings)?;
    let predict_x0 = settings.switch("predict_x0")?;
    if prediction_type == PredictionType::Flow && !predict_x0 {
        return Err(settings.error(
            "prediction_type",
            "flow_prediction needs a solver of the x0 prediction",
            "set predict_x0 = true",
        ));
    }
    let bounds = if predict_x0 { Bounds::from_settings(settings, request.images)? } else { Bounds::None };
    let schedule = build_schedule(settings, request)?;
    let disable_corrector = settings.maybe_floats("disable_corrector")?.unwrap_or_default();
    let solver_p = build_solver_p(settings, request, &schedule.timesteps)?;
    Ok(Box::new(UniPc {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        order,
        predict_x0,
        bh1: settings.choice("solver_type")? == "bh1",
        lower_order_final: settings.switch("lower_order_final")?,
        disable_corrector,
        solver_p,
        converter: OutputConverter::new(prediction_type, !predict_x0, bounds, request.images),
        steps_done: 0,
        this_order: 0,
        model_outputs: History::new(order + 1),
        last_sample: Vec::new(),
        residual: Vec::new(),
    }))
}

/// Builds the scheduler of `solver_p`, which has to visit the same timesteps.
fn build_solver_p(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    timesteps: &[f64],
) -> Result<Option<Box<dyn Scheduler>>> {
    let Some((name, table)) = settings.maybe_scheduler("solver_p")? else { return Ok(None) };
    let predictor = settings.build_nested(name, table, &ScheduleRequest::new(timesteps.len(), request.images))?;
    if predictor.init_noise_sigma() != 1.0 {
        let help = "choose one of ddpm, ddim, dpm-multistep, dpm-singlestep, deis, unipc or sa-solver";
        return Err(settings.error("solver_p", format!("{name} scales its samples differently"), help));
    }
    if predictor.timesteps() != timesteps {
        let first = |timesteps: &[f64]| timesteps.iter().take(3).map(f64::to_string).collect::<Vec<_>>().join(", ");
        return Err(settings.error(
            "solver_p",
            format!("{name} visits timesteps {} ..., not {} ...", first(predictor.timesteps()), first(timesteps)),
            "set the same timestep_spacing for both, \"trailing\" for ddim",
        ));
    }
    Ok(Some(predictor))
}

fn build_schedule(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<SolverSchedule> {
    let train = settings.count("num_train_timesteps")? as f64;
    let in_flow = settings.switch("use_flow_sigmas")?;
    let terminal = settings.maybe_float("shift_terminal")?;
    if terminal.is_some() && !in_flow {
        return Err(settings.error(
            "shift_terminal",
            "only flow sigmas have a terminal shift",
            "set use_flow_sigmas = true",
        ));
    }
    if settings.switch("use_dynamic_shifting")? && request.mu.is_none() {
        let help = "set use_dynamic_shifting = false and choose a flow_shift";
        return Err(settings.error("use_dynamic_shifting", "this task has no resolution-dependent shift", help));
    }
    let alphas = betas::positive_alphas_cumprod(settings)?;
    let ramp = Ramp::from_settings(settings)?;
    let mut sigmas: Vec<f64> = match ramp {
        Some(Ramp::Karras) if in_flow => {
            let training = sigmas::training_sigmas(&alphas);
            let (sigma_min, sigma_max) = (f64::from(training[0]), f64::from(training[training.len() - 1]));
            let sigmas = Ramp::Karras.sigmas(settings, sigma_min, sigma_max, request.steps)?;
            sigmas.into_iter().map(|sigma| sigma / (sigma + 1.0)).collect()
        }
        None if in_flow => flow_sigmas(settings, request, train, terminal)?,
        _ => {
            let options = ScheduleOptions { cosine_fractions: false, repeats_last: true, inverse: false };
            return solver_schedule::build_schedule(settings, request, &alphas, options);
        }
    };
    let timesteps = sigmas.iter().map(|sigma| (sigma * train).trunc()).collect();
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    sigmas.push(if to_zero { 0.0 } else { sigmas[sigmas.len() - 1] });
    Ok(SolverSchedule { timesteps, sigmas: sigmas.into_iter().map(|sigma| sigma as f32).collect() })
}

/// Returns shifted flow sigmas, without the final one.
fn flow_sigmas(
    settings: &SchedulerSettings,
    request: &ScheduleRequest,
    train: f64,
    terminal: Option<f64>,
) -> Result<Vec<f64>> {
    let dynamic = settings.switch("use_dynamic_shifting")?;
    let linear = settings.choice("time_shift_type")? == "linear";
    let shift = settings.float("flow_shift")?;
    let mut sigmas = match &request.custom {
        Some(CustomSchedule::Sigmas(list)) => list.clone(),
        _ => {
            let mut sigmas = linspace(1.0, 1.0 / train, request.steps + 1);
            sigmas.pop();
            sigmas
        }
    };
    for sigma in &mut sigmas {
        *sigma = match request.mu.filter(|_| dynamic) {
            Some(mu) => {
                let factor = if linear { mu } else { exp(mu) };
                factor / (factor + (1.0 / *sigma - 1.0))
            }
            None => flow::shift(shift, *sigma),
        };
    }
    if let Some(terminal) = terminal.filter(|terminal| *terminal != 0.0) {
        let scale = (1.0 - sigmas[sigmas.len() - 1]) / (1.0 - terminal);
        sigmas.iter_mut().for_each(|sigma| *sigma = 1.0 - (1.0 - *sigma) / scale);
    }
    // The logarithm of a signal of zero is infinite.
    if (sigmas[0] - 1.0).abs() < 1e-6 {
        sigmas[0] -= 1e-6;
    }
    Ok(sigmas)
}

/// Solves a system of `n` linear equations by elimination with pivoting.
fn solve(mut rows: [[f32; MAX_ORDER]; MAX_ORDER], mut right: [f32; MAX_ORDER], n: usize) -> [f32; MAX_ORDER] {
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
    let mut solution = [0.0; MAX_ORDER];
    for i in (0..n).rev() {
        let known: f32 = (i + 1..n).map(|j| rows[i][j] * solution[j]).sum();
        solution[i] = (right[i] - known) / rows[i][i];
    }
    solution
}

/// The weights of one update from a step to the next: of the sample, the model output `m0`, and the differences of
/// earlier outputs.
#[derive(Debug)]
struct UniPcUpdate {
    order: usize,
    sample: f32,
    m0: f32,
    /// The factor of all differences, `B_h` times `alpha` or `sigma`.
    b_h: f32,
    /// The distance of each earlier output in lambda, as a fraction of the step; one fewer than the order.
    rks: [f32; MAX_ORDER],
    /// The weights of the differences; the corrector has one more, for the newest output.
    rhos: [f32; MAX_ORDER],
}

impl UniPcUpdate {
    /// Writes the weighted differences of earlier outputs from `m0` to `sum`, for one block.
    fn gather(&self, m0: &[f32], earlier: &[Vec<f32>], block: &Range<usize>, sum: &mut [f32]) {
        sum.fill(0.0);
        let weights = self.rks.iter().zip(&self.rhos).take(self.order - 1);
        for ((rk, rho), earlier) in weights.zip(earlier) {
            for ((sum, m), m0) in sum.iter_mut().zip(&earlier[block.clone()]).zip(m0) {
                *sum += rho * ((m - m0) / rk);
            }
        }
    }
}

impl UniPc {
    fn noise_level(&self, step: usize) -> NoiseLevel {
        NoiseLevel::new(self.sigmas[step], self.flow)
    }

    /// Computes the update of an order from step `at` to the next, section 3.2 of the paper.
    fn compute_update(&self, at: usize, order: usize, corrects: bool) -> UniPcUpdate {
        let (from, to) = (self.noise_level(at), self.noise_level(at + 1));
        let h = to.lambda - from.lambda;
        let mut rks = [0.0; MAX_ORDER];
        for (i, rk) in (1..order).zip(&mut rks) {
            *rk = (self.noise_level(at - i).lambda - from.lambda) / h;
        }
        let signed = if self.predict_x0 { -h } else { h };
        let phi = exp_m1(f64::from(signed)) as f32;
        let b_h = if self.bh1 { signed } else { phi };
        let mut nodes = rks;
        nodes[order - 1] = 1.0;
        let mut term = phi / signed - 1.0;
        let mut factorial = 1.0_f64;
        let (mut rows, mut right) = ([[0.0; MAX_ORDER]; MAX_ORDER], [0.0; MAX_ORDER]);
        for i in 0..order {
            rows[i] = nodes.map(|node: f32| node.powi(i as i32));
            right[i] = term * factorial as f32 / b_h;
            factorial *= (i + 2) as f64;
            term = term / signed - (1.0 / factorial) as f32;
        }
        let rhos = match (corrects, order) {
            (true, 1) | (false, 2) => [0.5; MAX_ORDER],
            (true, _) => solve(rows, right, order),
            // The predictor has no newest output yet.
            (false, _) => solve(rows, right, order - 1),
        };
        let (sample, weight) =
            if self.predict_x0 { (to.sigma / from.sigma, to.alpha) } else { (to.alpha / from.alpha, to.sigma) };
        UniPcUpdate { order, sample, m0: weight * phi, b_h: weight * b_h, rks, rhos }
    }
}

impl Scheduler for UniPc {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.noise_level(step);
        let corrects = self.steps_done > 0 && !self.disable_corrector.contains(&(step as f64 - 1.0));
        let corrector = corrects.then(|| self.compute_update(step - 1, self.this_order, true));
        let left = self.timesteps.len() - step;
        let order = if self.lower_order_final { self.order.min(left) } else { self.order };
        self.this_order = order.min(self.steps_done + 1);
        let predictor = self.compute_update(step, self.this_order, false);
        self.last_sample.resize(x.len(), 0.0);
        let (newest, older) = self.model_outputs.advance_with_older(x.len());
        for (block, model_output) in self.converter.blocks(x.len(), model_output) {
            let (x, converted) = (&mut x[block.clone()], &mut newest[block.clone()]);
            let last = &mut self.last_sample[block.clone()];
            self.converter.convert(level, self.sigmas[step], model_output, x, converted);
            self.residual.resize(x.len(), 0.0);
            if let (Some(update), [m0, earlier @ ..]) = (&corrector, older) {
                let m0 = &m0[block.clone()];
                update.gather(m0, earlier, &block, &mut self.residual);
                let rho = update.rhos[update.order - 1];
                let model_outputs = m0.iter().zip(converted.iter());
                for (((x, last), (m0, m)), residual) in
                    x.iter_mut().zip(last.iter()).zip(model_outputs).zip(&self.residual)
                {
                    let base = update.sample * last - update.m0 * m0;
                    *x = base - update.b_h * (residual + rho * (m - m0));
                }
            }
            last.copy_from_slice(x);
            let update = &predictor;
            if self.solver_p.is_some() {
                continue;
            }
            if update.order == 1 {
                for (x, m0) in x.iter_mut().zip(converted) {
                    *x = update.sample * *x - update.m0 * *m0;
                }
            } else {
                update.gather(converted, older, &block, &mut self.residual);
                for ((x, m0), residual) in x.iter_mut().zip(converted).zip(&self.residual) {
                    *x = update.sample * *x - update.m0 * *m0 - update.b_h * residual;
                }
            }
        }
        self.steps_done += 1;
        match &mut self.solver_p {
            Some(predictor) => predictor.step(step, model_output, x, noise),
            None => Ok(()),
        }
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        let level = self.noise_level(step);
        mix(level.alpha, x0, level.sigma, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.converter.prediction_type, step, model_output, x, out);
    }
}
