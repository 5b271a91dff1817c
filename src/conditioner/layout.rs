//! Encodes boxes as tokens (arXiv 2112.10752, section 4.3.1; appendix D.4).

use crate::error::{Error, Result};

/// An object in a layout.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LayoutObject {
    /// Its class, as the model numbers it.
    pub class: usize,
    /// Left, top, right and bottom, as fractions of the image's width and height.
    pub place: [f64; 4],
    /// The modifier bits: a group, an occluded object, a depiction, a view from inside.
    pub modifiers: usize,
}

/// The maximum number of objects in a layout.
pub const MOST: usize = 30;
/// The number of grid points per side to which corners snap.
const GRID: usize = 90;
/// The token of an empty slot; each has three.
const NOTHING: i64 = 8191;

/// Returns the 92 tokens of a layout: for each of 30 objects its class, its upper left and its lower right corner, then
/// the corners of the visible part of the image, which is all of it.
///
/// A corner is `90 round(89 y) + round(89 x)`; a class is `class + n_classes · modifiers`.
///
/// # Errors
/// [`Error::Input`] for more than 30 objects, and for a class beyond `n_classes` if that is known.
pub fn tokens(things: &[LayoutObject], n_classes: Option<usize>) -> Result<Vec<i64>> {
    if things.len() > MOST {
        return Err(Error::input(
            "condition.boxes",
            format!("expected at most {MOST} boxes, found {}", things.len()),
            "leave out the smallest",
        ));
    }
    let corner = |x: f64, y: f64| {
        let point = |share: f64| (share * (GRID - 1) as f64).round_ties_even() as i64;
        point(y) * GRID as i64 + point(x)
    };
    let mut tokens = Vec::with_capacity(3 * MOST + 2);
    for (at, thing) in things.iter().enumerate() {
        if let Some(n) = n_classes.filter(|&n| thing.class >= n) {
            return Err(Error::input(
                format!("condition.boxes[{at}].class"),
                format!("expected a class from 0 to {1}, found {0}", thing.class, n.saturating_sub(1)),
                "choose one of the model's classes",
            ));
        }
        let [left, top, right, bottom] = thing.place;
        let modified = n_classes.unwrap_or(0).saturating_mul(thing.modifiers);
        tokens.extend([thing.class.saturating_add(modified) as i64, corner(left, top), corner(right, bottom)]);
    }
    tokens.resize(3 * MOST, NOTHING);
    tokens.extend([corner(0.0, 0.0), corner(1.0, 1.0)]);
    Ok(tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_is_92_tokens() {
        let thing = LayoutObject { class: 3, place: [0.0, 0.5, 1.0, 1.0], modifiers: 2 };
        let tokens = tokens(&[thing], Some(10)).unwrap();
        assert_eq!(tokens.len(), 92);
        assert_eq!(tokens[..4], [23, 44 * 90, 8099, 8191]);
        assert_eq!(tokens[90..], [0, 8099]);
    }

    #[test]
    fn too_many_things_and_unknown_classes_are_refused() {
        let thing = LayoutObject { class: 3, place: [0.0, 0.0, 1.0, 1.0], modifiers: 0 };
        assert!(tokens(&[thing; 31], None).unwrap_err().to_string().contains("found 31"));
        assert!(tokens(&[thing], Some(3)).unwrap_err().to_string().contains("a class from 0 to 2"));
    }
}
