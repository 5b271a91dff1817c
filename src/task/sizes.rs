//! The size conditioning of Stable Diffusion XL.

use crate::keys::{Table, Writer, integer};
use std::ops::Bound::Unbounded;

/// The size conditioning of Stable Diffusion XL: properties of the image as if it were one of the training set (Podell et
/// al. 2023, arXiv 2307.01952, section 2.2). Other models take none of it.
///
/// Pairs are (width, height) and (left, top), like `width` and `height` everywhere else here; diffusers' arguments of these
/// names are (height, width) and (top, left).
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SizeConditioning {
    /// `original_size = [1024, 1024]`: width and height, in this order, before the image was scaled, in pixels; diffusers'
    /// `original_size` is (height, width). Absent: those of the generated image.
    pub original_size: Option<[usize; 2]>,
    /// `crop = [0, 0]`: the pixels cut off at the left and at the top, in this order; diffusers'
    /// `crops_coords_top_left` is (top, left).
    pub crop: Option<[usize; 2]>,
    /// `target_size = [1024, 1024]`: width and height, in this order, after cropping; diffusers' `target_size` is (height,
    /// width). Absent: those of the generated image.
    pub target_size: Option<[usize; 2]>,
    /// `aesthetic_score = 6.0`: the rating of the image's beauty, for the refiner.
    pub aesthetic_score: Option<f64>,
    /// `negative_aesthetic_score = 2.5`: the same for the negative prompt.
    pub negative_aesthetic_score: Option<f64>,
}

impl SizeConditioning {
    pub(super) const KEYS: &'static [&'static str] =
        &["original_size", "crop", "target_size", "aesthetic_score", "negative_aesthetic_score"];

    /// The first key that is given.
    pub fn given(&self) -> Option<&'static str> {
        let given = [
            self.original_size.is_some(),
            self.crop.is_some(),
            self.target_size.is_some(),
            self.aesthetic_score.is_some(),
            self.negative_aesthetic_score.is_some(),
        ];
        Self::KEYS.iter().zip(given).find(|(_, given)| *given).map(|(key, _)| *key)
    }

    pub(super) fn read(table: &mut Table<'_>) -> Self {
        Self {
            original_size: pair(table, "original_size", SIZE),
            crop: pair(table, "crop", PLACE),
            target_size: pair(table, "target_size", SIZE),
            aesthetic_score: table.number("aesthetic_score", Unbounded, Unbounded),
            negative_aesthetic_score: table.number("negative_aesthetic_score", Unbounded, Unbounded),
        }
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        let pair = |pair: [usize; 2]| toml::Value::Array(pair.map(integer).to_vec());
        writer.key_if("original_size", self.original_size.map(pair));
        writer.key_if("crop", self.crop.map(pair));
        writer.key_if("target_size", self.target_size.map(pair));
        writer.key_if("aesthetic_score", self.aesthetic_score);
        writer.key_if("negative_aesthetic_score", self.negative_aesthetic_score);
    }
}

const SIZE: &str = "two whole numbers of pixels, [width, height] (diffusers has the height first)";
const PLACE: &str = "two whole numbers of pixels, [left, top] (diffusers has the top first)";

fn pair(table: &mut Table<'_>, key: &str, expected: &str) -> Option<[usize; 2]> {
    let item = table.get(key)?;
    let numbers = item.numbers(expected)?;
    let whole = |&v: &f64| (v.fract() == 0.0 && (0.0..=65536.0).contains(&v)).then_some(v as usize);
    let pair: Option<Vec<usize>> = numbers.iter().map(whole).collect();
    let pair = pair.and_then(|pair| <[usize; 2]>::try_from(pair).ok());
    if pair.is_none() {
        item.report(format!("expected {expected}, found {numbers:?}"));
    }
    pair
}
