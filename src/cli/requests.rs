//! The requests of `ldm-ort run`: one, or several on one open pipeline for `--same-seed` and `--sweep`.

use std::path::Path;

use super::args::RunArgs;
use super::standard_input;
use crate::engine::{Pipeline, Request};
use crate::error::{Error, Result};
use crate::execution::Timings;
use crate::files;

/// The most requests of one run.
const MOST: usize = 10_000;

/// The longest file of prompts in bytes.
const LONGEST: u64 = 16 << 20;

/// Reads the prompts in a file, or on standard input for `-`: one per line, blank lines skipped.
///
/// # Errors
/// [`Error::Input`] if the file cannot be read, is not UTF-8, or holds no prompt.
pub(super) fn read_prompts_file(path: &Path) -> Result<Vec<String>> {
    let is_standard_input = path.as_os_str() == standard_input::NAME;
    let name = if is_standard_input { "standard input".to_owned() } else { path.display().to_string() };
    let fail = |problem: &str| Error::input(name.clone(), problem, "write one prompt per line, as UTF-8 text");
    let bytes = if is_standard_input {
        files::read_at_most(std::io::stdin().lock(), LONGEST)
    } else {
        files::read_at_most(files::open_input(path)?, LONGEST)
    };
    let bytes = bytes.map_err(|error| fail(&error.to_string()))?.ok_or_else(|| fail("is longer than 16 MiB"))?;
    let text = String::from_utf8(bytes).map_err(|_| fail("is not UTF-8 text"))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let prompts: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    if prompts.is_empty() { Err(fail("holds no prompt")) } else { Ok(prompts) }
}

/// A key and its values, in the order of the command line.
#[derive(Debug, PartialEq)]
pub(super) struct Sweep {
    pub(super) key: String,
    pub(super) values: Vec<String>,
}

impl Sweep {
    fn parse(text: &str) -> Result<Self> {
        let fail = |problem: String| {
            Error::input("--sweep", problem, "write a key and its values, such as guidance_scale=5,7.5")
        };
        let (key, values) =
            text.split_once('=').ok_or_else(|| fail(format!("expected KEY=VALUE,VALUE, found \"{text}\"")))?;
        let values: Vec<_> = values.split(',').map(|value| value.trim().to_owned()).collect();
        if key.trim().is_empty() || values.iter().any(String::is_empty) {
            return Err(fail(format!("expected KEY=VALUE,VALUE, found \"{text}\"")));
        }
        Ok(Self { key: key.trim().to_owned(), values })
    }

    /// Sets one of the values.
    fn set(&self, request: Request, value: &str) -> Request {
        if self.key == "scheduler" {
            return request.scheduler(value);
        }
        // A value that is not TOML is a string, as for --set.
        let toml = format!("value = {value}").parse::<toml::Table>().ok().and_then(|mut table| table.remove("value"));
        request.set(&self.key, toml.unwrap_or_else(|| value.into()))
    }
}

/// Reads the sweeps of the command line.
///
/// # Errors
/// [`Error::Input`] naming `--sweep`.
pub(super) fn sweeps(args: &RunArgs) -> Result<Vec<Sweep>> {
    let sweeps = args.sweep.iter().map(|text| Sweep::parse(text)).collect::<Result<Vec<_>>>()?;
    if let Some(sweep) = sweeps.iter().enumerate().find_map(|(at, s)| sweeps[..at].iter().find(|o| o.key == s.key)) {
        return Err(Error::input("--sweep", format!("{} is given twice", sweep.key), "write all its values in one"));
    }
    Ok(sweeps)
}

/// Checks the form of the sweeps before anything is opened.
///
/// # Errors
/// [`Error::Input`] naming `--sweep`.
pub(super) fn check(args: &RunArgs) -> Result<()> {
    let requests = sweeps(args)?.iter().fold(1_usize, |all, sweep| all.saturating_mul(sweep.values.len()));
    if requests <= MOST {
        return Ok(());
    }
    Err(Error::input(
        "--sweep",
        format!("expected at most {MOST} combinations, found {requests}"),
        "sweep fewer values",
    ))
}

/// Splits a request into those of `--same-seed` and `--sweep`, in order: prompts outermost, then the sweeps. All start from
/// the same seed and are checked. The second value is the largest number of images of one prompt in a request.
///
/// # Errors
/// [`Error::Input`] or [`Error::Spec`] for a request that the pipeline cannot run.
pub(super) fn split(args: &RunArgs, request: Request, pipeline: &Pipeline) -> Result<(Vec<Request>, usize)> {
    let plan = &pipeline.plan().request;
    if !args.same_seed && args.sweep.is_empty() {
        return Ok((vec![request], plan.images));
    }
    let mut requests = vec![request.seed(plan.seed)];
    if args.same_seed {
        let Some(prompting) = plan.task.prompting() else {
            let problem = format!("the task {} has no prompts", plan.task.name());
            return Err(Error::input("--same-seed", problem, "leave --same-seed out"));
        };
        let prompts = prompting.prompts.iter();
        requests = prompts.map(|prompt| requests[0].clone().set("prompt", prompt.as_str())).collect();
    }
    for sweep in sweeps(args)? {
        let with_values = |request: &Request| -> Vec<_> {
            sweep.values.iter().map(|value| sweep.set(request.clone(), value)).collect()
        };
        requests = requests.iter().flat_map(with_values).collect();
    }
    let mut most_images = 1;
    for request in &requests {
        let plan = pipeline.plan_of(request)?;
        plan.check_inputs()?;
        most_images = most_images.max(plan.request.images);
    }
    Ok((requests, most_images))
}

/// Adds the timings of another request.
pub(super) fn add_timings(total: &mut Timings, other: &Timings) {
    total.open += other.open;
    total.prepare += other.prepare;
    total.denoise += other.denoise;
    total.preview += other.preview;
    total.decode += other.decode;
    total.tiled += other.tiled;
    total.texts += other.texts;
    total.calls += other.calls;
    total.evaluations += other.evaluations;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sweeps_have_a_key_and_values() {
        let sweep = Sweep::parse("guidance_scale = 5, 7.5").unwrap();
        assert_eq!(sweep, Sweep { key: "guidance_scale".into(), values: vec!["5".into(), "7.5".into()] });
        assert_eq!(sweep.set(Request::new(), "7.5"), Request::new().guidance_scale(7.5));
        let scheduler = Sweep::parse("scheduler=ddim").unwrap();
        assert_eq!(scheduler.set(Request::new(), "ddim"), Request::new().scheduler("ddim"));
        let text = Sweep::parse("negative_prompt=a b").unwrap();
        assert_eq!(text.set(Request::new(), "a b"), Request::new().negative_prompt("a b"));
        for wrong in ["steps", "steps=", "=5", "steps=1,,2"] {
            assert!(Sweep::parse(wrong).is_err(), "{wrong}");
        }
    }
}
