//! `ldm-ort runtime`: which ONNX Runtime is used, which builds are there, and fetching one ahead of time.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::args::RuntimeAction;
use super::interrupt::Interrupt;
use super::output;
use crate::error::Result;
use crate::session::{
    self, Env, FetchEvent, LibrarySource, Runtime, RuntimeOptions, Search, Verdict, cached_builds, minimum_version,
};

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
            let options = RuntimeOptions { cancel: Interrupt::install()?.cancel(), ..options.clone() };
            let installed = session::install(*build, &options, &mut progress())?;
            let how = if installed.was_there { "was there already" } else { "is there" };
            format!("ONNX Runtime {} ({build}) {how}: {}\n", installed.version, installed.folder.display())
        }
    };
    output::text(out, &text)
}

/// Loads ONNX Runtime, showing on standard error what is fetched unless `quiet`.
///
/// # Errors
/// As [`Runtime::load`].
pub fn load(options: &RuntimeOptions, quiet: bool) -> Result<Runtime> {
    if quiet {
        return Runtime::load(options);
    }
    Runtime::load_with(options, &mut progress())
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
                LibrarySource::Option => "it was asked for with --runtime",
                LibrarySource::Variable => "ORT_DYLIB_PATH names it",
                LibrarySource::Loaded => "this process holds it already",
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

/// Lists the fetched builds, marking the one that would be taken.
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
        text += "no build was fetched yet\n";
    }
    if let Some(path) = taken.filter(|_| !text.contains('*')) {
        text += &format!("* taken from elsewhere: {}\n", path.display());
    }
    text
}

/// An observer that says on standard error what is fetched, with a bar where that is a terminal.
pub fn progress() -> impl FnMut(&FetchEvent) {
    let mut bar = ProgressBar::hidden();
    move |event| match event {
        FetchEvent::Waiting { folder } => {
            output::say(&format!("waiting for another process that fetches ONNX Runtime into {}", folder.display()));
        }
        FetchEvent::Begin { file, host, bytes, folder } => {
            output::say(&format!(
                "fetching ONNX Runtime: {file} ({:.1} MB) from {host} into {}",
                *bytes as f64 / 1e6,
                folder.display()
            ));
            if std::io::stderr().is_terminal() {
                bar = ProgressBar::with_draw_target(Some(*bytes), ProgressDrawTarget::stderr());
                if let Ok(style) =
                    ProgressStyle::with_template("{wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
                {
                    bar.set_style(style);
                }
            }
        }
        FetchEvent::Progress { done, .. } => bar.set_position(*done),
        FetchEvent::Done { .. } => bar.finish_and_clear(),
    }
}

/// What the process's environment says about ONNX Runtime.
pub fn environment() -> Env {
    let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let text = |name: &str| std::env::var(name).ok().filter(|v| !v.is_empty());
    let library_path = if cfg!(windows) {
        "PATH"
    } else if cfg!(target_os = "macos") {
        "DYLD_LIBRARY_PATH"
    } else {
        "LD_LIBRARY_PATH"
    };
    Env {
        ort_dylib_path: path("ORT_DYLIB_PATH"),
        library_path: std::env::var_os(library_path).map(|v| std::env::split_paths(&v).collect()).unwrap_or_default(),
        program_dir: std::env::current_exe().ok().and_then(|exe| exe.parent().map(PathBuf::from)),
        cache_dir: path("LDM_ORT_CACHE_DIR"),
        index_url: ["LDM_ORT_INDEX_URL", "PIP_INDEX_URL", "UV_DEFAULT_INDEX"].into_iter().find_map(text),
        pip_config: pip_config(),
        ca_bundle: path("SSL_CERT_FILE"),
    }
}

/// Where pip looks for its configuration, the file that counts most in front.
fn pip_config() -> Vec<PathBuf> {
    let var = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = var("HOME");
    let under = |base: &Option<PathBuf>, rest: &str| base.as_ref().map(|b| b.join(rest));
    let config = var("XDG_CONFIG_HOME").or_else(|| under(&home, ".config"));
    let places = if cfg!(windows) {
        vec![var("PIP_CONFIG_FILE"), under(&var("APPDATA"), "pip/pip.ini"), under(&var("ProgramData"), "pip/pip.ini")]
    } else {
        vec![
            var("PIP_CONFIG_FILE"),
            under(&home, "Library/Application Support/pip/pip.conf").filter(|_| cfg!(target_os = "macos")),
            under(&config, "pip/pip.conf"),
            under(&home, ".pip/pip.conf"),
            Some(PathBuf::from("/etc/pip.conf")),
        ]
    };
    places.into_iter().flatten().collect()
}
