//! The time left of a run.

use std::time::Instant;

/// Estimates the time left from the steps done so far, over all images, stages and requests.
pub(super) struct Remaining {
    started: Instant,
    stages: Vec<StageWork>,
    /// The index of the stage at work.
    stage: usize,
    /// The images of a request.
    images: usize,
    /// The requests after the one at work.
    requests_left: usize,
    /// The images finished in this request.
    finished: usize,
    /// The images finished in all requests.
    all_finished: usize,
}

/// The steps of one stage.
#[derive(Default, Clone)]
struct StageWork {
    /// Steps per image; 0 until the stage begins.
    steps: usize,
    /// Image-steps done in this request.
    done: usize,
    /// Image-steps done in all requests, and their seconds.
    all_done: usize,
    seconds: f64,
}

impl Remaining {
    /// Starts the clock.
    pub(super) fn new() -> Self {
        Self {
            started: Instant::now(),
            stages: vec![StageWork::default()],
            stage: 0,
            images: 1,
            requests_left: 0,
            finished: 0,
            all_finished: 0,
        }
    }

    /// Begins a request, after which `left` more follow.
    pub(super) fn begin_request(&mut self, left: usize) {
        if self.all_finished == 0 {
            self.started = Instant::now();
        }
        (self.requests_left, self.finished) = (left, 0);
        self.stages.iter_mut().for_each(|stage| stage.done = 0);
    }

    /// Turns to a stage, counted from 1.
    pub(super) fn begin_stage(&mut self, number: usize, total: usize) {
        self.stages.resize(total.max(number).max(1), StageWork::default());
        self.stage = number.saturating_sub(1);
    }

    /// Counts a step of `images` images, one of `steps`, in a request of `total` images.
    pub(super) fn step(&mut self, images: usize, total: usize, steps: usize, seconds: f64) {
        self.images = total;
        if let Some(stage) = self.stages.get_mut(self.stage) {
            stage.steps = steps;
            stage.done += images;
            stage.all_done += images;
            stage.seconds += seconds;
        }
    }

    /// Counts a finished image.
    pub(super) fn finish_image(&mut self) {
        self.finished += 1;
        self.all_finished += 1;
    }

    /// Returns the seconds left of the whole run; `None` before the first step.
    pub(super) fn seconds(&self) -> Option<f64> {
        self.seconds_after(self.started.elapsed().as_secs_f64())
    }

    /// The same after so many seconds.
    fn seconds_after(&self, elapsed: f64) -> Option<f64> {
        let done: usize = self.stages.iter().map(|stage| stage.all_done).sum();
        if done == 0 {
            return None;
        }
        let denoising: f64 = self.stages.iter().map(|stage| stage.seconds).sum();
        let mean_rate = denoising / done as f64;
        // A stage that has not begun is assumed to take the longest stage's steps at the mean rate.
        let most_steps = self.stages.iter().map(|stage| stage.steps).max().unwrap_or(0);
        let (mut left, mut request) = (0.0, 0.0);
        for stage in &self.stages {
            let steps = if stage.steps == 0 { most_steps } else { stage.steps };
            let rate = if stage.all_done == 0 { mean_rate } else { stage.seconds / stage.all_done as f64 };
            let whole = steps * self.images;
            left += whole.saturating_sub(stage.done) as f64 * rate;
            request += whole as f64 * rate;
        }
        // Prompts, decoding and writing, once an image has shown what they take.
        let overhead = match self.all_finished {
            0 => 0.0,
            finished => (elapsed - denoising).max(0.0) / finished as f64,
        };
        left += self.images.saturating_sub(self.finished) as f64 * overhead;
        request += self.images as f64 * overhead;
        Some(left + self.requests_left as f64 * request)
    }
}

/// Formats a rate of steps: `12.3 steps/s`, or `1.2 s/step` if a step takes a second or more.
pub(super) fn rate(seconds_per_step: f64) -> String {
    if seconds_per_step >= 1.0 {
        format!("{seconds_per_step:.1} s/step")
    } else if seconds_per_step > 0.0 {
        let rate = 1.0 / seconds_per_step;
        if rate < 100.0 { format!("{rate:.1} steps/s") } else { format!("{rate:.0} steps/s") }
    } else {
        String::new()
    }
}

/// Formats a duration: `8 s`, `3 min 05 s`, `2 h 07 min`.
pub(super) fn duration(seconds: f64) -> String {
    // A float converts to the nearest integer that there is.
    let seconds = seconds.round() as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        assert_eq!(rate(1.0 / 49.7585), "49.8 steps/s");
        assert_eq!(rate(0.001), "1000 steps/s");
        assert_eq!(rate(1.23), "1.2 s/step");
        assert_eq!(duration(7.6), "8 s");
        assert_eq!(duration(185.0), "3 min 05 s");
        assert_eq!(duration(7620.0), "2 h 07 min");
    }

    #[test]
    fn the_whole_run_is_counted() {
        let mut remaining = Remaining::new();
        assert_eq!(remaining.seconds_after(5.0), None);
        remaining.begin_request(1);
        remaining.begin_stage(1, 2);
        // 2 of 10 steps of one of 3 images, 1 s each; the second stage is assumed to take as many.
        remaining.step(1, 3, 10, 1.0);
        remaining.step(1, 3, 10, 1.0);
        assert_eq!(remaining.seconds_after(2.0), Some(58.0 + 60.0));
        // The second stage turns out to have 4 steps of 2 s.
        remaining.begin_stage(2, 2);
        remaining.step(1, 3, 4, 2.0);
        assert_eq!(remaining.seconds_after(4.0), Some((28.0 + 22.0) + (30.0 + 24.0)));
        // An image is finished, and took 6 s beside its steps.
        remaining.finish_image();
        assert_eq!(remaining.seconds_after(10.0), Some((28.0 + 22.0 + 12.0) + (30.0 + 24.0 + 18.0)));
        remaining.begin_request(0);
        assert_eq!(remaining.seconds_after(10.0), Some(30.0 + 24.0 + 18.0));
    }
}
