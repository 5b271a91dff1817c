//! Runs a reader on mutated files, each input caught, watched and measured.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::findings::Findings;
use super::mutation::{is_well_formed, mutated};
use super::random::Random;
use super::shrinking::shrink;
use crate::allocator::{begin, peak_of};
use crate::folders::copy_folder;

/// The time that one input may take, on a machine that is busy with other work, before it counts as a hang.
const PATIENCE: Duration = Duration::from_secs(30);

/// So many inputs that hang end a run.
const MOST_HANGS: usize = 3;

/// The memory that one input may make a reader hold beyond what it holds already. An image may have 64 megapixels.
const MOST_BYTES: usize = 512 << 20;

/// A row: a reader, its valid inputs, and what is required of it.
pub struct Reader {
    pub name: &'static str,
    /// The valid inputs.
    pub seeds: Vec<Seed>,
    /// Reads the file of a seed, within its folder; an error is its message.
    pub read: fn(&Path, &Path) -> Result<(), String>,
    /// Mutated inputs of one run.
    pub inputs: u64,
    /// The least share of them whose syntax is right, so that what is behind the parser is tried.
    pub well_formed: f64,
    /// The least share of them that is accepted, so that what comes after the reader is tried.
    pub accepted: f64,
    /// True if an error names the file that was damaged.
    pub names_file: bool,
}

/// A valid file, among those that it is read with.
pub struct Seed {
    /// Copied to a folder of the run's own.
    pub folder: PathBuf,
    /// The file that is damaged, in that folder.
    pub file: PathBuf,
}

impl Seed {
    /// A file by itself.
    pub fn alone(file: PathBuf) -> Self {
        let folder = file.clone();
        Self { folder, file: PathBuf::from(file.file_name().expect("a file has a name")) }
    }

    /// A file of a folder.
    pub fn within(folder: &Path, file: &str) -> Self {
        Self { folder: folder.to_path_buf(), file: file.into() }
    }
}

/// A seed as it lies in the folder of the run.
struct Placed {
    folder: PathBuf,
    file: PathBuf,
    bytes: Vec<u8>,
}

/// The result of an input.
enum Outcome {
    Accepted,
    Refused(String),
    Panicked(String),
}

/// The state of a run, as the thread that watches it sees.
#[derive(Default)]
struct Progress {
    /// The input at hand, since when, and its bytes.
    now: Option<(u64, Instant, PathBuf, Vec<u8>)>,
    findings: Findings,
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().unwrap_or_else(PoisonError::into_inner)
}

thread_local! {
    static LAST_PANIC: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Catches where a panic came from instead of printing it.
fn quiet_panics() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            if std::thread::current().name().is_some_and(|name| name.starts_with("fuzz ")) {
                let place = info.location().map(|at| format!("{}:{}", at.file(), at.line())).unwrap_or_default();
                let text = info.payload_as_str().unwrap_or("a panic without a text");
                LAST_PANIC.with_borrow_mut(|last| *last = format!("{place}: {text}"));
            } else {
                before(info);
            }
        }));
    });
}

/// A number from the environment, for longer runs and for replaying one.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

impl Reader {
    /// Runs the reader on its mutated inputs, and fails if any of them panics, hangs, takes more memory than it may, or
    /// gets an error that does not name its file, or if too few of them get past the parser.
    ///
    /// `LDM_ORT_FUZZ_TIMES` multiplies the number of inputs, `LDM_ORT_FUZZ_SEED` makes others, `LDM_ORT_FUZZ_INPUT` runs
    /// one of them alone.
    pub fn run(self) {
        quiet_panics();
        let seed = setting("LDM_ORT_FUZZ_SEED").unwrap_or(14);
        let inputs = match setting("LDM_ORT_FUZZ_INPUT") {
            Some(input) => input..input + 1,
            None => 0..self.inputs * setting("LDM_ORT_FUZZ_TIMES").unwrap_or(1),
        };
        let name = self.name;
        let progress: Arc<Mutex<Progress>> = Arc::default();
        let this = Arc::new(self);
        let begin = |inputs: Range<u64>| {
            let thread = std::thread::Builder::new().name(format!("fuzz {name}")).stack_size(8 << 20);
            let (this, progress) = (Arc::clone(&this), Arc::clone(&progress));
            thread.spawn(move || this.work(seed, inputs, &progress)).expect("a thread starts")
        };
        let mut worker = begin(inputs.clone());
        let mut hangs = 0;
        while !worker.is_finished() {
            std::thread::sleep(Duration::from_millis(20));
            let Progress { now, findings } = &mut *lock(&progress);
            if let Some((input, _, file, bytes)) = now.take_if(|(_, since, ..)| since.elapsed() > PATIENCE) {
                findings.add(format!("is not done after {PATIENCE:?}"), "hang", input, &file, &bytes);
                hangs += 1;
                assert!(hangs < MOST_HANGS, "{name}, seed {seed}:\n{}", findings.told(name));
                // That thread cannot be ended; another one goes on behind the input.
                worker = begin(input + 1..inputs.end);
            }
        }
        let report = worker.join().unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Err(format!("{name}: the harness itself panicked: {text}"))
        });
        match report {
            Ok(report) => println!("{report}"),
            Err(report) => panic!("{report}"),
        }
    }

    fn work(&self, seed: u64, inputs: Range<u64>, progress: &Mutex<Progress>) -> Result<String, String> {
        let scratch = tempfile::tempdir().expect("a folder");
        let mut folders = BTreeMap::new();
        let seeds: Vec<_> = self.seeds.iter().map(|seed| seed.place(scratch.path(), &mut folders)).collect();
        let mut checked = BTreeSet::new();
        for placed in seeds.iter().filter(|placed| checked.insert(&placed.folder)) {
            if let Outcome::Refused(problem) | Outcome::Panicked(problem) = self.outcome(placed) {
                return Err(format!("{}: a seed is not valid: {}: {problem}", self.name, placed.file.display()));
            }
        }
        let (mut most_bytes, mut slowest) = (0, Duration::ZERO);
        let (mut well_formed, mut accepted) = (0, 0);
        let count = inputs.end - inputs.start;
        for input in inputs {
            let mut random = Random::new(seed, self.name, input);
            let placed = random.pick(&seeds);
            let other = random.pick(&seeds);
            let bytes = mutated(&mut random, &placed.file, &placed.bytes, &other.bytes);
            well_formed += u64::from(is_well_formed(&placed.file, &bytes));
            std::fs::write(&placed.file, &bytes).expect("the input is written");
            begin(self.name, input);
            let start = Instant::now();
            let file = placed.file.strip_prefix(&placed.folder).unwrap_or(&placed.file);
            lock(progress).now = Some((input, start, file.to_path_buf(), bytes.clone()));
            let (outcome, peak) = peak_of(|| self.outcome(placed));
            (most_bytes, slowest) = (most_bytes.max(peak), slowest.max(start.elapsed()));
            lock(progress).now = None;
            let add = |what, kind, bytes: &[u8]| lock(progress).findings.add(what, kind, input, file, bytes);
            if peak > MOST_BYTES {
                add(format!("holds {} MiB", peak >> 20), "memory", &bytes);
            }
            match outcome {
                Outcome::Accepted => accepted += 1,
                Outcome::Panicked(place) => add(place, "panic", &self.smaller(placed, &bytes)),
                Outcome::Refused(text) if self.names_file && !placed.is_named(&text) => {
                    add(text, "names no file", &bytes);
                }
                Outcome::Refused(_) => {}
            }
            std::fs::write(&placed.file, &placed.bytes).expect("the seed is put back");
        }
        let findings = std::mem::take(&mut lock(progress).findings);
        let share = |n: u64| n as f64 / count.max(1) as f64;
        let report = format!(
            "{:<18} {count:>6} inputs of seed {seed}: {:>3.0} % well-formed, {:>3.0} % accepted, at most {} KiB and {slowest:.1?}",
            self.name,
            100.0 * share(well_formed),
            100.0 * share(accepted),
            most_bytes >> 10,
        );
        if !findings.is_empty() {
            return Err(format!("{report}\n{}", findings.told(self.name)));
        }
        // A single input that is run again says nothing about shares.
        if count > 1 && (share(well_formed) < self.well_formed || share(accepted) < self.accepted) {
            let (well_formed, accepted) = (100.0 * self.well_formed, 100.0 * self.accepted);
            return Err(format!("{report}\ntoo few: at least {well_formed} % and {accepted} % are wanted"));
        }
        Ok(report)
    }

    fn outcome(&self, placed: &Placed) -> Outcome {
        match catch_unwind(AssertUnwindSafe(|| (self.read)(&placed.folder, &placed.file))) {
            Ok(Ok(())) => Outcome::Accepted,
            Ok(Err(text)) => Outcome::Refused(text),
            Err(_) => Outcome::Panicked(LAST_PANIC.with_borrow(Clone::clone)),
        }
    }

    /// An input that panics as this one does, made as small as leaving parts out makes it.
    fn smaller(&self, placed: &Placed, bytes: &[u8]) -> Vec<u8> {
        let panics = |bytes: &[u8]| {
            std::fs::write(&placed.file, bytes).expect("the input is written");
            matches!(self.outcome(placed), Outcome::Panicked(_))
        };
        let start = Instant::now();
        let mut best = bytes.to_vec();
        if let Ok(value) = serde_json::from_slice::<Value>(bytes) {
            let mut value = value;
            shrink(&mut value, "", start + PATIENCE / 4, &mut |value| panics(value.to_string().as_bytes()));
            best = value.to_string().into_bytes();
            return if panics(&best) { best } else { bytes.to_vec() };
        }
        let mut part = best.len() / 2;
        while part > 0 && start.elapsed() < Duration::from_secs(3) {
            let mut at = 0;
            while at < best.len() && start.elapsed() < Duration::from_secs(3) {
                let rest = [&best[..at], &best[(at + part).min(best.len())..]].concat();
                if panics(&rest) { best = rest } else { at += part }
            }
            part /= 2;
        }
        best
    }
}

impl Seed {
    /// Copies the seed's folder, or its file alone, into the folder of a run, once for all seeds of a folder.
    fn place(&self, scratch: &Path, folders: &mut BTreeMap<PathBuf, PathBuf>) -> Placed {
        let number = folders.len();
        let folder = folders.entry(self.folder.clone()).or_insert_with(|| {
            let folder = scratch.join(number.to_string());
            if self.folder.is_dir() {
                copy_folder(&self.folder, &folder);
            } else {
                std::fs::create_dir_all(&folder).expect("a folder");
                std::fs::copy(&self.folder, folder.join(&self.file)).expect("the seed is copied");
            }
            folder
        });
        let file = folder.join(&self.file);
        let bytes = std::fs::read(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        Placed { folder: folder.clone(), file, bytes }
    }
}

impl Placed {
    /// True if a message names the file.
    fn is_named(&self, message: &str) -> bool {
        let name = self.file.file_name().and_then(|name| name.to_str()).expect("the name is Unicode");
        message.contains(name) || message.contains(&self.folder.display().to_string())
    }
}
