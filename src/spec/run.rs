//! `[run]`: how many steps, which seed, how many pictures of what size.

use std::path::PathBuf;

use super::reader::Table;
use super::writer::{Writer, integer};

/// The largest seed: the end of TOML's integers.
const LAST_SEED: u64 = i64::MAX as u64;

/// `[run]`: how many steps, which seed, how many pictures of what size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// `steps = 50`: steps of the scheduler, 1 to 1000.
    pub steps: usize,
    /// `seed`: image number i of the run is drawn from a generator of its own, seeded `seed + i`; 0 to 2^63 - 1.
    /// Absent: chosen anew for each run, and told.
    pub seed: Option<u64>,
    /// `images = 1`: pictures per prompt, 1 to 10000.
    pub images: usize,
    /// `width`: of the pictures, in pixels, 1 to 16384 and a multiple of what the model needs. Absent: what the model
    /// was trained at, or, for a task that begins with a picture, that picture's.
    pub width: Option<usize>,
    /// `height`: of the pictures, in the manner of `width`.
    pub height: Option<usize>,
    /// `latents`: a .npy file of unit normal noise to start from, float32 `[n, c, h/f, w/f]`.
    pub latents: Option<PathBuf>,
}

impl Default for Run {
    fn default() -> Self {
        Self { steps: 50, seed: None, images: 1, width: None, height: None, latents: None }
    }
}

impl Run {
    pub(super) fn read(mut table: Table<'_>) -> Self {
        let default = Self::default();
        let run = Self {
            steps: table.integer("steps", 1, 1000).unwrap_or(default.steps),
            seed: table.get("seed").and_then(|seed| seed.integer(0, LAST_SEED)),
            images: table.integer("images", 1, 10_000).unwrap_or(default.images),
            width: table.integer("width", 1, 16384),
            height: table.integer("height", 1, 16384),
            latents: table.file_path("latents"),
        };
        table.finish();
        run
    }

    pub(super) fn write(&self, writer: &mut Writer) {
        writer.table(&["run"]);
        writer.key("steps", integer(self.steps));
        writer.key_if("seed", self.seed.and_then(|seed| i64::try_from(seed).ok()));
        writer.key("images", integer(self.images));
        writer.key_if("width", self.width.map(integer));
        writer.key_if("height", self.height.map(integer));
        if let Some(latents) = &self.latents {
            writer.path("latents", latents);
        }
    }
}
