//! Images: load, resize, convert, encode, save.
//!
//! An image is [`Rgb8`], height × width × 3 bytes. The graphs take it as `[1, 3, h, w]` float32 in [-1, 1];
//! [`to_tensor`] and [`from_tensor`] convert as diffusers' `VaeImageProcessor` does.

mod encode;
mod grey;
mod jpeg;
mod labels;
mod load;
mod metrics;
mod resize;
mod tensor;

pub use encode::{encode_png, save_png};
pub use grey::{bicubic, load_grey};
pub use labels::{LabelMap, load_labels};
pub use load::{InputLimit, dimensions, load};
pub use metrics::{psnr, ssim};
pub use resize::resize;
pub use tensor::{from_tensor, luma, to_tensor, to_unit_tensor};

/// An image of three 8-bit channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Rgb8 {
    /// Takes `data`, rows from the top, three bytes a pixel; `None` where a side is 0 or the length is not
    /// `3 · width · height`.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Option<Self> {
        let length = width.checked_mul(height)?.checked_mul(3)?;
        (length > 0 && length == data.len()).then_some(Self { width, height, data })
    }

    /// The width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// The height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// The bytes: rows from the top, red, green, blue.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// The bytes as three-byte pixels.
    fn pixels(&self) -> &[[u8; 3]] {
        self.data.as_chunks().0
    }
}
