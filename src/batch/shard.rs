//! Shares of a batch for several processes.

use super::key::Key;
use crate::error::{Error, Result};

/// A share of a batch: the images whose key, as a number, leaves a certain remainder. It depends neither on the order of
/// lines nor on other lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard {
    /// The remainder, from 0.
    index: u64,
    total: u64,
}

/// A variable of the environment, by its name.
type Variable<'a> = &'a dyn Fn(&str) -> Option<String>;

/// Reads the index from 0, and the total if the scheduler has a variable for it.
type ReadShard = fn(Variable<'_>) -> Result<(u64, Option<u64>)>;

/// The variable by which each scheduler is recognized, and the reader of its shard.
const SCHEDULERS: [(&str, &str, ReadShard); 3] = [
    ("Slurm", "SLURM_ARRAY_TASK_ID", slurm),
    ("Kubernetes", "JOB_COMPLETION_INDEX", kubernetes),
    ("AWS Batch", "AWS_BATCH_JOB_ARRAY_INDEX", aws_batch),
];

impl Default for Shard {
    /// The whole batch.
    fn default() -> Self {
        Self { index: 0, total: 1 }
    }
}

impl Shard {
    /// Reads `I/N` (shard I of N, counted from 1), `auto` (from the variables of Slurm's job arrays or AWS Batch's array jobs)
    /// or `auto/N` (the same, or from the index of a Kubernetes Indexed Job, which has no variable for the number).
    ///
    /// # Errors
    /// [`Error::Input`] naming `--shard`.
    pub fn parse(text: &str, variable: Variable<'_>) -> Result<Self> {
        let form =
            || fail(format!("expected I/N, auto or auto/N, found \"{text}\""), "write 1/8 for the first of eight");
        let count = |text: &str| text.parse::<u64>().ok().filter(|&count| count > 0).ok_or_else(form);
        match text.split_once('/') {
            None if text == "auto" => Self::from_scheduler(None, variable),
            Some(("auto", total)) => Self::from_scheduler(Some(count(total)?), variable),
            Some((index, total)) => {
                let (index, total) = (count(index)?, count(total)?);
                if index > total {
                    return Err(fail(format!("there is no shard {index} of {total}"), "count shards from 1"));
                }
                Ok(Self { index: index - 1, total })
            }
            None => Err(form()),
        }
    }

    fn from_scheduler(total: Option<u64>, variable: Variable<'_>) -> Result<Self> {
        let found: Vec<_> = SCHEDULERS.iter().filter(|(_, name, _)| variable(name).is_some()).collect();
        let (scheduler, read) = match found[..] {
            [(scheduler, _, read)] => (scheduler, read),
            [] => {
                let names = SCHEDULERS.map(|(scheduler, name, _)| format!("{name} ({scheduler})")).join(", ");
                return Err(fail(format!("auto finds none of {names}"), "run it in an array job, or write I/N"));
            }
            _ => {
                let names: Vec<_> = found.iter().map(|(_, name, _)| *name).collect();
                return Err(fail(
                    format!("auto finds the variables of several schedulers: {}", names.join(", ")),
                    "write I/N, or unset those that do not count",
                ));
            }
        };
        let (index, own_total) = read(variable)?;
        let total = match (total, own_total) {
            (Some(total), Some(own)) if total != own => {
                return Err(fail(
                    format!("auto/{total} contradicts the array of {scheduler}, which has {own} tasks"),
                    "write auto alone",
                ));
            }
            (Some(total), _) | (None, Some(total)) => total,
            (None, None) => {
                let problem = format!("{scheduler} has no variable for the number of shards");
                return Err(fail(problem, "write auto/N with the job's `completions`"));
            }
        };
        if index >= total {
            return Err(fail(
                format!("the index of {scheduler} is {index}, and there are {total} shards, counted from 0"),
                "make N of auto/N the number of tasks in the array",
            ));
        }
        Ok(Self { index, total })
    }

    /// True if an image belongs to the shard.
    pub fn contains(self, key: Key) -> bool {
        key.number() % self.total == self.index
    }

    /// Returns the manifest of the shard below the batch's folder: `manifest/<I>-of-<N>.jsonl`.
    pub fn manifest(self) -> String {
        format!("manifest/{}-of-{}.jsonl", self.index + 1, self.total)
    }

    /// True if there are several shards.
    pub fn is_part(self) -> bool {
        self.total > 1
    }
}

impl std::fmt::Display for Shard {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.index + 1, self.total)
    }
}

fn fail(problem: String, hint: &str) -> Error {
    Error::input("--shard", problem, hint)
}

fn number(variable: Variable<'_>, name: &str) -> Result<u64> {
    let text = variable(name).ok_or_else(|| fail(format!("{name} is not set"), "write I/N"))?;
    text.trim().parse().map_err(|_| fail(format!("expected a number in {name}, found \"{text}\""), "write I/N"))
}

fn slurm(variable: Variable<'_>) -> Result<(u64, Option<u64>)> {
    let id = number(variable, "SLURM_ARRAY_TASK_ID")?;
    let (min, max) = (number(variable, "SLURM_ARRAY_TASK_MIN")?, number(variable, "SLURM_ARRAY_TASK_MAX")?);
    let step = match variable("SLURM_ARRAY_TASK_STEP") {
        Some(_) => number(variable, "SLURM_ARRAY_TASK_STEP")?,
        None => 1,
    };
    if step == 0 || id < min || id > max || (id - min) % step != 0 {
        let problem = format!("Slurm's task {id} is not one of {min} to {max} in steps of {step}");
        return Err(fail(problem, "give the array a range, such as --array=0-7, or write I/N"));
    }
    let total = (max - min) / step + 1;
    // A list such as --array=1,4,9 has a minimum and a maximum too, and other tasks between them.
    if let Some(count) = variable("SLURM_ARRAY_TASK_COUNT").and_then(|count| count.trim().parse::<u64>().ok())
        && count != total
    {
        let problem = format!("Slurm's array has {count} tasks, and {min} to {max} in steps of {step} are {total}");
        return Err(fail(problem, "give the array a range, such as --array=0-7, or write I/N"));
    }
    Ok(((id - min) / step, Some(total)))
}

fn kubernetes(variable: Variable<'_>) -> Result<(u64, Option<u64>)> {
    Ok((number(variable, "JOB_COMPLETION_INDEX")?, None))
}

fn aws_batch(variable: Variable<'_>) -> Result<(u64, Option<u64>)> {
    let total = variable("AWS_BATCH_JOB_ARRAY_SIZE").map(|_| number(variable, "AWS_BATCH_JOB_ARRAY_SIZE"));
    Ok((number(variable, "AWS_BATCH_JOB_ARRAY_INDEX")?, total.transpose()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str, variables: &[(&str, &str)]) -> Result<String, String> {
        let variable = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, v)| (*v).to_owned());
        Shard::parse(text, &variable).map(|shard| shard.to_string()).map_err(|error| error.to_string())
    }

    #[test]
    fn each_scheduler_has_its_variables() {
        let slurm = |id: &'static str, step: &'static str| {
            [
                ("SLURM_ARRAY_TASK_ID", id),
                ("SLURM_ARRAY_TASK_MIN", "10"),
                ("SLURM_ARRAY_TASK_MAX", "18"),
                ("SLURM_ARRAY_TASK_STEP", step),
            ]
        };
        let kubernetes = [("JOB_COMPLETION_INDEX", "2")];
        let aws = [("AWS_BATCH_JOB_ARRAY_INDEX", "0"), ("AWS_BATCH_JOB_ARRAY_SIZE", "4")];
        assert_eq!(parse("3/8", &[]).unwrap(), "3/8");
        assert_eq!(parse("auto", &slurm("10", "4")).unwrap(), "1/3");
        assert_eq!(parse("auto", &slurm("18", "4")).unwrap(), "3/3");
        assert_eq!(parse("auto/9", &slurm("11", "1")).unwrap(), "2/9");
        assert_eq!(parse("auto/3", &kubernetes).unwrap(), "3/3");
        assert_eq!(parse("auto", &aws).unwrap(), "1/4");
        let listed = [&slurm("10", "1")[..], &[("SLURM_ARRAY_TASK_COUNT", "3")]].concat();
        let both = [&slurm("10", "1")[..], &kubernetes].concat();
        for (text, variables, says) in [
            ("auto", &[][..], "finds none of SLURM_ARRAY_TASK_ID (Slurm), JOB_COMPLETION_INDEX (Kubernetes)"),
            ("auto", &both, "several schedulers: SLURM_ARRAY_TASK_ID, JOB_COMPLETION_INDEX"),
            ("auto", &kubernetes, "no variable for the number of shards"),
            ("auto/2", &kubernetes, "is 2, and there are 2 shards"),
            ("auto/5", &aws, "auto/5 contradicts the array of AWS Batch, which has 4 tasks"),
            ("auto", &aws[..1], "AWS Batch has no variable"),
            ("auto", &[("SLURM_ARRAY_TASK_ID", "1")], "SLURM_ARRAY_TASK_MIN is not set"),
            ("auto", &slurm("11", "4"), "task 11 is not one of 10 to 18 in steps of 4"),
            ("auto", &slurm("10", "0"), "in steps of 0"),
            ("auto", &listed, "has 3 tasks"),
            ("auto", &[("JOB_COMPLETION_INDEX", "x")], "expected a number in JOB_COMPLETION_INDEX, found \"x\""),
            ("0/2", &[], "expected I/N"),
            ("3/2", &[], "there is no shard 3 of 2"),
            ("1", &[], "expected I/N"),
            ("auto/0", &[], "expected I/N"),
        ] {
            let error = parse(text, variables).unwrap_err();
            assert!(error.contains(says) && error.contains("hint:"), "{text}: {error}");
        }
    }

    #[test]
    fn shards_have_each_key_once() {
        for number in 0..100 {
            let key = Key::of(&number.to_string());
            let owners = (0..7).filter(|&index| Shard { index, total: 7 }.contains(key)).count();
            assert_eq!(owners, 1);
            assert!(Shard::default().contains(key));
        }
    }
}
