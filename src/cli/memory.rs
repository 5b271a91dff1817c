//! The memory that a run uses, for `--memory`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use indicatif::HumanBytes;

use super::output;
use crate::engine::Event;
use crate::error::{Error, Result};
use crate::memory::MemoryUse;
use crate::threads;

/// Watches a run's memory.
pub(super) struct Watch {
    rows: Vec<String>,
    phase: Option<&'static str>,
    opening: Option<(MemoryUse, u64)>,
    peak: u64,
    most: Arc<Most>,
}

/// The most that the process was seen to hold since a phase began.
#[derive(Default)]
struct Most {
    private: AtomicU64,
    mapped: AtomicU64,
    is_over: AtomicBool,
}

impl Most {
    /// Looks fifty times a second, from a thread of its own, until it is over.
    fn watch(self: Arc<Self>) {
        const PERIOD: Duration = Duration::from_millis(20);
        while !self.is_over.load(Ordering::Relaxed) {
            self.look();
            std::thread::sleep(PERIOD);
        }
    }

    fn look(&self) {
        if let Some(held) = MemoryUse::current() {
            self.private.fetch_max(held.private, Ordering::Relaxed);
            self.mapped.fetch_max(held.mapped, Ordering::Relaxed);
        }
    }

    fn forget(&self) {
        self.private.store(0, Ordering::Relaxed);
        self.mapped.store(0, Ordering::Relaxed);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.most.is_over.store(true, Ordering::Relaxed);
    }
}

impl Watch {
    /// # Errors
    /// [`Error::Input`] if the memory use of a process is unknown on this system; [`Error::Io`] if no thread can be started.
    pub(super) fn new() -> Result<Self> {
        match MemoryUse::current() {
            Some(_) => {
                let most = Arc::new(Most::default());
                let watched = Arc::clone(&most);
                threads::spawn("memory", || watched.watch())?;
                Ok(Self { rows: Vec::new(), phase: None, opening: None, peak: 0, most })
            }
            None => Err(Error::input(
                "--memory",
                "the memory of a process is known on Linux, Windows and macOS only",
                "leave the flag out",
            )),
        }
    }

    pub(super) fn notice(&mut self, event: &Event) {
        match event {
            Event::Opening { weight_bytes, .. } => {
                self.opening = MemoryUse::current().map(|held| (held, *weight_bytes))
            }
            Event::Loading { component, .. } => self.opened(component),
            Event::Preparing { .. } => self.begin("preparing"),
            Event::Denoising { .. } => self.begin("denoising"),
            Event::Decoding { .. } => self.begin("decoding"),
            Event::Image(_) => self.end(),
            _ => {}
        }
    }

    fn opened(&mut self, component: &str) {
        let Some(((before, weights), now)) = self.opening.take().zip(MemoryUse::current()) else { return };
        self.row(
            &format!("open {component}"),
            Some(weights),
            now.private.saturating_sub(before.private),
            now.mapped.saturating_sub(before.mapped),
        );
    }

    fn begin(&mut self, phase: &'static str) {
        self.end();
        MemoryUse::reset_peak();
        self.most.forget();
        self.phase = Some(phase);
    }

    fn end(&mut self) {
        let Some(phase) = self.phase.take() else { return };
        self.most.look();
        let [private, mapped] = [&self.most.private, &self.most.mapped].map(|most| most.load(Ordering::Relaxed));
        self.row(phase, None, private, mapped);
    }

    fn row(&mut self, what: &str, weights: Option<u64>, private: u64, mapped: u64) {
        let peak = MemoryUse::current().map_or(0, |held| held.peak);
        self.peak = self.peak.max(peak);
        let shown = |bytes: u64| HumanBytes(bytes).to_string();
        let weights = weights.map(shown).unwrap_or_default();
        let row = format!("{what:<26} {weights:>11} {:>11} {:>11} {:>11}", shown(private), shown(mapped), shown(peak));
        self.rows.push(row);
    }

    /// Prints what was seen: of each graph opened the weights and what opening it added, of each phase the
    /// most that the process was seen to hold of either kind, and of both together.
    pub(super) fn print(mut self) {
        self.end();
        let head = format!("{:<26} {:>11} {:>11} {:>11} {:>11}", "memory", "weights", "private", "mapped", "peak");
        output::say(&head);
        self.rows.iter().for_each(|row| output::say(row));
        output::say(&format!("at most {} private and mapped together", HumanBytes(self.peak)));
    }
}
