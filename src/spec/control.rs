//! `[[control]]`: ControlNets.

use crate::keys::{Table, Writer};
use std::ops::Bound::{Included, Unbounded};
use std::path::PathBuf;

use crate::task::InputImage;

/// `[[control]]`: a control network (ControlNet, Zhang et al. 2023, arXiv 2302.05543) and the image that it follows.
/// Any number of such tables may stand in a file; what they add to the denoiser adds up.
#[derive(Debug, Clone, PartialEq)]
pub struct ControlSpec {
    /// `image`, required: the image to follow, as the network was trained on such: edges, poses, depths.
    pub image: InputImage,
    /// `path`: the network's directory or its .onnx file. Absent: the model directory's own `controlnet/`.
    pub path: Option<PathBuf>,
    /// `scale`: the weight of the control network. Absent: the default of the task's pipeline class in diffusers, such as
    /// 1.0, or 0.8 for image-to-image.
    pub scale: Option<f64>,
    /// `start = 0.0`: the share of the run before which the network is silent, 0 to 1.
    pub start: f64,
    /// `end = 1.0`: the share of the run after which the network is silent, 0 to 1.
    pub end: f64,
    /// `guess_mode = false`: true follows the image also with little or no prompt, as diffusers' argument of that name: the
    /// residuals of the upper blocks are scaled down, and the unconditional branch of guidance gets none.
    pub guess_mode: bool,
}

impl ControlSpec {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        table.require("image", "the path of an image");
        let share = |table: &mut Table<'_>, key: &str| table.number(key, Included(0.0), Included(1.0));
        let control = Self {
            image: InputImage::at(&mut table, "image"),
            path: table.file_path("path"),
            scale: table.number("scale", Unbounded, Unbounded),
            start: share(&mut table, "start").unwrap_or(0.0),
            end: share(&mut table, "end").unwrap_or(1.0),
            guess_mode: table.get("guess_mode").and_then(|item| item.switch()).unwrap_or(false),
        };
        if control.start >= control.end {
            table.report_at("end", format!("expected more than start = {}, found {}", control.start, control.end));
        }
        table.finish();
        control
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.array_table("control");
        self.image.write("image", writer);
        if let Some(path) = &self.path {
            writer.path("path", path);
        }
        writer.key_if("scale", self.scale);
        writer.key("start", self.start);
        writer.key("end", self.end);
        writer.key("guess_mode", self.guess_mode);
    }
}
