//! Linear multistep on the probability flow, k-diffusion's `sample_lms`: Adams-Bashforth on uneven sigmas.

use super::config::{SchedulerKey, SchedulerKeyKind, keys};
use super::sample::{History, PredictionType, blocks, predict_x0};
use super::settings::SchedulerSettings;
use super::{
    CustomScheduleSupport, Noise, ScheduleRequest, Scheduler, SchedulerAlias, SchedulerEntry, sigma_schedule, sigmas,
};
use crate::error::Result;

pub(super) const ENTRY: SchedulerEntry = SchedulerEntry {
    name: "lms",
    class: "LMSDiscreteScheduler",
    aliases: &[SchedulerAlias::plain("k_lms")],
    order: 1,
    stochastic: false,
    inverse: false,
    custom_schedules: CustomScheduleSupport::BOTH,
    about: "Linear multistep of order 4 on the probability flow.",
    keys: &keys::joined::<12>(
        &sigma_schedule::schedule_keys(0.0001, 0.02, keys::beta_schedule("linear")),
        &[
            keys::prediction_type(&["epsilon", "sample", "v_prediction"]),
            SchedulerKey::argument("order", SchedulerKeyKind::Order { default: 4, max: ORDER, clamp: false }),
        ],
    ),
    build,
};

/// The largest number of derivatives that a step uses.
const ORDER: usize = 4;

#[derive(Debug)]
struct Lms {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    init_noise_sigma: f32,
    prediction_type: PredictionType,
    order: usize,
    derivatives: History,
}

fn build(settings: &SchedulerSettings, request: &ScheduleRequest) -> Result<Box<dyn Scheduler>> {
    let schedule = sigma_schedule::build_schedule(settings, request, sigma_schedule::KarrasVariant::OwnEnds)?;
    Ok(Box::new(Lms {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        init_noise_sigma: schedule.init_noise_sigma,
        prediction_type: PredictionType::from_settings(settings)?,
        order: settings.count("order")?,
        derivatives: History::new(ORDER),
    }))
}

impl Lms {
    /// Integrates, over a step, the polynomial that is 1 at the sigma `age` steps ago and 0 at the `order - 1` others.
    /// Fewer nodes would be exact for the polynomial, but not for its float32 values where sigmas are far apart:
    /// diffusers' integral, by QUADPACK, is the sum over these 21 nodes.
    fn lms_coefficient(&self, step: usize, order: usize, age: usize) -> f32 {
        let sigma = |back: usize| self.sigmas[step - back];
        let basis = |tau: f64| {
            let mut product = 1.0_f32;
            for k in (0..order).filter(|k| *k != age) {
                product *= (tau as f32 - sigma(k)) / (sigma(age) - sigma(k));
            }
            f64::from(product)
        };
        let (from, to) = (f64::from(self.sigmas[step]), f64::from(self.sigmas[step + 1]));
        let (center, half) = (0.5 * (from + to), 0.5 * (to - from));
        let pairs = KRONROD.iter().map(|(node, weight)| {
            let offset = half * node;
            weight * (basis(center - offset) + basis(center + offset))
        });
        ((KRONROD_CENTER * basis(center) + pairs.sum::<f64>()) * half) as f32
    }
}

/// Positive nodes and weights of the 21-point Gauss-Kronrod rule.
const KRONROD: [(f64, f64); 10] = [
    (0.973_906_528_517_171_7, 0.032_558_162_307_964_725),
    (0.865_063_366_688_984_5, 0.075_039_674_810_919_96),
    (0.679_409_568_299_024_4, 0.109_387_158_802_297_64),
    (0.433_395_394_129_247_2, 0.134_709_217_311_473_34),
    (0.148_874_338_981_631_22, 0.147_739_104_901_338_49),
    (0.995_657_163_025_808_1, 0.011_694_638_867_371_874),
    (0.930_157_491_355_708_2, 0.054_755_896_574_351_995),
    (0.780_817_726_586_416_9, 0.093_125_454_583_697_6),
    (0.562_757_134_668_604_7, 0.123_491_976_262_065_84),
    (0.294_392_862_701_460_2, 0.142_775_938_577_060_09),
];

/// The weight of the rule's center node.
const KRONROD_CENTER: f64 = 0.149_445_554_002_916_9;

impl Scheduler for Lms {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn init_noise_sigma(&self) -> f64 {
        f64::from(self.init_noise_sigma)
    }

    fn scale_model_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        sigmas::scale_model_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], _: &mut dyn Noise) -> Result<()> {
        let sigma = self.sigmas[step];
        let predict_x0 = sigmas::x0_predictor(self.prediction_type, sigma, sigma);
        // A run that starts in the middle uses the weights of a full history, without its missing derivatives.
        let order = self.order.min(step + 1);
        let remembered = ORDER.min(self.derivatives.len() + 1);
        let mut weights = [0.0; ORDER];
        for (age, weight) in weights.iter_mut().enumerate().take(order.min(remembered)) {
            *weight = self.lms_coefficient(step, order, age);
        }
        let [w0, w1, w2, w3] = weights;
        let (newest, older) = self.derivatives.advance_with_older(x.len());
        for block in blocks(x.len()) {
            let (x, d0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            for ((derivative, x), m) in d0.iter_mut().zip(x.iter()).zip(&model_output[block.clone()]) {
                *derivative = (x - predict_x0(*x, *m)) / sigma;
            }
            let older = |age: usize| &older[age - 1][block.clone()];
            match remembered.min(order) {
                1 => x.iter_mut().zip(d0).for_each(|(x, d0)| *x += w0 * *d0),
                2 => {
                    for ((x, d0), d1) in x.iter_mut().zip(d0).zip(older(1)) {
                        *x += w0 * *d0 + w1 * d1;
                    }
                }
                3 => {
                    for (((x, d0), d1), d2) in x.iter_mut().zip(d0).zip(older(1)).zip(older(2)) {
                        *x += w0 * *d0 + w1 * d1 + w2 * d2;
                    }
                }
                _ => {
                    for ((((x, d0), d1), d2), d3) in x.iter_mut().zip(d0).zip(older(1)).zip(older(2)).zip(older(3)) {
                        *x += w0 * *d0 + w1 * d1 + w2 * d2 + w3 * d3;
                    }
                }
            }
        }
        Ok(())
    }

    fn add_noise(&self, step: usize, x0: &[f32], noise: &[f32], out: &mut [f32]) {
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }

    fn predict_x0(&self, step: usize, model_output: &[f32], x: &[f32], out: &mut [f32]) {
        predict_x0(self, self.prediction_type, step, model_output, x, out);
    }
}
