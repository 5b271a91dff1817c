//! DPM-Solver++ (Lu et al. 2022) for EDM's networks.

use super::config::{Key, Kind, Settings, keys};
use super::dpm_update::Algorithm;
use super::edm::{self, Scalings};
use super::noise::ln_f32;
use super::sample::{Bounds, History};
use super::solver::Level;
use super::{Accepts, Entry, Noise, Request, Scheduler, sigmas};
use crate::error::Result;

pub(super) const ENTRY: Entry = Entry {
    name: "edm-dpm-multistep",
    class: "EDMDPMSolverMultistepScheduler",
    aliases: &[],
    order: 1,
    stochastic: false,
    accepts: Accepts::NOTHING,
    about: "DPM-Solver++ of order 1 to 3 for networks with EDM's scalings (Playground v2.5).",
    keys: &[
        edm::KEYS[0],
        edm::KEYS[1],
        edm::KEYS[2],
        edm::KEYS[3],
        edm::KEYS[4],
        edm::KEYS[5],
        edm::KEYS[6],
        edm::KEYS[7],
        Key::new("solver_order", Kind::Count(2)),
        keys::THRESHOLDING,
        keys::DYNAMIC_THRESHOLDING_RATIO,
        keys::SAMPLE_MAX_VALUE,
        Key::new(
            "algorithm_type",
            Kind::Choice { default: "dpmsolver++", valid: &["dpmsolver++", "sde-dpmsolver++"], foreign: &["deis"] },
        ),
        Key::new(
            "solver_type",
            Kind::Choice { default: "midpoint", valid: &["midpoint", "heun"], foreign: &["logrho", "bh1", "bh2"] },
        ),
        Key::switch("lower_order_final", true),
        Key::switch("euler_at_final", false),
    ],
    build,
};

#[derive(Debug)]
struct EdmDpmMultistep {
    timesteps: Vec<f64>,
    sigmas: Vec<f32>,
    initial: f64,
    scalings: Scalings,
    algorithm: Algorithm,
    heun: bool,
    order: usize,
    bounds: Bounds,
    lower_order_final: bool,
    first_order_final: bool,
    made: usize,
    answers: History,
    drawn: Vec<f32>,
}

fn build(settings: &Settings, request: &Request) -> Result<Box<dyn Scheduler>> {
    let algorithm = Algorithm::from_settings(settings)?;
    let order = settings.count("solver_order")?;
    if order > 3 {
        return Err(settings.error("solver_order", format!("expected 1, 2 or 3, found {order}"), ""));
    }
    if order == 3 && algorithm.is_stochastic() {
        return Err(settings.error("solver_order", "sde-dpmsolver++ has no third order here", "set solver_order = 2"));
    }
    let mut levels = edm::sigmas(settings, request.steps, false)?;
    let timesteps = edm::timesteps(&levels);
    let to_zero = settings.choice("final_sigmas_type")? == "zero";
    levels.push(if to_zero { 0.0 } else { settings.float("sigma_min")? as f32 });
    let lower = settings.switch("lower_order_final")? && timesteps.len() < 15;
    Ok(Box::new(EdmDpmMultistep {
        timesteps,
        sigmas: levels,
        initial: edm::initial(settings)?,
        scalings: Scalings::from_settings(settings)?,
        algorithm,
        heun: settings.choice("solver_type")? == "heun",
        order,
        bounds: Bounds::from_settings(settings, request.images)?,
        lower_order_final: lower,
        first_order_final: settings.switch("euler_at_final")? || lower || to_zero,
        made: 0,
        answers: History::new(order),
        drawn: Vec::new(),
    }))
}

impl EdmDpmMultistep {
    /// The whole picture stands in every sample, with noise on top.
    fn level(&self, step: usize) -> Level {
        let sigma = self.sigmas[step];
        Level { alpha: 1.0, sigma, lambda: 0.0 - ln_f32(sigma) }
    }

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

impl Scheduler for EdmDpmMultistep {
    fn timesteps(&self) -> &[f64] {
        &self.timesteps
    }

    fn initial_noise_sigma(&self) -> f64 {
        self.initial
    }

    fn scale_input(&self, step: usize, x: &[f32], out: &mut [f32]) {
        self.scalings.scale_input(self.sigmas[step], x, out);
    }

    fn step(&mut self, step: usize, model_output: &[f32], x: &mut [f32], noise: &mut dyn Noise) -> Result<()> {
        let picture_of = self.scalings.picture_of(self.sigmas[step]);
        let stochastic = self.algorithm.is_stochastic();
        if stochastic {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
        }
        let order = self.order_at(step);
        let (to, from) = (self.level(step + 1), self.level(step));
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
        for (block, model_output) in self.bounds.blocks(x.len(), model_output) {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            for ((answer, x), m) in m0.iter_mut().zip(x.iter()).zip(model_output) {
                *answer = picture_of(*x, *m);
            }
            self.bounds.apply(m0);
            match order {
                1 => {
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = w.sample * *x + w.answer * *m0;
                    }
                }
                2 => {
                    for ((x, m0), m1) in x.iter_mut().zip(m0).zip(&older[0][block.clone()]) {
                        *x = w.sample * *x + w.answer * *m0 + w.first * (slope0 * (*m0 - m1));
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block.clone()]);
                    for ((x, m0), (m1, m2)) in x.iter_mut().zip(m0).zip(older) {
                        let (d10, d11) = (slope0 * (*m0 - m1), slope1 * (m1 - m2));
                        let (d1, d2) = (d10 + share * (d10 - d11), curve * (d10 - d11));
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
        sigmas::add_noise(self.sigmas[step], x0, noise, out);
    }
}
