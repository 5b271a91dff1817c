//! SA-Solver: Xue et al. 2023, "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models".

use super::betas::exp_f32;
use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::dpm_update::OutputConverter;
use super::sa_update::{Interval, MAX_ORDER, Tau, second_order_shift, weights};
use super::sample::{Bounds, History, PredictionType, add_noise, blocks, lookup_timestep, predict_x0};
use super::settings::SchedulerSettings;
use super::solver_schedule::{self, NoiseLevel, ScheduleOptions};
use super::{CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, betas};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "sa-solver",
    class: "SASolverScheduler",
    aliases: &[SchedulerAlias::plain("sa_solver")],
    order: 1,
    stochastic: true,
    inverse: false,
    custom_schedules: CustomScheduleSupport::NONE,
    about: "Stochastic Adams, predictor and corrector; tau scales the noise within a window of timesteps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        SchedulerKey::new("predictor_order", SchedulerKeyKind::Order { default: 2, max: MAX_ORDER, clamp: false }),
        SchedulerKey::new("corrector_order", SchedulerKeyKind::Order { default: 2, max: MAX_ORDER, clamp: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        SchedulerKey::choice("algorithm_type", "data_prediction", &["data_prediction", "noise_prediction"]),
        SchedulerKey::switch("lower_order_final", true),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        SchedulerKey::switch("use_flow_sigmas", false),
        SchedulerKey::float("flow_shift", 1.0),
        SchedulerKey::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver_schedule::VARIANCE_TYPE,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        // The class takes a function of the timestep, tau_func; these three are the parameters of its default.
        SchedulerKey::argument("tau", SchedulerKeyKind::Float(1.0)),
        SchedulerKey::argument("tau_start", SchedulerKeyKind::Float(200.0)),
        SchedulerKey::argument("tau_end", SchedulerKeyKind::Float(800.0)),
    ],
    build,
};

#[derive(Debug)]
struct SaSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// The cumulative alpha at each timestep.
    alphas: Vec<f32>,
    /// The noise scale at each step.
    taus: Vec<Tau>,
    flow: bool,
    predict_x0: bool,
    predictor_order: usize,
    corrector_order: usize,
    lower_order_final: bool,
    converter: OutputConverter,
    steps_done: usize,
    /// The order of the corrector that the next evaluation applies to this step.
    this_corrector_order: usize,
    model_outputs: History,
    last_sample: Vec<f32>,
    noise: Vec<f32>,
    /// A buffer for one block's weighted model outputs.
    gradient: Vec<f32>,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let prediction_type = PredictionType::from_settings(settings)?;
    let predict_x0 = settings.choice("algorithm_type")? == "data_prediction";
    let bounds = Bounds::from_settings(settings, request.images)?;
    settings.maybe_choice("variance_type")?;
    if !predict_x0 {
        let help = "set algorithm_type = \"data_prediction\"";
        if prediction_type == PredictionType::Flow {
            return Err(settings.error("prediction_type", "flow_prediction needs a solver of the x0 prediction", help));
        }
        if !matches!(bounds, Bounds::None) {
            return Err(settings.error(
                "thresholding",
                "noise_prediction predicts epsilon, which cannot be thresholded",
                help,
            ));
        }
    }
    let alphas = betas::alphas_cumprod(settings)?;
    let options = ScheduleOptions { cosine_fractions: false, repeats_last: true, inverse: false };
    let schedule = solver_schedule::build_schedule(settings, request, &alphas, options)?;
    let (size, from, to) = (settings.float("tau")?, settings.float("tau_start")?, settings.float("tau_end")?);
    let tau = |t: &f64| Tau::new(if (from..=to).contains(t) { size } else { 0.0 });
    let (predictor_order, corrector_order) = (settings.count("predictor_order")?, settings.count("corrector_order")?);
    let at = |t: &f64| lookup_timestep(settings, &alphas, *t as i64);
    Ok(Box::new(SaSolver {
        alphas: schedule.timesteps.iter().map(at).collect::<Result<_>>()?,
        taus: schedule.timesteps.iter().map(tau).collect(),
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        predict_x0,
        predictor_order,
        corrector_order,
        lower_order_final: settings.switch("lower_order_final")?,
        converter: OutputConverter::new(prediction_type, !predict_x0, bounds, request.images),
        steps_done: 0,
        this_corrector_order: 0,
        model_outputs: History::new(predictor_order.max(corrector_order)),
        last_sample: Vec::new(),
        noise: Vec::new(),
        gradient: Vec::new(),
    }))
}

impl SaSolver {
    fn noise_level(&self, step: usize) -> NoiseLevel {
        NoiseLevel::new(self.sigmas[step], self.flow)
    }

    /// Moves `x` from the latest sample at step `at` to the next step, by a polynomial through the model outputs at the
    /// `order` steps up to `newest`: `at` itself for the predictor, the step after for the corrector.
    fn update(&mut self, at: usize, newest: usize, order: usize, x: &mut [f32]) {
        let (from, to, tau) = (self.noise_level(at), self.noise_level(at + 1), self.taus[at]);
        let interval = Interval { start: from.lambda, end: to.lambda };
        let mut lambdas = [0.0; MAX_ORDER];
        for (i, lambda) in lambdas[..order].iter_mut().enumerate() {
            *lambda = self.noise_level(newest - i).lambda;
        }
        let mut weights = weights(self.predict_x0, interval, &lambdas[..order], tau);
        if self.predict_x0 && order == 2 {
            let spacing = (newest == at).then(|| from.lambda - self.noise_level(at - 1).lambda);
            let shift = second_order_shift(interval, spacing, tau);
            weights[0] += shift;
            weights[1] -= shift;
        }
        let h = to.lambda - from.lambda;
        let square = tau.square as f32;
        let (sample_weight, scale, noise_weight) = if self.predict_x0 {
            (
                exp_f32(-square * h) * (to.sigma / from.sigma),
                tau.rate as f32 * to.sigma * exp_f32(-square * to.lambda),
                to.sigma * (1.0 - exp_f32((-2.0 * tau.square) as f32 * h)).sqrt(),
            )
        } else {
            let growth = exp_f32(2.0 * h) - 1.0;
            (to.alpha / from.alpha, -tau.rate as f32 * to.alpha, tau.size as f32 * to.sigma * growth.sqrt())
        };
        for block in blocks(x.len()) {
            let x = &mut x[block.clone()];
            self.gradient.clear();
            self.gradient.resize(x.len(), 0.0);
            for (age, weight) in weights[..order].iter().enumerate() {
                let weight = scale * weight;
                for (gradient, output) in self.gradient.iter_mut().zip(&self.model_outputs[age][block.clone()]) {
                    *gradient += weight * output;
                }
            }
            let saved = self.last_sample[block.clone()].iter().zip(&self.noise[block]);
            for ((x, gradient), (last, noise)) in x.iter_mut().zip(&self.gradient).zip(saved) {
                *x = sample_weight * last + gradient + noise_weight * noise;
            }
        }
    }
}

impl Scheduler for SaSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.noise_level(step);
        self.converter.convert(level, self.sigmas[step], model_output, x, self.model_outputs.advance(x.len()));
        if self.steps_done > 0 {
            self.update(step - 1, step, self.this_corrector_order, x);
        }
        self.noise.resize(x.len(), 0.0);
        noise.fill(&mut self.noise);
        let left = if self.lower_order_final { self.timesteps.len() - step } else { usize::MAX - 1 };
        self.this_corrector_order = self.corrector_order.min(left + 1).min(self.steps_done + 2);
        let order = self.predictor_order.min(left).min(self.steps_done + 1);
        self.last_sample.clear();
        self.last_sample.extend_from_slice(x);
        self.update(step, step, order, x);
        self.steps_done += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.alphas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.converter.prediction_type, step, model_output, x, out);
    }
}
