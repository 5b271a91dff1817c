//! What a run takes of the machine's memory, for `--memory`.

use indicatif::HumanBytes;

use super::output;
use crate::bundle::ComponentKind;
use crate::error::{Error, Result};
use crate::memory::Held;
use crate::pipeline::Event;

/// Watches a run's memory.
pub(super) struct Watch {
    rows: Vec<String>,
    phase: Option<&'static str>,
    opening: Option<(Held, u64)>,
    peak: u64,
}

impl Watch {
    /// # Errors
    /// [`Error::Input`] where the system does not tell what a process holds.
    pub(super) fn new() -> Result<Self> {
        match Held::now() {
            Some(_) => Ok(Self { rows: Vec::new(), phase: None, opening: None, peak: 0 }),
            None => Err(Error::input(
                "--memory",
                "this system does not tell what a process holds; Linux does, in /proc/self/status",
                "leave the flag out",
            )),
        }
    }

    pub(super) fn notice(&mut self, event: &Event<'_>) {
        match event {
            Event::Opening { weight_bytes, .. } => self.opening = Held::now().map(|held| (held, *weight_bytes)),
            Event::Opened { component, .. } => self.opened(*component),
            Event::Preparing { .. } => self.begin("preparing"),
            Event::Denoising { .. } => self.begin("denoising"),
            Event::Decoding { .. } => self.begin("decoding"),
            Event::Picture(_) => self.end(),
            _ => {}
        }
    }

    fn opened(&mut self, component: ComponentKind) {
        let Some(((before, weights), now)) = self.opening.take().zip(Held::now()) else { return };
        self.row(
            &format!("open {component}"),
            Some(weights),
            now.private.saturating_sub(before.private),
            now.mapped.saturating_sub(before.mapped),
        );
    }

    fn begin(&mut self, phase: &'static str) {
        self.end();
        Held::forget_peak();
        self.phase = Some(phase);
    }

    fn end(&mut self) {
        let Some((phase, held)) = self.phase.take().zip(Held::now()) else { return };
        self.row(phase, None, held.private, held.mapped);
    }

    fn row(&mut self, what: &str, weights: Option<u64>, private: u64, mapped: u64) {
        let peak = Held::now().map_or(0, |held| held.peak);
        self.peak = self.peak.max(peak);
        let shown = |bytes: u64| HumanBytes(bytes).to_string();
        let weights = weights.map(shown).unwrap_or_default();
        let row = format!("{what:<22} {weights:>11} {:>11} {:>11} {:>11}", shown(private), shown(mapped), shown(peak));
        self.rows.push(row);
    }

    /// Prints what was seen: of each graph opened the weights and what opening it added, of each phase what the process
    /// held at its end and the most that it held.
    pub(super) fn print(mut self) {
        self.end();
        let head = format!("{:<22} {:>11} {:>11} {:>11} {:>11}", "memory", "weights", "private", "mapped", "peak");
        output::say(&head);
        self.rows.iter().for_each(|row| output::say(row));
        output::say(&format!("at most {} private and mapped together", HumanBytes(self.peak)));
    }
}
