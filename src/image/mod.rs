//! Images: loading, resizing, conversion, encoding, saving.
//!
//! An image is [`Rgb8`], height × width × 3 bytes. Graphs use `[1, 3, h, w]` float32 in [-1, 1]; [`to_tensor`] and
//! [`from_tensor`] convert between them as diffusers' `VaeImageProcessor` does.

mod encode;
mod format;
mod gray;
mod jpeg;
mod labels;
mod load;
mod metrics;
mod resize;
mod tensor;

pub use encode::{encode_png, save_png};
pub(crate) use format::DESCRIPTION;
pub use format::{ImageFormat, encode_as};
pub use gray::{load_gray, resize_bicubic};
pub use labels::{LabelMap, load_labels};
pub use load::{InputLimit, dimensions, load};
pub use metrics::{psnr, ssim};
pub use resize::resize;
pub use tensor::{from_tensor, luma, to_tensor, to_unit_tensor};

/// An RGB image with 8 bits per channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rgb8 {
    width: usize,
    height: usize,
    data: Vec<u8>,
}

impl Rgb8 {
    /// Creates an image from `data`, rows from the top, three bytes per pixel. `None` if a side is 0 or the length is
    /// not `3 · width · height`.
    pub fn new(width: usize, height: usize, data: Vec<u8>) -> Option<Self> {
        let length = width.checked_mul(height)?.checked_mul(3)?;
        (length > 0 && length == data.len()).then_some(Self { width, height, data })
    }

    /// Returns the width in pixels.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the height in pixels.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns the bytes: rows from the top, each pixel as red, green, blue.
    pub fn data(&self) -> &[u8] {
        &self.data
    }

    /// Returns the bytes as three-byte pixels.
    fn pixels(&self) -> &[[u8; 3]] {
        self.data.as_chunks().0
    }
}
