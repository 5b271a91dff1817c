//! Lengths of dynamic axes, as polynomials in the file's free dimensions.
//!
//! `2·h·w` and `h·(w + w)` are the same polynomial, so a rewrite can check the results of shape arithmetic however the
//! graph computes them.

use std::collections::{BTreeMap, HashMap};

/// A polynomial with integer coefficients: for each product of unknowns (sorted, with repetition), its coefficient.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Length(BTreeMap<Vec<u32>, i64>);

impl From<i64> for Length {
    fn from(number: i64) -> Self {
        Self(BTreeMap::from([(Vec::new(), number)]).into_iter().filter(|&(_, factor)| factor != 0).collect())
    }
}

impl Length {
    /// Returns the number, if it contains no unknown.
    pub fn number(&self) -> Option<i64> {
        match self.0.iter().next() {
            None => Some(0),
            Some((unknowns, &factor)) if self.0.len() == 1 && unknowns.is_empty() => Some(factor),
            Some(_) => None,
        }
    }

    /// Returns true if no coefficient is negative, so that its value is not either.
    pub fn is_sum(&self) -> bool {
        self.0.values().all(|&factor| factor > 0)
    }

    /// Returns the sum; `None` on overflow.
    pub fn plus(&self, other: &Self) -> Option<Self> {
        let mut sum = self.0.clone();
        for (unknowns, factor) in &other.0 {
            let place = sum.entry(unknowns.clone()).or_default();
            *place = place.checked_add(*factor)?;
        }
        sum.retain(|_, factor| *factor != 0);
        Some(Self(sum))
    }

    /// Returns the difference; `None` on overflow.
    pub fn minus(&self, other: &Self) -> Option<Self> {
        self.plus(&other.times(&Self::from(-1))?)
    }

    /// Returns the product; `None` on overflow.
    pub fn times(&self, other: &Self) -> Option<Self> {
        let mut product: BTreeMap<Vec<u32>, i64> = BTreeMap::new();
        for (left, a) in &self.0 {
            for (right, b) in &other.0 {
                let mut unknowns: Vec<u32> = left.iter().chain(right).copied().collect();
                unknowns.sort_unstable();
                let place = product.entry(unknowns).or_default();
                *place = place.checked_add(a.checked_mul(*b)?)?;
            }
        }
        product.retain(|_, factor| *factor != 0);
        Some(Self(product))
    }

    /// Returns the quotient, if there is no remainder for any unknowns: long division by the divisor's leading term.
    pub fn over(&self, divisor: &Self) -> Option<Self> {
        let (by, factor) = divisor.leading()?;
        let (mut rest, mut quotient) = (self.clone(), Self::default());
        while let Some((unknowns, own)) = rest.leading() {
            if own.checked_rem(factor)? != 0 {
                return None;
            }
            let mut left = unknowns.clone();
            for unknown in by {
                left.remove(left.iter().position(|own| own == unknown)?);
            }
            let term = Self(BTreeMap::from([(left, own.checked_div(factor)?)]));
            rest = rest.minus(&term.times(divisor)?)?;
            quotient = quotient.plus(&term)?;
        }
        Some(quotient)
    }

    /// Returns the leading term, in an order that multiplication preserves.
    fn leading(&self) -> Option<(&Vec<u32>, i64)> {
        self.0
            .iter()
            .max_by_key(|(unknowns, _)| (unknowns.len(), *unknowns))
            .map(|(unknowns, &factor)| (unknowns, factor))
    }

    /// Returns the product of several lengths.
    pub fn product<'a>(lengths: impl IntoIterator<Item = &'a Self>) -> Option<Self> {
        lengths.into_iter().try_fold(Self::from(1), |product, length| product.times(length))
    }
}

/// Creates the unknowns.
#[derive(Debug, Default)]
pub struct Unknowns {
    known: HashMap<Unknown, u32>,
    count: u32,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Unknown {
    /// An axis with a name in the file.
    Named(String),
    /// A quotient, rounded down.
    Quotient(Length, Length),
}

impl Unknowns {
    /// Returns the unknown of a named axis: the same for the same name.
    pub fn named(&mut self, name: &str) -> Length {
        self.intern(Unknown::Named(name.to_owned()))
    }

    /// Returns the name of the axis with this length.
    pub fn name(&self, length: &Length) -> Option<&str> {
        let mut known = self.known.iter().filter(|(_, id)| length.0 == BTreeMap::from([(vec![**id], 1)]));
        known.find_map(|(unknown, _)| match unknown {
            Unknown::Named(name) => Some(name.as_str()),
            Unknown::Quotient(..) => None,
        })
    }

    /// Creates an unknown that equals no other.
    pub fn fresh(&mut self) -> Length {
        self.count += 1;
        Length(BTreeMap::from([(vec![self.count], 1)]))
    }

    /// Returns the quotient rounded down, exact or not: the same for the same operands.
    pub fn quotient(&mut self, length: &Length, divisor: &Length) -> Length {
        match (length.over(divisor), length.number(), divisor.number()) {
            (Some(exact), ..) => exact,
            (None, Some(a), Some(b)) if b > 0 => Length::from(a.div_euclid(b)),
            _ => self.intern(Unknown::Quotient(length.clone(), divisor.clone())),
        }
    }

    fn intern(&mut self, unknown: Unknown) -> Length {
        let count = &mut self.count;
        let id = *self.known.entry(unknown).or_insert_with(|| {
            *count += 1;
            *count
        });
        Length(BTreeMap::from([(vec![id], 1)]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_length_in_other_words() {
        let mut unknowns = Unknowns::default();
        let (h, w) = (unknowns.named("h"), unknowns.named("w"));
        let twice = Length::from(2).times(&h).unwrap().times(&w).unwrap();
        assert_eq!(h.times(&w.plus(&w).unwrap()).unwrap(), twice);
        assert_eq!(twice.over(&h).unwrap(), w.times(&Length::from(2)).unwrap());
        assert_eq!(twice.minus(&twice).unwrap().number(), Some(0));
        assert_eq!(h.over(&w), None);
        let border = w.plus(&Length::from(2)).unwrap();
        let area = h.plus(&Length::from(1)).unwrap().times(&border).unwrap();
        assert_eq!(area.over(&border).unwrap(), h.plus(&Length::from(1)).unwrap());
        assert_eq!(area.over(&w), None);
        assert_eq!(area.over(&Length::from(0)), None);
        assert_eq!(Length::from(7).over(&Length::from(2)), None);
        assert_ne!(unknowns.fresh(), unknowns.fresh());
        assert_eq!(unknowns.named("h"), h);
        assert_eq!(unknowns.name(&h), Some("h"));
        assert_eq!(unknowns.name(&twice), None);
    }

    #[test]
    fn quotients_are_rounded_down() {
        let mut unknowns = Unknowns::default();
        let h = unknowns.named("h");
        let two = Length::from(2);
        assert_eq!(unknowns.quotient(&Length::from(7), &two).number(), Some(3));
        assert_eq!(unknowns.quotient(&h.times(&two).unwrap(), &two), h);
        let half = unknowns.quotient(&h, &two);
        assert_eq!(unknowns.quotient(&h, &two), half);
        assert_ne!(half.times(&two).unwrap(), h);
    }

    #[test]
    fn too_large_a_number_is_none() {
        let large = Length::from(i64::MAX);
        assert_eq!(large.times(&large), None);
        assert_eq!(large.plus(&large), None);
        assert_eq!(Length::from(i64::MIN).over(&Length::from(-1)), None);
    }
}
