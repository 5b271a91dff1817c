//! Reasons for the loop on the host.

use crate::denoise::graph::GraphDenoiser;

/// The reason why a run needs the loop on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceObstacle {
    /// Steps that are no linear combinations, or lose digits as such.
    #[error(
        "the scheduler's steps are not linear, as with clipping or dynamic thresholding, or begin at a signal-to-noise ratio \
         near zero"
    )]
    Scheduler,
    /// A guidance interval.
    #[error("guidance_interval changes the branches during the run")]
    GuidanceInterval,
    /// Tiles.
    #[error("the sample is denoised in tiles")]
    Tiles,
    /// A ControlNet in guess mode, without an input for its scale, or with other element types than the denoiser's.
    #[error("a ControlNet is in guess mode, or has no scale, a fixed batch or other element types than the denoiser")]
    ControlNets,
    /// A cache of the denoiser's outputs.
    #[error("[cache] skips evaluations")]
    Cache,
    /// A provider that replays runs at fixed addresses.
    #[error("the provider's options capture runs, which are replayed at fixed addresses")]
    Capture,
    /// Noise of all steps, or what a mask preserves at each, beyond a limit.
    #[error("noise and preserved latents of all steps take more than 1 GiB")]
    Size,
    /// Several runs of the graph in one call.
    #[error("a call takes several runs of the denoiser's graph")]
    Rows,
}

impl GraphDenoiser<'_> {
    /// Returns true if the first provider of its graph has memory of its own.
    pub fn has_device_memory(&self) -> bool {
        self.session.has_device_memory()
    }

    /// Returns the reason why this denoiser needs the loop on the host, if there is one.
    pub fn obstacle(&self) -> Option<DeviceObstacle> {
        let obstacles = [
            (self.interval.is_some(), DeviceObstacle::GuidanceInterval),
            (self.batch.split().is_some(), DeviceObstacle::Tiles),
            (!self.controls.iter().all(|control| control.fits_device(self)), DeviceObstacle::ControlNets),
            (self.shallow.is_some(), DeviceObstacle::Cache),
            (self.chunk != self.prompted.len(), DeviceObstacle::Rows),
            (self.session.captures_runs(), DeviceObstacle::Capture),
        ];
        obstacles.into_iter().find_map(|(holds, obstacle)| holds.then_some(obstacle))
    }
}
