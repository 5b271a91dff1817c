//! The axes of a panel: range, ticks and labels.

use std::ops::Range;

use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};

/// The scale of an axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scale {
    /// Linear in the value.
    Linear,
    /// Linear in the decimal logarithm.
    Log,
}

impl Scale {
    /// Returns the coordinate of a value on the axis; infinite if the scale cannot show it.
    pub fn coordinate(self, value: f64) -> f64 {
        match self {
            Self::Linear => value,
            Self::Log => value.log10(),
        }
    }
}

/// An axis over all plotted values, in the coordinates of its scale.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PlotAxis {
    pub low: f64,
    pub high: f64,
    pub ticks: Vec<f64>,
    scale: Scale,
}

impl PlotAxis {
    /// Creates an axis over the finite coordinates, with a margin at both ends.
    pub fn over(coordinates: impl Iterator<Item = f64>, scale: Scale) -> Self {
        let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
        for coordinate in coordinates.filter(|coordinate| coordinate.is_finite()) {
            (low, high) = (low.min(coordinate), high.max(coordinate));
        }
        if low > high {
            (low, high) = (0.0, 1.0);
        }
        let room = if high > low { 0.05 * (high - low) } else { 0.5 };
        (low, high) = (low - room, high + room);
        let ticks = match scale {
            Scale::Log if high - low < 2.0 => small_decades(low, high),
            Scale::Log => multiples(low, high, ((high - low) / 6.0).ceil()),
            Scale::Linear => multiples(low, high, round_up_to_nice((high - low) / 7.0)),
        };
        Self { low, high, ticks, scale }
    }

    /// Creates an axis over the steps of a run, with integer ticks.
    pub fn over_steps(steps: f64) -> Self {
        let ticks = multiples(0.0, steps, round_up_to_nice(steps / 6.0).max(1.0));
        Self { low: -0.03 * steps, high: 1.03 * steps, ticks, scale: Scale::Linear }
    }
}

impl Ranged for PlotAxis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (start, end): (i32, i32)) -> i32 {
        let fraction = (value - self.low) / (self.high - self.low);
        start + (f64::from(end - start) * fraction).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // There are no minor ticks.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

impl ValueFormatter<f64> for PlotAxis {
    fn format(tick: &f64) -> String {
        tick.to_string()
    }

    /// Formats the label of a tick.
    fn format_ext(&self, tick: &f64) -> String {
        match self.scale {
            Scale::Linear => {
                let text = format!("{tick:.4}");
                text.trim_end_matches('0').trim_end_matches('.').replace('-', "−")
            }
            Scale::Log if !(-3.5..=4.5).contains(tick) => format!("1e{:.0}", tick.floor()),
            Scale::Log => format!("{:.*}", (-(tick + 1e-9).floor()).max(0.0) as usize, 10.0_f64.powf(*tick)),
        }
    }
}

/// Rounds `width` up to 1, 2 or 5 times a power of ten.
fn round_up_to_nice(width: f64) -> f64 {
    let power = 10.0_f64.powf(width.log10().floor());
    let factor = [1.0, 2.0, 5.0].into_iter().find(|factor| factor * power >= width * 0.999).unwrap_or(10.0);
    factor * power
}

/// Returns the multiples of `width` from `low` to `high`.
fn multiples(low: f64, high: f64, width: f64) -> Vec<f64> {
    let (first, last) = ((low / width).ceil() as i64, (high / width).floor() as i64);
    (first..=last).map(|i| i as f64 * width).collect()
}

/// Returns the logarithms of 1, 2, 5, 10 and so on from `low` to `high`.
fn small_decades(low: f64, high: f64) -> Vec<f64> {
    let decades = low.floor() as i32..=high.floor() as i32;
    let ticks = decades.flat_map(|decade| [1.0_f64, 2.0, 5.0].map(|factor| factor.log10() + f64::from(decade)));
    ticks.filter(|tick| (low..=high).contains(tick)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(values: &[f64], scale: Scale) -> Vec<String> {
        let axis = PlotAxis::over(values.iter().map(|value| scale.coordinate(*value)), scale);
        axis.ticks.iter().map(|tick| axis.format_ext(tick)).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(labels(&[1.0, 999.0], Scale::Linear), ["0", "200", "400", "600", "800", "1000"]);
        assert_eq!(labels(&[-62.0, 31.0], Scale::Linear), ["−60", "−40", "−20", "0", "20"]);
        assert_eq!(labels(&[0.029, 14.6], Scale::Log), ["0.1", "1", "10"]);
        assert_eq!(labels(&[0.002, 4096.0], Scale::Log), ["0.01", "1", "100"]);
        assert_eq!(labels(&[0.2, 1.1], Scale::Log), ["0.2", "0.5", "1"]);
        assert_eq!(labels(&[1e-9, 1.0], Scale::Log), ["1e-8", "1e-6", "1e-4", "0.01", "1"]);
        assert_eq!(PlotAxis::over_steps(20.0).ticks, [0.0, 5.0, 10.0, 15.0, 20.0]);
        assert_eq!(PlotAxis::over_steps(1.0).ticks, [0.0, 1.0]);
    }

    #[test]
    fn any_values_have_an_axis() {
        for values in [&[][..], &[1.0], &[f64::INFINITY], &[0.0, f64::NAN], &[5.0, 5.0]] {
            for scale in [Scale::Linear, Scale::Log] {
                let axis = PlotAxis::over(values.iter().map(|value| scale.coordinate(*value)), scale);
                assert!(axis.low < axis.high && axis.low.is_finite() && axis.high.is_finite(), "{values:?}: {axis:?}");
                assert!(!axis.ticks.is_empty() && axis.ticks.len() < 12, "{values:?}: {axis:?}");
            }
        }
    }
}
