//! The convolutions that rewrites apply to: 3×3, stride 1, with zero padding.

use super::facts::TensorFacts;
use super::indexed_graph::{input, int, ints, is, output, text};
use crate::bundle::proto::NodeProto;
use crate::tensor::DType;

/// A convolution with weights `[out, in, 3, 3]` that keeps the image's size.
pub struct Convolution<'s> {
    /// The image, `[batch, in, height, width]`, in float32.
    pub image: &'s str,
    /// The weights.
    pub weights: &'s str,
    /// The bias of each output channel.
    pub bias: Option<&'s str>,
    /// The output.
    pub output: &'s str,
    /// Channels of the image.
    pub channels_in: i64,
    /// Channels of the result.
    pub channels_out: i64,
}

impl<'s> Convolution<'s> {
    /// Recognizes a node as such a convolution.
    pub fn from_node(facts: &TensorFacts, node: &'s NodeProto) -> Option<Self> {
        let holds = |name: &str, value: &[i64]| ints(node, name).is_none_or(|own| own == value);
        let is_plain = is(node, "Conv")
            && holds("kernel_shape", &[3, 3])
            && holds("strides", &[1, 1])
            && holds("dilations", &[1, 1])
            && ints(node, "pads") == Some(&[1, 1, 1, 1])
            && int(node, "group").unwrap_or(1) == 1
            && matches!(text(node, "auto_pad"), None | Some("" | "NOTSET"));
        let (image, weights) = (input(node, 0)?, input(node, 1)?);
        let is_single = |name: &str| facts.dtype(name) == Some(DType::F32);
        let [channels_out, channels_in, height, width] = facts.shape(weights)? else { return None };
        if !is_plain || !is_single(image) || !is_single(weights) || (height.number()?, width.number()?) != (3, 3) {
            return None;
        }
        Some(Self {
            image,
            weights,
            bias: input(node, 2),
            output: output(node)?,
            channels_in: channels_in.number()?,
            channels_out: channels_out.number()?,
        })
    }
}
