//! SA-Solver: Xue et al. 2023, "SA-Solver: Stochastic Adams Solver for Fast Sampling of Diffusion Models".

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::Converter;
use super::noise::exp_f32;
use super::sa_update::{Interval, MOST, Tau, second_order_shift, weights};
use super::sample::{Bounds, History, Prediction, add_noise, at_timestep, blocks, estimate};
use super::solver::{self, Level, Manner};
use super::{Accepts, Alias, Noise, ScheduleRequest, Scheduler, SchedulerEntry, noise};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "sa-solver",
    class: "SASolverScheduler",
    aliases: &[Alias::plain("sa_solver")],
    order: 1,
    stochastic: true,
    inverse: false,
    accepts: Accepts::NOTHING,
    about: "Stochastic Adams, predictor and corrector; tau sets how much noise, within a window of timesteps.",
    keys: &[
        keys::NUM_TRAIN_TIMESTEPS,
        keys::beta_start(0.0001),
        keys::beta_end(0.02),
        keys::beta_schedule("linear"),
        keys::TRAINED_BETAS,
        Key::new("predictor_order", Kind::Order { default: 2, most: MOST, lowers: false }),
        Key::new("corrector_order", Kind::Order { default: 2, most: MOST, lowers: false }),
        keys::prediction_type(&["epsilon", "sample", "v_prediction", "flow_prediction"]),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        Key::choice("algorithm_type", "data_prediction", &["data_prediction", "noise_prediction"]),
        Key::switch("lower_order_final", true),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        Key::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver::VARIANCE_TYPE,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        // The class takes a function of the timestep, tau_func, which no file can hold: its default is these three.
        Key::argument("tau", Kind::Float(1.0)),
        Key::argument("tau_start", Kind::Float(200.0)),
        Key::argument("tau_end", Kind::Float(800.0)),
    ],
    build,
};

#[derive(Debug)]
struct SaSolver {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    /// How much of the image is left at each step's timestep.
    alphas: Vec<f32>,
    /// The size of the noise at each step.
    taus: Vec<Tau>,
    flow: bool,
    of_image: bool,
    predictor_order: usize,
    corrector_order: usize,
    lower_order_final: bool,
    converter: Converter,
    made: usize,
    /// The order at which the next step corrects this one.
    correction: usize,
    answers: History,
    last_sample: Vec<f32>,
    drawn: Vec<f32>,
    /// Of one block, as an update adds it up.
    gradient: Vec<f32>,
}

fn build(settings: &Settings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let prediction = Prediction::from_settings(settings)?;
    let of_image = settings.choice("algorithm_type")? == "data_prediction";
    let bounds = Bounds::from_settings(settings, request.images)?;
    settings.maybe_choice("variance_type")?;
    if !of_image {
        let help = "set algorithm_type = \"data_prediction\"";
        if prediction == Prediction::Flow {
            return Err(settings.error("prediction_type", "flow_prediction needs a solver of the image", help));
        }
        if !matches!(bounds, Bounds::None) {
            return Err(settings.error("thresholding", "the solver of the noise has no image to bound", help));
        }
    }
    let alphas = noise::alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: false, repeats_last: true, inverse: false };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let (size, from, to) = (settings.float("tau")?, settings.float("tau_start")?, settings.float("tau_end")?);
    let tau = |t: &f64| Tau::new(if (from..=to).contains(t) { size } else { 0.0 });
    let (predictor_order, corrector_order) = (settings.count("predictor_order")?, settings.count("corrector_order")?);
    let at = |t: &f64| at_timestep(settings, &alphas, *t as i64);
    Ok(Box::new(SaSolver {
        alphas: schedule.timesteps.iter().map(at).collect::<Result<_>>()?,
        taus: schedule.timesteps.iter().map(tau).collect(),
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        of_image,
        predictor_order,
        corrector_order,
        lower_order_final: settings.switch("lower_order_final")?,
        converter: Converter::new(prediction, !of_image, bounds, request.images),
        made: 0,
        correction: 0,
        answers: History::new(predictor_order.max(corrector_order)),
        last_sample: Vec::new(),
        drawn: Vec::new(),
        gradient: Vec::new(),
    }))
}

impl SaSolver {
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }

    /// Writes to `x` where the latest sample comes to on the way from step `at` to the next, by a polynomial through
    /// the answers at the `order` steps up to `newest`: `at` itself for the predictor, the step after for the corrector.
    fn update(&mut self, at: usize, newest: usize, order: usize, x: &mut [f32]) {
        let (from, to, tau) = (self.level(at), self.level(at + 1), self.taus[at]);
        let interval = Interval { start: from.lambda, end: to.lambda };
        let mut lambdas = [0.0; MOST];
        for (i, lambda) in lambdas[..order].iter_mut().enumerate() {
            *lambda = self.level(newest - i).lambda;
        }
        let mut weights = weights(self.of_image, interval, &lambdas[..order], tau);
        if self.of_image && order == 2 {
            let spacing = (newest == at).then(|| from.lambda - self.level(at - 1).lambda);
            let shift = second_order_shift(interval, spacing, tau);
            weights[0] += shift;
            weights[1] -= shift;
        }
        let h = to.lambda - from.lambda;
        let square = tau.square as f32;
        let (keep, scale, add) = if self.of_image {
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
                for (gradient, answer) in self.gradient.iter_mut().zip(&self.answers[age][block.clone()]) {
                    *gradient += weight * answer;
                }
            }
            let held = self.last_sample[block.clone()].iter().zip(&self.drawn[block]);
            for ((x, gradient), (last, drawn)) in x.iter_mut().zip(&self.gradient).zip(held) {
                *x = keep * last + gradient + add * drawn;
            }
        }
    }
}

impl Scheduler for SaSolver {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        1.0
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let level = self.level(step);
        self.converter.convert(level, self.sigmas[step], model_output, x, self.answers.advance(x.len()));
        if self.made > 0 {
            self.update(step - 1, step, self.correction, x);
        }
        self.drawn.resize(x.len(), 0.0);
        noise.fill(&mut self.drawn);
        let left = if self.lower_order_final { self.timesteps.len() - step } else { usize::MAX - 1 };
        self.correction = self.corrector_order.min(left + 1).min(self.made + 2);
        let order = self.predictor_order.min(left).min(self.made + 1);
        self.last_sample.clear();
        self.last_sample.extend_from_slice(x);
        self.update(step, step, order, x);
        self.made += 1;
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        add_noise(self.alphas[step], x0, noise, out);
    }

    fn estimate(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        estimate(self, self.converter.prediction, step, model_output, x, out);
    }
}
