//! Standard input, under the name `-`, for a pipeline file or a prompt.

use std::path::Path;

use crate::error::{Error, Problem, Result};
use crate::files;
use crate::spec::{MAX_BYTES, Overrides, Spec};

/// The name of standard input.
pub(super) const NAME: &str = "-";

/// Reads the pipeline of the command line: from a file, or from standard input if the file is named `-`. Paths in the
/// latter are relative to the current directory.
///
/// # Errors
/// As [`Spec::load`], and [`Error::Input`] if standard input is named more than once or can't be read.
pub(super) fn load_spec(path: &Path, overrides: Overrides) -> Result<Spec> {
    if path.as_os_str() != NAME {
        return Spec::load(path, &read_prompts(overrides, 0)?);
    }
    let overrides = read_prompts(overrides, 1)?;
    let text = read("the pipeline")?;
    let in_file =
        |problem: Problem| Problem { file: problem.file.or_else(|| Some("standard input".into())), ..problem };
    Spec::parse(&text, None, &overrides).map_err(|error| match error {
        // Problems of flags have no line.
        Error::Spec(problems) => Error::Spec(
            problems
                .into_iter()
                .map(|problem| if problem.line.is_some() { in_file(problem) } else { problem })
                .collect(),
        ),
        other => other,
    })
}

/// Replaces a prompt `-` by the text on standard input, which `other_uses` already take.
///
/// # Errors
/// [`Error::Input`] as [`load_spec`].
pub(super) fn read_prompts(mut overrides: Overrides, other_uses: usize) -> Result<Overrides> {
    let mut places: Vec<&mut String> = overrides.prompts.iter_mut().chain(&mut overrides.negative_prompt).collect();
    places.retain(|prompt| *prompt == NAME);
    if !places.is_empty() && places.len() + other_uses > 1 {
        return Err(Error::input(
            NAME,
            "names standard input more than once, and it can be read once",
            "give one of them as a file or as text",
        ));
    }
    for prompt in places {
        let text = read("the prompt")?;
        *prompt =
            text.strip_suffix('\n').map_or(text.as_str(), |text| text.strip_suffix('\r').unwrap_or(text)).to_owned();
    }
    Ok(overrides)
}

fn read(what: &str) -> Result<String> {
    let fail = |problem: String| Error::input("standard input", problem, format!("write {what} there as UTF-8 text"));
    let bytes = files::read_at_most(std::io::stdin().lock(), MAX_BYTES as u64).map_err(|e| fail(e.to_string()))?;
    let bytes = bytes.ok_or_else(|| fail("is longer than 1 MiB".to_owned()))?;
    String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text".to_owned()))
}
