//! `ldm-ort runtime`: the ONNX Runtime in use, the packages in the cache, and fetching one ahead of time.

use std::io::Write;

use super::args::RuntimeAction;
use super::interrupt::Interrupt;
use super::output;
use super::progress::Progress;
use crate::engine::Event;
use crate::error::Result;
use crate::session::{self, LibrarySource, RuntimeOptions, Search, Verdict, cached_builds, minimum_version};

/// Runs `ldm-ort runtime`, with results on `out` and everything else on standard error.
///
/// # Errors
/// Those of fetching, for `install`; [`Error::Runtime`](crate::Error::Runtime) where a library named outright cannot be
/// used; [`Error::Io`](crate::Error::Io) where `out` cannot be written.
pub fn run(action: Option<&RuntimeAction>, options: &RuntimeOptions, out: &mut dyn Write) -> Result<()> {
    let text = match action {
        None => {
            let search = session::search(options);
            output::text(out, &show(&search, options))?;
            // What was named outright and cannot be used is a failure also where it is only shown.
            return search.error().map_or(Ok(()), Err);
        }
        Some(RuntimeAction::List) => list(options),
        Some(RuntimeAction::Install { build }) => {
            let mut bars = Progress::new(false);
            let options = RuntimeOptions { cancel: Interrupt::install()?.cancel(), ..options.clone() };
            let installed = session::install(*build, &options, &mut |progress| {
                bars.notice(Event::Fetch { progress: progress.clone() })
            })?;
            let how = if installed.was_there { "was there already" } else { "is there" };
            let package = if build.is_plugin() { "provider library" } else { "ONNX Runtime" };
            format!("{package} {} ({build}) {how}: {}\n", installed.version, installed.folder.display())
        }
    };
    output::text(out, &text)
}

/// Tells which library would be taken, and why.
fn show(search: &Search, options: &RuntimeOptions) -> String {
    let mut text = String::new();
    for candidate in &search.candidates {
        let place = match &candidate.path {
            Some(path) => format!("{}: {}", candidate.source, path.display()),
            None => candidate.source.to_string(),
        };
        text += &match &candidate.verdict {
            Verdict::Selected(version) => format!("* {place}: taken, version {version}\n"),
            Verdict::Rejected(problem) => format!("  {place}: {problem}\n"),
            Verdict::Absent(reason) => format!("  {place}: {reason}\n"),
            Verdict::Skipped => format!("  {place}: not checked\n"),
        };
    }
    if search.selected().is_some() {
        let because =
            search.candidates.iter().find(|c| matches!(c.verdict, Verdict::Selected(_))).map(|c| match c.source {
                LibrarySource::Host => "the host program handed it over",
                LibrarySource::Option => "it was asked for with --runtime",
                LibrarySource::Variable => "ORT_DYLIB_PATH names it",
                LibrarySource::Loaded => "this process holds it already",
                LibrarySource::Package => "it is that of the Python environment",
                LibrarySource::Cache => "it is the first usable one, in the user's cache",
                LibrarySource::System => "it is the first usable one, in the system's library folders",
            });
        text += &because.map(|why| format!("taken because {why}\n")).unwrap_or_default();
    } else if search.error().is_some() {
        text += &format!(
            "none is taken: the one that was named cannot be used; {} or newer is needed\n",
            minimum_version()
        );
    } else if options.offline {
        text += "none is found, and --offline forbids fetching one; `ldm-ort run` would say what to install by hand\n";
    } else {
        let version = session::PINNED_VERSION;
        text += &format!("none is found; `ldm-ort run` would fetch the official build of version {version}\n");
    }
    text
}

/// Lists the fetched packages, marking the build of ONNX Runtime that would be taken.
fn list(options: &RuntimeOptions) -> String {
    let search = session::search(options);
    let taken = search.selected().map(|(path, _)| path.to_path_buf());
    let mut text = String::new();
    for build in cached_builds(&options.env, options.flavor) {
        let mark = if taken.as_ref().is_some_and(|path| path.starts_with(&build.folder)) { '*' } else { ' ' };
        text += &format!(
            "{mark} {:<9} {:<8} {:>6.1} MB  {}\n",
            build.flavor.name(),
            build.version,
            build.bytes as f64 / 1e6,
            build.folder.display()
        );
    }
    if text.is_empty() {
        text += "no package was fetched yet\n";
    }
    if let Some(path) = taken.filter(|_| !text.contains('*')) {
        text += &format!("* taken from elsewhere: {}\n", path.display());
    }
    text
}
