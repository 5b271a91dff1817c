//! The text of a pipeline file: reading it, with its problems, and writing it.

use std::path::Path;

use super::{Overrides, Spec, StageSpec, output, renamed, stage, task};
use crate::error::{Error, Problem, Result};
use crate::files;
use crate::keys::{Entries, Reading, SyntaxError, Table, Writer, parse_document};

/// The most bytes of a pipeline file's text.
pub const MAX_BYTES: usize = 1 << 20;

impl Spec {
    /// Reads a pipeline file, with flags over it.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`], holding every problem of the file and of the flags, also where the file cannot be read.
    pub fn load(path: &Path, overrides: &Overrides) -> Result<Self> {
        let file = files::open(path).map_err(|error| unreadable(path, &error))?;
        let text = files::read_at_most(file, MAX_BYTES as u64).map_err(|error| unreadable(path, &error))?;
        let text = text.ok_or_else(|| Error::Spec(vec![too_long(Some(path))]))?;
        let text = String::from_utf8(text).map_err(|error| not_text(path, error.as_bytes()))?;
        Self::parse(&text, Some(path), overrides)
    }

    /// Reads the text of a pipeline file, with flags over it.
    ///
    /// `file` is the file it came from: problems name it, and the paths in the text are relative to the folder it is
    /// in. Without one they are relative to the current directory.
    ///
    /// # Errors
    ///
    /// [`Error::Spec`], holding every problem of the text and of the flags. Text that is longer than [`MAX_BYTES`] or is
    /// not TOML has only that problem, since its meaning would be a guess.
    pub fn parse(text: &str, file: Option<&Path>, overrides: &Overrides) -> Result<Self> {
        Self::parse_as(text, Reading::new(file), overrides, |_, _| {})
    }

    /// Reads a text whose entries `change` sees before the flags are put over them.
    pub(super) fn parse_as(
        text: &str,
        reading: Reading<'_>,
        overrides: &Overrides,
        change: impl FnOnce(&mut Entries, &Reading<'_>),
    ) -> Result<Self> {
        if text.len() > MAX_BYTES {
            return Err(Error::Spec(vec![too_long(reading.file())]));
        }
        let mut entries = parse_document(text).map_err(|errors| {
            let problem = |error: SyntaxError| Problem {
                file: reading.file().map(Path::to_path_buf),
                line: Some(error.line),
                key: error.key,
                message: error.message,
            };
            Error::Spec(errors.into_iter().map(problem).collect())
        })?;
        renamed::rename(&mut entries, &reading);
        change(&mut entries, &reading);
        overrides.apply(&mut entries, &reading);
        stage::inherit(&mut entries, &reading);

        let mut root = Table::root(&reading, &entries);
        let mut spec = Self::read_tables(&mut root, &reading);
        let stages = root.tables("stage").into_iter();
        let stages = stages.filter_map(|table| StageSpec::read(table, &reading, spec.as_ref())).collect();
        root.finish();
        if let Some(spec) = &mut spec {
            spec.stages = stages;
            spec.old_names = reading.old_names();
        }
        match reading.finish(spec)? {
            Some(spec) => Ok(spec),
            // A task that could not be read has said why, so this is never seen.
            None => Err(Error::Spec(Vec::new())),
        }
    }

    /// Writes the whole spec as the text of a pipeline file, every default that stands by itself spelled out and every
    /// path absolute, so
    /// that [`Spec::parse`] of it gives this spec wherever it is read. A path that is not Unicode, which no TOML can
    /// hold, is written with replacement characters.
    pub fn to_toml(&self) -> String {
        self.write_to(Writer::default())
    }

    pub(super) fn write_to(&self, mut writer: Writer) -> String {
        self.model.write(&mut writer);
        task::write(self.task.as_ref(), &mut writer);
        self.write_parts(&mut writer);
        self.run.write(&mut writer);
        self.device.write(&mut writer);
        self.output.write(&mut writer, Path::new(output::FOLDER));
        self.stages.iter().for_each(|stage| stage.write(&mut writer, self));
        writer.finish()
    }
}

fn of_file(path: &Path, message: String) -> Error {
    Error::Spec(vec![Problem { file: Some(path.to_path_buf()), line: None, key: String::new(), message }])
}

fn too_long(file: Option<&Path>) -> Problem {
    let message = "is longer than 1 MiB; expected a pipeline file, with large inputs in files that it names";
    Problem { file: file.map(Path::to_path_buf), line: None, key: String::new(), message: message.into() }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Error {
    if path.is_dir() {
        return of_file(path, "is a directory; expected a pipeline file such as pipeline.toml".into());
    }
    of_file(path, format!("cannot be read: {error}"))
}

fn not_text(path: &Path, bytes: &[u8]) -> Error {
    let is_png = bytes.starts_with(b"\x89PNG\r\n\x1a\n");
    let help = if is_png { "; it is a PNG image, which is run again with --from" } else { "" };
    of_file(path, format!("is not UTF-8 text{help}"))
}
