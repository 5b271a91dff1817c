//! torch's CUDA generator.

use super::{Generator, Gpu, fused};
use crate::elementary::{cos, ln, sin};

/// `torch.Generator("cuda").manual_seed(seed)` with `torch.randn` in float32: AUTOMATIC1111's noise on an NVIDIA GPU
/// (`NV` if it is computed on the CPU).
///
/// Philox4x32-10 with the 64-bit seed as its key. Thread i computes value i of a draw: the first normal value of its
/// block of four, whose counter holds the number of earlier draws and i. In a draw of more values than the GPU has
/// resident threads, thread i also computes values i + threads, i + 2 threads and i + 3 threads from the same block,
/// then continues with the next block. The noise of such a draw depends on the GPU model. Smaller draws, which include
/// images up to a megapixel on all but small GPUs, do not. Without a [`Gpu`] no draw is too large.
///
/// In half precision torch draws the same values and rounds them.
///
/// Verified against published values of torch on a GPU, not on a GPU: the order of values in larger draws and in
/// consecutive draws follows torch's source, and a GPU's sine and logarithm differ from the CPU's by about 1e-6.
///
/// ```
/// use ldm_ort::rng::{Generator, TorchCuda};
///
/// let mut noise = [0.0; 12];
/// TorchCuda::new(0, None).normal(&mut noise);
/// assert!((noise[0] - -0.92466259).abs() < 2e-6);
/// assert!((noise[11] - 2.26550497).abs() < 2e-6);
/// ```
///
/// Source: `aten/src/ATen/native/cuda/DistributionTemplates.h` of PyTorch 2.8, `curand_normal4` of cuRAND; Salmon et
/// al. 2011, "Parallel Random Numbers: As Easy as 1, 2, 3".
#[derive(Debug, Clone)]
pub struct TorchCuda {
    key: [u32; 2],
    /// Blocks of four that each thread has consumed.
    used: u64,
    gpu: Option<Gpu>,
}

/// Normal values per block, the number that one thread computes per counter value.
const BLOCK: usize = 4;

impl TorchCuda {
    /// Creates the generator of `manual_seed(seed)` on `gpu`, or on one with enough threads for every draw.
    pub fn new(seed: u64, gpu: Option<Gpu>) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], used: 0, gpu }
    }
}

impl Generator for TorchCuda {
    fn normal(&mut self, out: &mut [f32]) {
        let threads = self.gpu.map_or(out.len(), |gpu| gpu.threads() as usize).max(1);
        for (round, part) in out.chunks_mut(threads).enumerate() {
            let block = self.used + (round / BLOCK) as u64;
            for (thread, value) in part.iter_mut().enumerate() {
                let thread = thread as u64;
                let counter = [block as u32, (block >> 32) as u32, thread as u32, (thread >> 32) as u32];
                *value = normal(philox4x32_10(counter, self.key), round % BLOCK);
            }
        }
        self.used += out.len().div_ceil(threads * BLOCK) as u64;
    }
}

/// Returns value `index` of the four normal values that the Box-Muller transform computes from four words.
fn normal(words: [u32; 4], index: usize) -> f32 {
    const UNIT: f32 = 1.0 / 4_294_967_296.0;
    const TURN: f32 = UNIT * std::f32::consts::TAU;
    let [a, b, c, d] = words;
    let (x, y) = if index < 2 { (a, b) } else { (c, d) };
    let u = fused(x as f32, UNIT, UNIT / 2.0);
    let angle = f64::from(fused(y as f32, TURN, TURN / 2.0));
    let radius = (-2.0 * ln(f64::from(u)) as f32).sqrt();
    radius * if index.is_multiple_of(2) { sin(angle) } else { cos(angle) } as f32
}

/// Computes the four words of Philox4x32-10 at a counter (Salmon et al. 2011, section 4.3).
fn philox4x32_10(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..10 {
        let a = u64::from(counter[0]) * 0xd251_1f53;
        let b = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [(b >> 32) as u32 ^ counter[1] ^ key[0], b as u32, (a >> 32) as u32 ^ counter[3] ^ key[1], a as u32];
        key = [key[0].wrapping_add(0x9e37_79b9), key[1].wrapping_add(0xbb67_ae85)];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known-answer tests of Random123, the authors' implementation.
    #[test]
    fn philox_equals_random123() {
        let known = [
            ([0; 4], [0; 2], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (counter, key, words) in known {
            assert_eq!(philox4x32_10(counter, key), words);
        }
    }

    fn draw(generator: &mut TorchCuda, n: usize) -> Vec<f32> {
        let mut out = vec![0.0; n];
        generator.normal(&mut out);
        out
    }

    /// torch's values on a GPU, published with AUTOMATIC1111's emulation.
    #[test]
    fn draws_what_torch_draws_on_a_gpu() {
        let want: [f64; 12] = [
            -0.92466259,
            -0.42534415,
            -2.6438457,
            0.14518388,
            -0.12086647,
            -0.57972564,
            -0.62285122,
            -0.32838709,
            -1.07454231,
            -0.36314407,
            -1.67105067,
            2.26550497,
        ];
        for gpu in [None, Gpu::by_name("A100")] {
            let got = draw(&mut TorchCuda::new(0, gpu), 12);
            let difference = got.iter().zip(want).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
            assert!(difference < 2e-6, "{difference:e}: {got:?}");
        }
    }

    /// The words of a value identify its thread and block; all are recomputed here.
    #[test]
    fn a_draw_larger_than_the_gpu_wraps_around() {
        let gpu = Gpu::with_threads(256);
        let key = [7, 1];
        let at = |block, thread, index| normal(philox4x32_10([block, 0, thread, 0], key), index);
        let mut generator = TorchCuda::new(7 + (1 << 32), gpu);
        let first = draw(&mut generator, 256 * 6 + 3);
        assert_eq!(first[5], at(0, 5, 0));
        assert_eq!(first[256 + 5], at(0, 5, 1));
        assert_eq!(first[3 * 256 + 255], at(0, 255, 3));
        assert_eq!(first[4 * 256], at(1, 0, 0));
        assert_eq!(first[6 * 256 + 2], at(1, 2, 2));
        let second = draw(&mut generator, 1024);
        assert_eq!(second[1], at(2, 1, 0));
        assert_eq!(second[1023], at(2, 255, 3));
        let third = draw(&mut generator, 9);
        assert_eq!(third[8], at(3, 8, 0));
        draw(&mut generator, 0);
        assert_eq!(draw(&mut generator, 1)[0], at(4, 0, 0));
    }

    #[test]
    fn the_gpu_does_not_matter_below_its_threads() {
        let n = 4 * 64 * 64;
        let any = draw(&mut TorchCuda::new(42, None), n);
        for name in Gpu::names() {
            assert_eq!(draw(&mut TorchCuda::new(42, Gpu::by_name(name)), n), any, "{name}");
        }
    }
}
