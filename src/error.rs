//! Errors, grouped by cause.

mod kind;
mod problem;
mod step_position;

use std::path::{Path, PathBuf};

pub use kind::ErrorKind;
pub use problem::Problem;
pub use step_position::StepPosition;

/// The place to report internal errors.
const ISSUES: &str = "the project's issue tracker";

/// The error type of this crate.
///
/// Each variant names the place (file, component, key or tensor), the problem, and the next thing to do.
/// [`Error::exit_code`] maps it to the exit codes of the command line.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The pipeline file, a flag or a `--set` override is invalid. Contains all problems, not only the first.
    #[error("{}{}", render_problems(.0), problem_hints(.0))]
    Spec(Vec<Problem>),

    /// Several errors, none of which is [`Error::Several`] itself.
    #[error("{}", render_problems(.0))]
    Several(Vec<Error>),

    /// The model directory or a file in it is invalid.
    #[error("{}: {problem}{}", .path.display(), help_line(.help))]
    Model {
        /// The file or directory at fault.
        path: PathBuf,
        /// The expected and the actual state.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// An input of the request (image, mask, latents, prompt) cannot be used.
    #[error("{what}: {problem}{}", help_line(.help))]
    Input {
        /// The key or the file, as the user wrote it.
        what: String,
        /// The expected and the actual state.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// A scheduler cannot be built from its configuration.
    #[error("scheduler {scheduler}: {key}: {problem}{}", help_line(.help))]
    Scheduler {
        /// The scheduler's name in pipeline.toml, such as `ddim`.
        scheduler: &'static str,
        /// The configuration key at fault.
        key: String,
        /// The expected and the actual state.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// ONNX Runtime's library was not found, could not be fetched, or cannot be used.
    #[error("ONNX Runtime: {problem}{}", help_line(.help))]
    Runtime {
        /// The attempt and its result.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// A requested execution provider cannot be used on this machine.
    #[error("provider {provider}: {problem}{}", help_line(.help))]
    Provider {
        /// The provider's name in pipeline.toml, such as `cuda`.
        provider: String,
        /// The missing requirement.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// ONNX Runtime failed to open or to run a graph.
    #[error("{component} ({}): {action} failed: {problem}", .path.display())]
    Graph {
        /// The component, such as `unet`.
        component: String,
        /// The graph's file.
        path: PathBuf,
        /// The failed action: `opening` or `running`.
        action: &'static str,
        /// ONNX Runtime's message.
        problem: String,
    },

    /// A tensor of the run contains NaN or infinity.
    #[error("{what}{} holds {count} non-finite values of {total}{}", at_step(*step, *steps), help_line(.help))]
    NonFinite {
        /// The tensor, and the component that made it.
        what: String,
        /// The step, counted from 1; 0 before the first step.
        step: usize,
        /// The number of steps of the run; 0 outside of the denoising loop.
        steps: usize,
        /// The number of NaN or infinite values.
        count: usize,
        /// The number of values in the tensor.
        total: usize,
        /// The next thing to do.
        help: String,
    },

    /// The machine, or the container the process runs in, lacks the memory for this run.
    #[error("memory: {problem}{}", help_line(.help))]
    Memory {
        /// The required and the available bytes.
        problem: String,
        /// The next thing to do; may be empty.
        help: String,
    },

    /// A file could not be read or written.
    #[error("{}: {action} failed: {source}{}", .path.display(), help_line(io_hint(.source)))]
    Io {
        /// The file.
        path: PathBuf,
        /// The failed action, such as `reading`.
        action: &'static str,
        /// The operating system's error.
        source: std::io::Error,
    },

    /// A stage of a pipeline with several models failed.
    #[error("{stage}: {error}")]
    Stage {
        /// The key of its table, such as `stage[0]`, or `base` for the file's own tables.
        stage: String,
        /// The stage's error.
        error: Box<Error>,
    },

    /// A bug of this program.
    #[error("internal error: {what}: {problem}\n  hint: report this at {ISSUES}, with the command and this message")]
    Internal {
        /// The part of the program.
        what: String,
        /// The violated expectation.
        problem: String,
    },

    /// The run was stopped by Ctrl-C or by a [`Cancel`](crate::Cancel).
    #[error("interrupted{}", .at_step.map(|at| format!(" at {at}")).unwrap_or_default())]
    Interrupted {
        /// The step during or after which the run stopped; `None` outside the denoising loop.
        at_step: Option<StepPosition>,
    },
}

/// Formats a count and its noun, in the plural unless the count is one: `1 step`, `2 steps`, `3 classes`, `0 entries`.
pub(crate) fn count_of(count: usize, noun: &str) -> String {
    match (count, noun.strip_suffix('y')) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{count} {stem}ies"),
        _ if noun.ends_with('s') => format!("{count} {noun}es"),
        _ => format!("{count} {noun}s"),
    }
}

/// A result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The source of an [`Error::Io`] for a path that names a FIFO, a socket or a device, which is never opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is a {0}; expected a regular file")]
pub struct NotRegularFile(pub &'static str);

impl NotRegularFile {
    /// Finds it as the source of an I/O error.
    pub fn find_in(error: &std::io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }
}

fn render_problems(problems: &[impl std::fmt::Display]) -> String {
    problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Formats the hints of the problems, each once.
fn problem_hints(problems: &[Problem]) -> String {
    let mut hints: Vec<&str> = Vec::new();
    for hint in problems.iter().map(Problem::hint) {
        if !hints.contains(&hint) {
            hints.push(hint);
        }
    }
    hints.into_iter().map(help_line).collect()
}

/// Returns the next thing to do after an error of the operating system; empty if it is unknown.
fn io_hint(error: &std::io::Error) -> &'static str {
    use std::io::ErrorKind;

    match error.kind() {
        ErrorKind::NotFound => "check the path",
        ErrorKind::PermissionDenied => "check the permissions of the file and of its folder",
        ErrorKind::ReadOnlyFilesystem => "choose a folder that can be written to",
        ErrorKind::FileTooLarge => "raise the limit of file sizes (`ulimit -f`), or choose a folder on another disk",
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free some disk space, or choose a folder on another disk",
        ErrorKind::InvalidData if error.get_ref().is_some_and(|inner| inner.is::<std::string::FromUtf8Error>()) => {
            "expected UTF-8 text: check the file's encoding"
        }
        _ => "",
    }
}

/// The part of a message that names a step of a run, if it is one.
fn at_step(step: usize, steps: usize) -> String {
    if steps == 0 { String::new() } else { format!(" at step {step} of {steps}") }
}

fn help_line(help: &str) -> String {
    if help.is_empty() { String::new() } else { format!("\n  hint: {help}") }
}

impl Error {
    /// Creates an [`Error::Model`].
    pub fn model(path: impl AsRef<Path>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Model { path: path.as_ref().to_path_buf(), problem: problem.into(), help: help.into() }
    }

    /// Creates an [`Error::Input`].
    pub fn input(what: impl Into<String>, problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Input { what: what.into(), problem: problem.into(), help: help.into() }
    }

    /// Creates an [`Error::Runtime`].
    pub fn runtime(problem: impl Into<String>, help: impl Into<String>) -> Self {
        Self::Runtime { problem: problem.into(), help: help.into() }
    }

    /// Creates an [`Error::Io`].
    pub fn io(path: impl AsRef<Path>, action: &'static str, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), action, source }
    }

    /// Adds the stage in which the error occurred.
    pub fn in_stage(self, stage: &str) -> Self {
        match self {
            Self::Several(errors) => Self::Several(errors.into_iter().map(|error| error.in_stage(stage)).collect()),
            error => Self::Stage { stage: stage.to_owned(), error: Box::new(error) },
        }
    }

    /// Creates an [`Error::Internal`].
    pub fn internal(what: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Internal { what: what.into(), problem: problem.into() }
    }

    /// Returns the kind of this error; for several errors, the kind with the highest exit code.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Several(errors) => {
                let kinds = errors.iter().map(Self::kind);
                kinds.max_by_key(|kind| kind.exit_code()).unwrap_or(ErrorKind::Internal)
            }
            Self::Stage { error, .. } => error.kind(),
            Self::Spec(problems) if problems.iter().any(|problem| problem.file.is_some()) => ErrorKind::Pipeline,
            Self::Spec(_) | Self::Input { .. } | Self::Scheduler { .. } => ErrorKind::Request,
            Self::Model { .. } | Self::Graph { .. } => ErrorKind::Pipeline,
            Self::Provider { .. } => ErrorKind::Provider,
            Self::Runtime { .. } => ErrorKind::Runtime,
            Self::Io { source, .. } if NotRegularFile::find_in(source).is_some() => ErrorKind::Pipeline,
            Self::Io { .. } => ErrorKind::Io,
            Self::Memory { .. } => ErrorKind::Memory,
            Self::NonFinite { .. } => ErrorKind::NonFinite,
            Self::Interrupted { .. } => ErrorKind::Interrupted,
            Self::Internal { .. } => ErrorKind::Internal,
        }
    }

    /// Returns the command line's exit code for this error; see [`ErrorKind::exit_code`].
    pub fn exit_code(&self) -> u8 {
        self.kind().exit_code()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_follow_their_count() {
        let counts = [(0, "step"), (1, "step"), (2, "step"), (1, "class"), (2, "class"), (1, "entry"), (3, "entry")];
        let texts = counts.map(|(count, noun)| count_of(count, noun));
        assert_eq!(texts, ["0 steps", "1 step", "2 steps", "1 class", "2 classes", "1 entry", "3 entries"]);
    }

    #[test]
    fn problems_have_one_hint_for_each_thing_to_do() {
        let problem = |file: bool, line, key: &str, message: &str| Problem {
            file: file.then(|| PathBuf::from("p.toml")),
            line,
            key: key.into(),
            message: message.into(),
        };
        let rows = [
            (problem(true, None, "", "cannot be read"), "name a pipeline file"),
            (problem(true, Some(3), "", "expected `]`"), "TOML syntax"),
            (problem(true, None, "model.path", "missing; expected a path"), "ldm-ort init"),
            (problem(true, Some(3), "run.stps", "unknown key"), "ldm-ort list keys"),
            (problem(true, Some(3), "stage[0].scheduler.eulr", "unknown"), "ldm-ort list schedulers"),
            (problem(false, None, "--scheduler", "unknown"), "ldm-ort list schedulers"),
            (problem(false, None, "--provider", "unknown"), "ldm-ort list providers"),
            (problem(false, None, "--set task.text-to-image.x", "unknown"), "ldm-ort list tasks"),
            (problem(false, None, "--set", "expected table.key=value"), "ldm-ort list keys"),
            (problem(false, None, "--steps", "expected an integer"), "ldm-ort help run"),
        ];
        for (problem, hint) in &rows {
            assert!(problem.hint().contains(hint), "{problem}: {}", problem.hint());
        }
        let twice = Error::Spec(vec![rows[3].0.clone(), rows[3].0.clone(), rows[5].0.clone()]).to_string();
        assert_eq!(twice.matches("  hint: ").count(), 2, "{twice}");
        let denied = Error::io("a", "writing", std::io::ErrorKind::PermissionDenied.into()).to_string();
        assert!(denied.contains("\n  hint: check the permissions"), "{denied}");
    }

    #[test]
    fn kinds_have_the_exit_codes_that_other_programs_rely_on() {
        let io = |error| Error::io("a", "reading", error);
        let several = Error::Several(vec![Error::input("a", "b", ""), Error::Interrupted { at_step: None }]);
        let rows = [
            (Error::input("run.seed", "too large", ""), ErrorKind::Request, 2),
            (Error::model("m", "missing", ""), ErrorKind::Pipeline, 2),
            (Error::runtime("none found", ""), ErrorKind::Runtime, 2),
            (io(std::io::Error::other(NotRegularFile("FIFO"))), ErrorKind::Pipeline, 2),
            (io(std::io::Error::other("full")), ErrorKind::Io, 1),
            (Error::internal("vae", "not open"), ErrorKind::Internal, 70),
            (Error::Interrupted { at_step: None }.in_stage("stage[0]"), ErrorKind::Interrupted, 130),
            (several, ErrorKind::Interrupted, 130),
        ];
        for (error, kind, code) in rows {
            assert_eq!((error.kind(), error.exit_code()), (kind, code), "{error}");
        }
        let problem = |file| Problem { file, line: None, key: "run.steps".into(), message: String::new() };
        assert_eq!(Error::Spec(vec![problem(None)]).kind(), ErrorKind::Request);
        assert_eq!(Error::Spec(vec![problem(Some("p.toml".into()))]).kind(), ErrorKind::Pipeline);
    }

    #[test]
    fn an_interrupted_run_names_step_and_images() {
        let at = |first_image, images, total_images| {
            let position = StepPosition { step: 7, steps: 20, first_image, images, total_images };
            Error::Interrupted { at_step: Some(position) }.to_string()
        };
        assert_eq!(at(0, 1, 1), "interrupted at step 7 of 20");
        assert_eq!(at(1, 1, 4), "interrupted at step 7 of 20, image 2 of 4");
        assert_eq!(at(2, 2, 4), "interrupted at step 7 of 20, images 3 to 4 of 4");
        assert_eq!(Error::Interrupted { at_step: None }.to_string(), "interrupted");
    }
}
