//! DPM-Solver and DPM-Solver++ in their multistep forms: Lu et al. 2022, "DPM-Solver: A Fast ODE Solver for Diffusion
//! Probabilistic Model Sampling in Around 10 Steps" and "DPM-Solver++: Fast Solver for Guided Sampling of Diffusion
//! Probabilistic Models", with the stochastic variants of the latter's appendix.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::{Algorithm, Converter};
use super::sample::{History, mix};
use super::solver::{self, Level, Manner};
use super::{Accepts, Alias, Entry, Noise, Request, Scheduler, Setting, noise};
use crate::error::Result;

const SDE: (&str, Setting) = ("algorithm_type", Setting::Word("sde-dpmsolver++"));
const THIRD: (&str, Setting) = ("solver_order", Setting::Integer(3));

pub(super) const ENTRY: Entry = Entry {
    name: "dpm-multistep",
    class: "DPMSolverMultistepScheduler",
    aliases: &[
        Alias::plain("DPM++ 2M"),
        Alias::plain("dpmpp_2m"),
        Alias { name: "DPM++ 2M SDE", settings: &[SDE] },
        Alias { name: "dpmpp_2m_sde", settings: &[SDE] },
        Alias { name: "DPM++ 2M SDE Heun", settings: &[SDE, ("solver_type", Setting::Word("heun"))] },
        Alias { name: "DPM++ 3M", settings: &[THIRD] },
        Alias { name: "DPM++ 3M SDE", settings: &[SDE, THIRD] },
        Alias { name: "dpmpp_3m_sde", settings: &[SDE, THIRD] },
    ],
    order: 1,
    stochastic: false,
    accepts: Accepts::TIMESTEPS,
    about: "DPM-Solver++ of order 1 to 3, one call a step; a good choice at 15 to 30 steps.",
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
        Key::new(
            "algorithm_type",
            Kind::Choice {
                default: "dpmsolver++",
                valid: &["dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++"],
                foreign: &["deis"],
            },
        ),
        Key::new(
            "solver_type",
            Kind::Choice { default: "midpoint", valid: &["midpoint", "heun"], foreign: &["logrho", "bh1", "bh2"] },
        ),
        Key::switch("lower_order_final", true),
        Key::switch("euler_at_final", false),
        keys::USE_KARRAS_SIGMAS,
        keys::USE_EXPONENTIAL_SIGMAS,
        keys::USE_BETA_SIGMAS,
        Key::switch("use_lu_lambdas", false),
        Key::switch("use_flow_sigmas", false),
        Key::float("flow_shift", 1.0),
        keys::FINAL_SIGMAS_TYPE,
        Key::float("lambda_min_clipped", f64::NEG_INFINITY),
        solver::VARIANCE_TYPE,
        keys::timestep_spacing("linspace"),
        keys::STEPS_OFFSET,
        keys::RESCALE_BETAS_ZERO_SNR,
        Key::switch("use_dynamic_shifting", false),
        Key::choice("time_shift_type", "exponential", &["exponential"]),
    ],
    build,
};

#[derive(Debug)]
struct DpmMultistep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    flow: bool,
    algorithm: Algorithm,
    converter: Converter,
    heun: bool,
    order: usize,
    lower_order_final: bool,
    first_order_final: bool,
    made: usize,
    answers: History,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let final_sigma = settings.choice("final_sigmas_type")?;
    let order = settings.count("solver_order")?;
    if order > 3 {
        return Err(settings.error("solver_order", format!("expected 1, 2 or 3, found {order}"), ""));
    }
    if order == 3 && algorithm == Algorithm::NoiseSde {
        return Err(settings.error("solver_order", "sde-dpmsolver has no third order", "set solver_order = 2"));
    }
    let alphas = noise::positive_alphas_cumprod(settings)?;
    let manner = Manner { cosine_fractions: true, repeats_last: false };
    let schedule = solver::schedule(settings, request, &alphas, manner)?;
    let lower_order_final = settings.switch("lower_order_final")?;
    let few = schedule.timesteps.len() < 15;
    Ok(Box::new(DpmMultistep {
        timesteps: schedule.timesteps,
        sigmas: schedule.sigmas,
        flow: settings.switch("use_flow_sigmas")?,
        algorithm,
        converter: Converter::from_settings(settings, algorithm, request.images)?,
        heun: settings.choice("solver_type")? == "heun",
        order,
        lower_order_final: lower_order_final && few,
        first_order_final: settings.switch("euler_at_final")? || lower_order_final && few || final_sigma == "zero",
        made: 0,
        answers: History::new(order),
        drawn: Vec::new(),
    }))
}

impl DpmMultistep {
    fn level(&self, step: usize) -> Level {
        Level::new(self.sigmas[step], self.flow)
    }

    /// The order this step can take: a run begins with the first, and ends with lower ones where it is short.
    fn order_at(&self, step: usize) -> usize {
        let last = self.timesteps.len() - 1;
        if self.order == 1 || self.made < 1 || step == last && self.first_order_final {
            1
        } else if self.order == 2 || self.made < 2 || step + 1 == last && self.lower_order_final {
            2
        } else {
            3
        }
    }
}

impl Scheduler for DpmMultistep {
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
        let order = self.order_at(step);
        let (to, from) = (self.level(step + 1), level);
        let h = to.lambda - from.lambda;
        let w = self.algorithm.weights(order == 3 || self.heun, to, from, h);
        let [slope0, slope1, share, curve] = match order {
            1 => [0.0; 4],
            2 => [1.0 / ((from.lambda - self.level(step - 1).lambda) / h), 0.0, 0.0, 0.0],
            _ => {
                let (one, two) = (self.level(step - 1), self.level(step - 2));
                let (r0, r1) = ((from.lambda - one.lambda) / h, (one.lambda - two.lambda) / h);
                [1.0 / r0, 1.0 / r1, r0 / (r0 + r1), 1.0 / (r0 + r1)]
            }
        };
        let (newest, older) = self.answers.advance_beside(x.len());
        for (block, model_output) in self.converter.blocks(x.len(), model_output) {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            self.converter.convert(level, self.sigmas[step], model_output, x, m0);
            match order {
                1 => {
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = w.sample * *x + w.answer * *m0;
                    }
                }
                2 => {
                    for ((x, m0), m1) in x.iter_mut().zip(m0).zip(&older[0][block.clone()]) {
                        let d1 = slope0 * (*m0 - m1);
                        *x = w.sample * *x + w.answer * *m0 + w.first * d1;
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block.clone()]);
                    for ((x, m0), (m1, m2)) in x.iter_mut().zip(m0).zip(older) {
                        let (d10, d11) = (slope0 * (*m0 - m1), slope1 * (m1 - m2));
                        let d1 = d10 + share * (d10 - d11);
                        let d2 = curve * (d10 - d11);
                        *x = w.sample * *x + w.answer * *m0 + w.first * d1 + w.second * d2;
                    }
                }
            }
            if stochastic {
                for (x, drawn) in x.iter_mut().zip(&self.drawn[block]) {
                    *x += w.noise * drawn;
                }
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
