//! Shares of a run: from which call of the model to which something holds.

use super::Call;

/// A part of a run, in shares of its calls of the model: 0 is its beginning, 1 its end.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunInterval {
    /// The start, in [0, 1].
    pub start: f64,
    /// The end, in [0, 1], not before the start.
    pub end: f64,
}

impl RunInterval {
    /// True if the interval holds a whole call: call `i` of `n` lasts from `i / n` to `(i + 1) / n`.
    pub fn holds(&self, call: Call) -> bool {
        self.holds_part(call.index, call.total)
    }

    /// True if it starts or ends between a call and the one before.
    pub(super) fn changes_at(&self, call: Call) -> bool {
        call.index > 0 && self.holds(Call { index: call.index - 1, ..call }) != self.holds(call)
    }

    /// True if it holds the whole of part `index` of `of` equal parts of the run.
    pub(super) fn holds_part(&self, index: usize, of: usize) -> bool {
        let of = of as f64;
        index as f64 / of >= self.start && (index + 1) as f64 / of <= self.end
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_the_calls_that_lie_in_it_as_a_whole() {
        let held = |start, end, of| -> Vec<usize> {
            (0..of).filter(|&index| RunInterval { start, end }.holds_part(index, of)).collect()
        };
        assert_eq!(held(0.0, 1.0, 3), [0, 1, 2]);
        assert_eq!(held(0.15, 0.95, 20), (3..19).collect::<Vec<_>>());
        assert_eq!(held(0.25, 0.7, 4), [1]);
        assert!(held(0.5, 0.5, 4).is_empty());
    }
}
