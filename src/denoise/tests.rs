//! The loop with a model that answers by a formula.

use super::*;
use crate::rng::Stream;
use crate::scheduler::{self, Config, ScheduleRequest};

/// Answers with noise of its own, and with a variance behind each image's where it is to.
struct Model {
    images: usize,
    with_variance: bool,
}

impl Denoiser for Model {
    fn predict(&mut self, sample: &[f32], _: Call, prediction: &mut [f32]) -> Result<()> {
        let size = sample.len() / self.images;
        let room = prediction.chunks_mut(prediction.len() / self.images);
        for (x, out) in sample.chunks(size).zip(room) {
            for (at, out) in out.iter_mut().enumerate() {
                *out = if at < size { (3.0 * x[at]).sin() } else { 0.5 };
            }
        }
        Ok(())
    }

    fn outputs_per_input(&self) -> usize {
        if self.with_variance { 2 } else { 1 }
    }

    fn evaluations(&self) -> usize {
        0
    }
}

/// Requests every predicted original sample, or none.
struct X0Recorder(Option<Vec<ArrayD<f32>>>);

impl StepWatcher for X0Recorder {
    fn wants_x0(&mut self, _: usize, _: usize, _: usize) -> bool {
        self.0.is_some()
    }

    fn observe(&mut self, step: Step<'_>) -> Result<()> {
        if let (Some(seen), Some(x0)) = (&mut self.0, step.x0) {
            seen.push(x0.to_owned());
        }
        Ok(())
    }
}

fn run(seeds: &[u64], with_variance: bool, watch: &mut X0Recorder, unmasked: Option<&UnmaskedLatents>) -> ArrayD<f32> {
    let variance = if with_variance { "learned_range" } else { "fixed_small" };
    let table: Config = [("variance_type", variance.into()), ("clip_sample", false.into())]
        .map(|(key, value): (&str, serde_json::Value)| (key.to_owned(), value))
        .into_iter()
        .collect();
    let mut scheduler =
        scheduler::build("ddpm", None, &table, &ScheduleRequest::new(4, seeds.len())).expect("it is built");
    let mut sample = ArrayD::from_shape_fn(IxDyn(&[seeds.len(), 2, 2, 3]), |at| {
        (seeds[at[0]] as f32 + (at[1] * 6 + at[2] * 3 + at[3]) as f32 * 0.37).cos()
    });
    let mut noise = BatchNoise::new(Stream::default(), seeds);
    let mut model = Model { images: seeds.len(), with_variance };
    denoise(&mut model, scheduler.as_mut(), &mut sample, 0..4, unmasked, &mut noise, watch).expect("it runs");
    sample
}

/// The predicted original sample of each image in a batch is that of the image alone, with and without variances after
/// each prediction. Requesting it does not change the run.
#[test]
fn x0_of_each_image_is_independent_and_changes_nothing() {
    for with_variance in [false, true] {
        let mut both = X0Recorder(Some(Vec::new()));
        let samples = run(&[7, 8], with_variance, &mut both, None);
        assert_eq!(samples, run(&[7, 8], with_variance, &mut X0Recorder(None), None));
        let both = both.0.unwrap_or_default();
        assert_eq!(both.len(), 4);
        for (row, seed) in [7, 8].into_iter().enumerate() {
            let mut alone = X0Recorder(Some(Vec::new()));
            run(&[seed], with_variance, &mut alone, None);
            for (both, alone) in both.iter().zip(alone.0.unwrap_or_default()) {
                assert_eq!(both.index_axis(ndarray::Axis(0), row), alone.index_axis(ndarray::Axis(0), 0));
            }
        }
    }
}

/// The predicted original samples contain the unmasked latents.
#[test]
fn x0_contains_the_unmasked_latents() {
    let shape = IxDyn(&[1, 2, 2, 3]);
    let mask = ArrayD::from_shape_fn(shape.clone(), |at| if at[3] == 0 { 0.0 } else { 1.0 });
    let unmasked =
        UnmaskedLatents { latents: ArrayD::from_elem(shape.clone(), 0.25), noise: ArrayD::zeros(shape), mask };
    let mut seen = X0Recorder(Some(Vec::new()));
    let sample = run(&[7], false, &mut seen, Some(&unmasked));
    assert_eq!(sample, run(&[7], false, &mut X0Recorder(None), Some(&unmasked)));
    for x0 in seen.0.unwrap_or_default() {
        assert!(x0.index_axis(ndarray::Axis(3), 0).iter().all(|v| *v == 0.25));
        assert!(x0.index_axis(ndarray::Axis(3), 1).iter().any(|v| *v != 0.25));
    }
}
