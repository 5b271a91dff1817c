//! The multistep updates of DPM-Solver, shared by all its classes: the history of a run, and the order of each step.

use super::Noise;
use super::dpm_update::Algorithm;
use super::sample::History;
use super::settings::SchedulerSettings;
use super::solver_schedule::NoiseLevel;
use crate::error::Result;
use std::ops::Range;

/// The order of each step: a run starts with order 1, and short runs end with lower orders.
#[derive(Debug)]
pub(super) struct Orders {
    /// The configured order, 1 to 3.
    pub order: usize,
    /// True if the last step but one has order 2 at most.
    pub second_before_last: bool,
    /// True if the last step has order 1.
    pub first_at_last: bool,
    /// The index of the last step.
    pub last: usize,
    /// Steps so far, whatever the index at which the run started.
    pub steps_done: usize,
}

impl Orders {
    pub(super) fn order_at(&self, step: usize) -> usize {
        if self.order == 1 || self.steps_done < 1 || step == self.last && self.first_at_last {
            1
        } else if self.order == 2 || self.steps_done < 2 || step + 1 == self.last && self.second_before_last {
            2
        } else {
            3
        }
    }
}

/// A run of the multistep DPM-Solver.
#[derive(Debug)]
pub(super) struct Multistep {
    algorithm: Algorithm,
    /// True if order 2 integrates its difference exactly, `solver_type = "heun"`.
    heun: bool,
    orders: Orders,
    model_outputs: History,
    noise: Vec<f32>,
}

impl Multistep {
    /// Reads `solver_order`, `solver_type`, `lower_order_final` and `euler_at_final` for a run of `steps` steps.
    /// `without_third` is true if the algorithm has no third order in this class.
    ///
    /// # Errors
    /// An unknown value, or an order that the algorithm does not have.
    pub(super) fn from_settings(
        settings: &SchedulerSettings,
        algorithm: Algorithm,
        steps: usize,
        without_third: bool,
    ) -> Result<Self> {
        let order = settings.count("solver_order")?;
        let to_zero = settings.has("final_sigmas_type") && settings.choice("final_sigmas_type")? == "zero";
        let lower = settings.switch("lower_order_final")? && steps < 15;
        let mut orders = Orders {
            order,
            second_before_last: lower,
            first_at_last: settings.switch("euler_at_final")? || lower || to_zero,
            last: steps.saturating_sub(1),
            steps_done: 0,
        };
        // Short runs may not reach the third order.
        let reaches_third = (0..steps).any(|step| {
            orders.steps_done = step;
            orders.order_at(step) == 3
        });
        orders.steps_done = 0;
        if without_third && reaches_third {
            let problem = "this algorithm_type has no third order";
            return Err(settings.error("solver_order", problem, "set solver_order = 2"));
        }
        let heun = settings.choice("solver_type")? == "heun";
        Ok(Self { algorithm, heun, orders, model_outputs: History::new(order), noise: Vec::new() })
    }

    /// Advances `x` from `step` to the next, block by block, each with its part of the model output. `noise_level`
    /// returns the noise level at a step, and `convert` converts that part of the model output for a block of `x`.
    pub(super) fn step<'a>(
        &mut self,
        step: usize,
        blocks: impl Iterator<Item = (Range<usize>, &'a [f32])>,
        noise_level: impl Fn(usize) -> NoiseLevel,
        mut convert: impl FnMut(&[f32], &[f32], &mut [f32]),
        x: &mut [f32],
        noise: &mut dyn Noise,
    ) {
        let stochastic = self.algorithm.is_stochastic();
        if stochastic {
            self.noise.resize(x.len(), 0.0);
            noise.fill(&mut self.noise);
        }
        let order = self.orders.order_at(step);
        let (to, from) = (noise_level(step + 1), noise_level(step));
        let h = to.lambda - from.lambda;
        let w = self.algorithm.weights(order == 3 || self.heun, to, from, h);
        let [slope0, slope1, share, curve] = match order {
            1 => [0.0; 4],
            2 => [1.0 / ((from.lambda - noise_level(step - 1).lambda) / h), 0.0, 0.0, 0.0],
            _ => {
                let (one, two) = (noise_level(step - 1), noise_level(step - 2));
                let (r0, r1) = ((from.lambda - one.lambda) / h, (one.lambda - two.lambda) / h);
                [1.0 / r0, 1.0 / r1, r0 / (r0 + r1), 1.0 / (r0 + r1)]
            }
        };
        let (newest, older) = self.model_outputs.advance_with_older(x.len());
        for (block, model_output) in blocks {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            convert(model_output, x, m0);
            match order {
                1 => {
                    for (x, m0) in x.iter_mut().zip(m0) {
                        *x = w.sample * *x + w.d0 * *m0;
                    }
                }
                2 => {
                    for ((x, m0), m1) in x.iter_mut().zip(m0).zip(&older[0][block.clone()]) {
                        let d1 = slope0 * (*m0 - m1);
                        *x = w.sample * *x + w.d0 * *m0 + w.d1 * d1;
                    }
                }
                _ => {
                    let older = older[0][block.clone()].iter().zip(&older[1][block.clone()]);
                    for ((x, m0), (m1, m2)) in x.iter_mut().zip(m0).zip(older) {
                        let (d10, d11) = (slope0 * (*m0 - m1), slope1 * (m1 - m2));
                        let (d1, d2) = (d10 + share * (d10 - d11), curve * (d10 - d11));
                        *x = w.sample * *x + w.d0 * *m0 + w.d1 * d1 + w.d2 * d2;
                    }
                }
            }
            if stochastic {
                for (x, noise) in x.iter_mut().zip(&self.noise[block]) {
                    *x += w.noise * noise;
                }
            }
        }
        self.orders.steps_done += 1;
    }
}
