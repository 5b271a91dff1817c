//! Keeps a run within `[device] memory`.

use super::execution_plan::{ExecutionPlan, MemoryBudget};
use super::opening::Opening;
use super::part::Part;
use super::run_plan::RunPlan;
use super::sources::ModelSources;
use crate::bundle::VaeDecoderSignature;
use crate::error::{Error, Result};
use crate::rewrite::Footprint;
use crate::scheduler::LinearSteps;
use crate::spec::{DecodeTile, DenoisingLoop};
use crate::tiles::Tiles;

/// The bytes of a process without its graphs: its code, ONNX Runtime's, and an image or two.
const BESIDE: u64 = 150 << 20;
/// The bytes of a run without a graph's activations.
const OF_A_RUN: u64 = 128 << 20;
/// ONNX Runtime's memory holds what it freed in pieces that do not fit what comes next: beside [`OF_A_RUN`], Stable
/// Diffusion 1.5's decoder took 1.1 times its activations at 512×512, its denoiser less than them. Numerator, denominator.
const OF_ACTIVATIONS: [u64; 2] = [4, 3];
/// The smallest tile worth decoding, in latents.
const SMALLEST_TILE: usize = 16;
/// The number that the sides of tiles are multiples of, in latents.
const STEP_OF_TILES: usize = 8;

impl ExecutionPlan {
    /// Chooses what is given up where the memory is to be kept within a budget.
    ///
    /// # Errors
    /// [`Error::Input`] naming the part that does not fit in any way, and what it needs.
    pub(super) fn keep_within(&mut self, budget: u64, request: &RunPlan, sources: &ModelSources) -> Result<()> {
        if !self.openings().iter().all(|opening| self.can_be_cached(opening.kind)) {
            return Err(Error::input(
                "device.memory_budget",
                "is kept to by graphs that are optimized ahead for the CPU, and not all of this pipeline's are",
                "leave the key out; or leave out LoRAs, textual inversions and other providers than cpu, and set optimize = \
                 true",
            ));
        }
        let mut remarks = Vec::new();
        for opening in self.openings() {
            let kind = opening.kind;
            let unknown =
                sources.footprint(opening.graph, &opening.passes, &self.axes(&opening))?.map_or(0, |told| told.unknown);
            if unknown > 0 {
                remarks.push(format!(
                    "the sizes of {unknown} tensors of {} aren't known before it runs, and device.memory_budget is kept without them",
                    opening.name()
                ));
            }
            let is_decoder = self.model.decoder.as_ref().is_some_and(|part| part.kind == kind);
            if is_decoder || kind == self.model.denoiser.kind {
                continue;
            }
            self.require(&opening, budget, self.needed(&opening, 1, sources)?, sources)?;
        }
        self.remarks.extend(remarks);
        let denoises_alone = self.denoises_alone(budget, self.step_stacks(request)?, sources)?;
        self.memory_budget = Some(MemoryBudget { denoises_alone, ..MemoryBudget::default() });
        self.fit_decoder(budget, sources)
    }

    /// Returns the sides in latents of tiles to try in turn if no memory is left to decode the whole image, or tiles of the side
    /// `known`: half of that again and again. None if the request chooses how it is decoded, or the decoder's size is fixed.
    pub fn smaller_decode_tiles(&self, known: Option<usize>) -> Vec<usize> {
        let [_, height, width] = self.model.sample_shape(self.sizes.width, self.sizes.height);
        let is_open = self.sizes.decode_tile == DecodeTile::IfNeeded && self.decoding_tiles().is_none();
        let longest = if is_open && self.decodes_any_size() { known.unwrap_or(height.max(width)) } else { 0 };
        let half = |side: &usize| Some((side / 2).next_multiple_of(STEP_OF_TILES)).filter(|half| half < side);
        let sides = std::iter::successors(Some(longest), half).skip(1);
        sides.take_while(|side| *side >= SMALLEST_TILE).collect()
    }

    /// True if the decoder's height and width are free.
    fn decodes_any_size(&self) -> bool {
        let sides = |part: &Part<VaeDecoderSignature>| {
            part.signature.latent.shape.iter().skip(2).all(|dim| dim.fixed().is_none())
        };
        self.model.decoder.as_ref().is_some_and(sides)
    }

    /// Requires a cache for optimized graphs where the memory is kept within a budget.
    ///
    /// # Errors
    /// [`Error::Input`] if there is none.
    pub fn require_cache(&self) -> Result<()> {
        match self.memory_budget.is_some() && self.graph_cache.is_none() {
            false => Ok(()),
            true => Err(Error::input(
                "device.memory_budget",
                "is kept to by graphs that are optimized ahead, and there is no cache to keep them in",
                "leave the key out, or unset LDM_ORT_OPTIMIZE (in a program, give the plan a cache)",
            )),
        }
    }

    /// True if only one run of the denoiser fits at a time.
    fn denoises_alone(&self, budget: u64, step_stacks: u64, sources: &ModelSources) -> Result<bool> {
        let mut beside = self.model.controls.iter().map(|control| control.part.graph.weight_bytes).sum::<u64>();
        beside = beside.saturating_add(step_stacks);
        if let Some(part) = self.model.preview_decoder() {
            beside = beside.saturating_add(self.needed_beside(&self.opening(part), 1, sources)?);
        }
        let need = |callers| {
            let need = self.needed(&self.opening(&self.model.denoiser), callers, sources)?;
            // What ONNX Runtime holds for the whole graph it holds while the shallow layers run, too.
            let shallow = self.shallow_opening().map(|shallow| self.needed_beside(&shallow, callers, sources));
            Ok::<_, Error>(need.saturating_add(shallow.transpose()?.unwrap_or(0)).saturating_add(beside))
        };
        if need(self.callers() as u64)? <= budget {
            return Ok(false);
        }
        self.require(&self.opening(&self.model.denoiser), budget, need(1)?, sources)?;
        Ok(true)
    }

    /// Bytes that a denoising loop on the device holds of all steps: noise if the scheduler draws any, and the latents that
    /// a mask preserves; the larger part of them twice while it is copied.
    fn step_stacks(&self, request: &RunPlan) -> Result<u64> {
        if self.device.denoising_loop != DenoisingLoop::Device {
            return Ok(0);
        }
        let [channels, height, width] = self.model.sample_shape(request.width, request.height);
        let build = || request.scheduler.build(&request.schedule(1));
        let scheduler = build()?;
        let span = request.scheduler.span(scheduler.as_ref(), request.denoising_start, request.denoising_end)?;
        let outputs = self.model.model.denoiser.out_channels.map_or(1, |outputs| (outputs / channels.max(1)).max(1));
        let steps = span.len() as u64;
        let Some(found) = LinearSteps::find(build, span, outputs)? else { return Ok(0) };
        let is_masked = request.task.images().iter().any(|(key, _)| *key == "mask");
        let stacks = u64::from(found.draws_noise) + u64::from(is_masked);
        let stack = steps * (request.batch * channels * height * width * size_of::<f32>()) as u64;
        Ok(if stacks > 0 { stack.saturating_mul(stacks + 1) } else { 0 })
    }

    /// Leaves in `memory_budget` what the decoder needs given up.
    fn fit_decoder(&mut self, budget: u64, sources: &ModelSources) -> Result<()> {
        let (Some(part), sizes) = (&self.model.decoder, self.sizes) else { return Ok(()) };
        let is_free = self.decodes_any_size();
        let [_, height, width] = self.model.sample_shape(sizes.width, sizes.height);
        let longest = if is_free && sizes.tiles.is_none() && sizes.decode_tile == DecodeTile::IfNeeded {
            height.max(width)
        } else {
            0
        };
        let sizes = (SMALLEST_TILE..longest).rev().filter(|size| size % STEP_OF_TILES == 0);
        let mut tiles: Vec<Tiles> = sizes.map(Tiles::of_decoder).collect();
        // Those first that repeat the least where they overlap; of equal ones the largest, as it was.
        tiles.sort_by_key(|tiles| tiles.area(height, width));
        let tiles = tiles.into_iter().map(|tiles| (true, Some(tiles)));
        let mut least = u64::MAX;
        for (decodes_plainly, tiles) in [(false, None), (true, None)].into_iter().chain(tiles) {
            let memory_budget = self.memory_budget.get_or_insert_default();
            (memory_budget.decodes_plainly, memory_budget.tiles) = (decodes_plainly, tiles);
            let Some(part) = &self.model.decoder else { return Ok(()) };
            let need = self.needed(&self.opening(part), 1, sources)?;
            if need <= budget {
                return Ok(());
            }
            least = least.min(need);
        }
        self.require(&self.opening(part), budget, least, sources)
    }

    /// About what the process holds while a graph runs, in bytes, private and mapped, without tensors whose size isn't known.
    fn needed(&self, opening: &Opening<'_>, callers: u64, sources: &ModelSources) -> Result<u64> {
        Ok(self.needed_beside(opening, callers, sources)?.saturating_add(BESIDE))
    }

    /// The same for a graph beside another.
    fn needed_beside(&self, opening: &Opening<'_>, callers: u64, sources: &ModelSources) -> Result<u64> {
        let told = sources.footprint(opening.graph, &opening.passes, &self.axes(opening))?;
        let told = told.unwrap_or(Footprint { weights: opening.weight_bytes, ..Footprint::default() });
        let [times, of] = OF_ACTIVATIONS;
        let of_a_run = told.activations.saturating_mul(times) / of;
        Ok(told.weights.saturating_add(of_a_run.saturating_add(OF_A_RUN).saturating_mul(callers)))
    }

    fn require(&self, opening: &Opening<'_>, budget: u64, need: u64, sources: &ModelSources) -> Result<()> {
        if need <= budget {
            return Ok(());
        }
        let told = sources.footprint(opening.graph, &opening.passes, &self.axes(opening))?;
        let weights = told.map_or(opening.weight_bytes, |told| told.weights);
        Err(Error::input(
            "device.memory_budget",
            format!(
                "{} needs about {:.2} GB, {:.2} of it weights, and {:.2} GB are allowed",
                opening.kind,
                gb(need),
                gb(weights),
                gb(budget)
            ),
            "allow more, make smaller images, or store the weights in fewer bits: ldm-ort quantize",
        ))
    }
}

fn gb(bytes: u64) -> f64 {
    bytes as f64 / 1e9
}
