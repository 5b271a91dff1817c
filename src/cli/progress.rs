//! The progress of loading and running a pipeline: bars on a terminal, a few lines elsewhere.

use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::output;
use super::preview::Terminal;
use super::remaining::{self, Remaining};
use crate::engine::Event;
use crate::execution::VerificationOutcome;
use crate::guard::contain;
use crate::session::FetchEvent;
use crate::threads;

/// Draws progress on standard error.
pub struct Progress {
    /// The bars, drawn one at a time.
    bars: MultiProgress,
    bar: ProgressBar,
    quiet: bool,
    /// The number of the stage at work, as it ends a message.
    stage: String,
    /// The terminal that shows previews.
    terminal: Option<Terminal>,
    remaining: Remaining,
    /// Seconds and number of the batch's steps after the first, which may warm up.
    pace: (f64, usize),
}

impl Progress {
    /// `quiet` keeps bars away; warnings are shown all the same. Where standard error is no terminal, there are no
    /// bars either.
    pub fn new(quiet: bool) -> Self {
        let (bars, bar) = (MultiProgress::new(), ProgressBar::hidden());
        let terminal = Terminal::find().filter(|_| !quiet);
        let (stage, remaining, pace) = (String::new(), Remaining::new(), (0.0, 0));
        Self { bars, bar, quiet, stage, terminal, remaining, pace }
    }

    /// Begins a request, after which `left` more follow.
    pub fn begin_request(&mut self, left: usize) {
        self.remaining.begin_request(left);
    }

    /// Returns the bars, for other threads to print around, so that no line runs into one.
    pub fn bars(&self) -> MultiProgress {
        self.bars.clone()
    }

    /// Shows a spinner with `message`, in place of the bar before it.
    pub fn spin(&mut self, message: String) {
        self.replace(ProgressBar::new_spinner(), "{spinner} {msg} {elapsed}", message);
        self.tick();
    }

    /// Shows how many of so many bytes are done, under `message`.
    pub fn bytes(&mut self, message: &str, done: u64, of: u64) {
        if self.bar.message() != message {
            self.replace(
                ProgressBar::new(of),
                "{spinner} {msg} {bar:30} {bytes} of {total_bytes} {elapsed}",
                message.to_owned(),
            );
        }
        self.bar.set_position(done.min(of));
    }

    /// Has the bar drawn again and again. Where the thread for that can't be started, it is drawn when something happens.
    fn tick(&mut self) {
        // The bar panics without a thread, and is of no use from then on.
        let can_start = || threads::spawn("probe", || ()).is_ok();
        if !self.bar.is_hidden()
            && can_start()
            && contain(|| self.bar.enable_steady_tick(Duration::from_millis(120))).is_err()
        {
            self.bar = ProgressBar::hidden();
        }
    }

    /// Takes the bar away.
    pub fn clear(&mut self) {
        self.bar.finish_and_clear();
        self.bar = ProgressBar::hidden();
    }

    fn replace(&mut self, bar: ProgressBar, template: &str, message: String) {
        self.bar.finish_and_clear();
        if self.quiet {
            return;
        }
        let bar = self.bars.add(bar);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style.progress_chars("━╸ "));
        }
        bar.set_message(output::visible(&message).into_owned());
        self.bar = bar;
    }

    fn line(&mut self, text: &str) {
        self.bars.suspend(|| output::say(text));
        self.terminal.iter_mut().for_each(Terminal::moved_on);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

impl Progress {
    /// Shows an event.
    pub fn notice(&mut self, event: Event) {
        match event {
            Event::Fetch { progress } => self.fetch(&progress),
            Event::Stage { key, number, total } => {
                self.stage = format!(" · {key} ({number} of {total})");
                self.remaining.begin_stage(number, total);
            }
            Event::Opening { component, weight_bytes, opened_bytes, total_bytes } => {
                self.opening(&component, weight_bytes, opened_bytes, total_bytes);
            }
            Event::Optimizing { component, bytes, folder } => {
                let bytes = indicatif::HumanBytes(bytes);
                self.note(&format!(
                    "optimizing {component} for this machine, once: about {bytes} into {}",
                    folder.display()
                ));
                self.bar.set_message(format!("optimizing {component}, once"));
            }
            Event::Measuring { component } => {
                self.note(&format!("measuring which way of running {component} is the faster one here, once"));
                self.bar.set_message(format!("measuring {component}, once"));
            }
            Event::Verifying { component } => {
                self.spin(format!("comparing {component} with the CPU, once{}", self.stage))
            }
            Event::Verified(verification) => {
                if let VerificationOutcome::Compared { is_remembered: false, .. } = verification.outcome {
                    self.note(&verification.to_line());
                }
            }
            Event::WaitingForOptimized { component } => {
                self.bar.set_message(format!("waiting for another process that optimizes {component}"));
            }
            Event::Warning { text } => self.line(&format!("warning: {text}")),
            Event::Preparing { image, images, total } => {
                self.spin(format!("preparing {}{}", image_range(image, images, total), self.stage));
            }
            Event::Step { image, images, total, step, steps, seconds, .. } => {
                self.step((image, images, total), (step, steps), seconds);
            }
            Event::Decoding { image, total } => {
                self.spin(format!("decoding {}{}", image_range(image, 1, total), self.stage));
            }
            Event::Preview { width, height, rgb, .. } => {
                let Self { bar, terminal, .. } = self;
                if let Some(terminal) = terminal {
                    bar.suspend(|| terminal.show(width, height, rgb));
                }
            }
            Event::Image(image) => {
                if image.is_final() {
                    self.remaining.finish_image();
                }
                self.clear();
                self.terminal.iter_mut().for_each(Terminal::moved_on);
            }
            Event::Loading { .. } | Event::Denoising { .. } | Event::Done { .. } => {}
        }
    }

    fn opening(&mut self, component: &str, weight_bytes: u64, opened_bytes: u64, total_bytes: u64) {
        if opened_bytes == 0 {
            let template = "{spinner} {msg} {bar:30} {bytes} of {total_bytes} {elapsed}";
            self.replace(ProgressBar::new(total_bytes), template, String::new());
            self.tick();
        }
        let bytes = indicatif::HumanBytes(weight_bytes);
        self.bar.set_message(format!("opening {component} ({bytes}){}", self.stage));
        self.bar.set_position(opened_bytes);
    }

    /// Shows a step, with the pace of the batch and the time left of the run.
    fn step(&mut self, (image, images, total): (usize, usize, usize), (step, steps): (usize, usize), seconds: f64) {
        if step == 1 {
            let template = "{msg} {bar:30} {pos}/{len} steps · {prefix}";
            self.replace(ProgressBar::new(steps as u64), template, image_range(image, images, total) + &self.stage);
        }
        self.remaining.step(images, total, steps, seconds);
        self.pace = match step {
            1 | 2 => (seconds, 1),
            _ => (self.pace.0 + seconds, self.pace.1 + 1),
        };
        let rate = remaining::rate(self.pace.0 / self.pace.1 as f64);
        let left = self.remaining.seconds().map_or_else(String::new, remaining::duration);
        self.bar.set_prefix(format!("{rate} · {left} left"));
        self.bar.set_position(step as u64);
    }

    /// Shows what is fetched.
    fn fetch(&mut self, progress: &FetchEvent) {
        match progress {
            FetchEvent::Waiting { folder } => {
                let folder = folder.display();
                self.note(&format!("waiting for another process that fetches ONNX Runtime into {folder}"));
            }
            FetchEvent::Begin { file, host, bytes, folder } => {
                let (megabytes, folder) = (*bytes as f64 / 1e6, folder.display());
                self.note(&format!("fetching ONNX Runtime: {file} ({megabytes:.1} MB) from {host} into {folder}"));
            }
            FetchEvent::Progress { done, total } => self.bytes("fetching ONNX Runtime", *done, *total),
            FetchEvent::Done { .. } => self.clear(),
        }
    }

    /// Prints a line unless the user asked for quiet.
    fn note(&mut self, text: &str) {
        if !self.quiet {
            self.line(text);
        }
    }
}

fn image_range(first: usize, images: usize, of: usize) -> String {
    match (images, of) {
        (_, 1) => "image".to_owned(),
        (1, _) => format!("image {} of {of}", first + 1),
        _ => format!("images {} to {} of {of}", first + 1, first + images),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_are_counted_from_one() {
        assert_eq!(image_range(2, 1, 5), "image 3 of 5");
        assert_eq!(image_range(0, 4, 8), "images 1 to 4 of 8");
    }
}
