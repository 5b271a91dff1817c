//! The multistep updates of DPM-Solver, for every class that takes them: what it remembers of a run, and which order
//! a step can take.

use super::Noise;
use super::config::Settings;
use super::dpm_update::Algorithm;
use super::sample::History;
use super::solver::Level;
use crate::error::Result;
use std::ops::Range;

/// Which order a step can take: a run begins with the first, and ends with lower ones where it is short.
#[derive(Debug)]
pub(super) struct Orders {
    /// The order asked for, 1 to 3.
    pub order: usize,
    /// Whether the last step but one takes the second order at most.
    pub second_before_last: bool,
    /// Whether the last step takes the first order.
    pub first_at_last: bool,
    /// The index of the last step.
    pub last: usize,
    /// Steps taken so far, whatever the index at which the run began.
    pub made: usize,
}

impl Orders {
    pub(super) fn at(&self, step: usize) -> usize {
        if self.order == 1 || self.made < 1 || step == self.last && self.first_at_last {
            1
        } else if self.order == 2 || self.made < 2 || step + 1 == self.last && self.second_before_last {
            2
        } else {
            3
        }
    }
}

/// A run of DPM-Solver's multistep form.
#[derive(Debug)]
pub(super) struct Multistep {
    algorithm: Algorithm,
    /// Whether the second order integrates its difference exactly, `solver_type = "heun"`.
    heun: bool,
    orders: Orders,
    answers: History,
    drawn: Vec<f32>,
}

impl Multistep {
    /// Reads `solver_order`, `solver_type`, `lower_order_final` and `euler_at_final` for a run of `steps` calls.
    /// `without_third` is an algorithm that the class has no third order for.
    ///
    /// # Errors
    /// A value that nobody knows, or an order that the algorithm does not have.
    pub(super) fn from_settings(
        settings: &Settings,
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
            made: 0,
        };
        // Short runs may not come to it.
        let comes_to_third = (0..steps).any(|step| {
            orders.made = step;
            orders.at(step) == 3
        });
        orders.made = 0;
        if without_third && comes_to_third {
            let problem = "the algorithm_type given has no third order here";
            return Err(settings.error("solver_order", problem, "set solver_order = 2"));
        }
        let heun = settings.choice("solver_type")? == "heun";
        Ok(Self { algorithm, heun, orders, answers: History::new(order), drawn: Vec::new() })
    }

    /// Moves `x` from `step` to the next, one block after the other, each with its part of the model's answer. `level`
    /// tells the noise level at a step, and `convert` writes what stands for that part of the answer on a block of `x`.
    pub(super) fn step<'a>(
        &mut self,
        step: usize,
        blocks: impl Iterator<Item = (Range<usize>, &'a [f32])>,
        level: impl Fn(usize) -> Level,
        mut convert: impl FnMut(&[f32], &[f32], &mut [f32]),
        x: &mut [f32],
        noise: &mut dyn Noise,
    ) {
        let stochastic = self.algorithm.is_stochastic();
        if stochastic {
            self.drawn.resize(x.len(), 0.0);
            noise.fill(&mut self.drawn);
        }
        let order = self.orders.at(step);
        let (to, from) = (level(step + 1), level(step));
        let h = to.lambda - from.lambda;
        let w = self.algorithm.weights(order == 3 || self.heun, to, from, h);
        let [slope0, slope1, share, curve] = match order {
            1 => [0.0; 4],
            2 => [1.0 / ((from.lambda - level(step - 1).lambda) / h), 0.0, 0.0, 0.0],
            _ => {
                let (one, two) = (level(step - 1), level(step - 2));
                let (r0, r1) = ((from.lambda - one.lambda) / h, (one.lambda - two.lambda) / h);
                [1.0 / r0, 1.0 / r1, r0 / (r0 + r1), 1.0 / (r0 + r1)]
            }
        };
        let (newest, older) = self.answers.advance_beside(x.len());
        for (block, model_output) in blocks {
            let (x, m0) = (&mut x[block.clone()], &mut newest[block.clone()]);
            convert(model_output, x, m0);
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
        self.orders.made += 1;
    }
}
