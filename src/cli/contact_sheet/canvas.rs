//! A white image to paste images and text into.

use font8x8::{BASIC_FONTS, GREEK_FONTS, HIRAGANA_FONTS, LATIN_FONTS, UnicodeFonts};

use crate::image::Rgb8;

/// The side of a character in pixels, at scale 1.
pub(super) const GLYPH: usize = 8;

/// The size of a canvas in pixels, width first.
type Size = (usize, usize);

/// Pixels that are drawn on; whatever would lie outside is left out.
pub(super) struct Canvas {
    size: Size,
    data: Vec<u8>,
}

impl Canvas {
    /// A white canvas.
    pub(super) fn new(size: Size) -> Self {
        Self { size, data: vec![255; 3 * size.0 * size.1] }
    }

    /// Pastes an image, its top left corner at `(x, y)`.
    pub(super) fn paste(&mut self, image: &Rgb8, (x, y): (usize, usize)) {
        let width = image.width().min(self.size.0.saturating_sub(x));
        for (row, pixels) in image.data().chunks_exact(3 * image.width()).enumerate() {
            let start = 3 * ((y + row) * self.size.0 + x);
            if let Some(target) = self.data.get_mut(start..start + 3 * width) {
                target.copy_from_slice(&pixels[..3 * width]);
            }
        }
    }

    /// Draws a line of black text, its top left corner at `(x, y)`, each pixel of the font `scale` wide and high.
    pub(super) fn text(&mut self, text: &str, (x, y): (usize, usize), scale: usize) {
        for (at, character) in text.chars().enumerate() {
            let left = x + at * GLYPH * scale;
            for (row, bits) in glyph(character).into_iter().enumerate() {
                for column in (0..GLYPH).filter(|column| bits >> column & 1 == 1) {
                    self.square((left + column * scale, y + row * scale), scale);
                }
            }
        }
    }

    fn square(&mut self, (x, y): (usize, usize), side: usize) {
        for row in y..(y + side).min(self.size.1) {
            let (from, to) = (x.min(self.size.0), (x + side).min(self.size.0));
            self.data[3 * (row * self.size.0 + from)..3 * (row * self.size.0 + to)].fill(0);
        }
    }

    /// The image; `None` if a side is 0.
    pub(super) fn into_image(self) -> Option<Rgb8> {
        Rgb8::new(self.size.0, self.size.1, self.data)
    }
}

/// Returns the width of a line of text in pixels.
pub(super) fn text_width(text: &str, scale: usize) -> usize {
    text.chars().count() * GLYPH * scale
}

/// Shortens a line of text to a width, with `..` at its end if something is left out.
pub(super) fn shorten(text: &str, width: usize, scale: usize) -> String {
    if text_width(text, scale) <= width {
        return text.to_owned();
    }
    let fitting = width / (GLYPH * scale);
    let kept = text.chars().take(fitting.saturating_sub(2));
    kept.chain("..".chars().take(fitting)).collect()
}

/// The rows of a character from the top, the leftmost pixel in the lowest bit; those of `?` for one that the font lacks.
fn glyph(character: char) -> [u8; GLYPH] {
    let fonts: [&dyn UnicodeFonts; 4] = [&BASIC_FONTS, &LATIN_FONTS, &GREEK_FONTS, &HIRAGANA_FONTS];
    let find = |character| fonts.iter().find_map(|font| font.get(character));
    find(character).or_else(|| find('?')).unwrap_or_default()
}
