//! Shares of a batch.

use super::{command, folder, images, manifest, objects, parse, summary, write_prompts};
use crate::common::answer;

#[test]
fn shards_together_are_the_whole_batch() {
    let folder = folder();
    write_prompts(folder.path(), 10);
    objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "whole"], 0);
    let mut images_of_shards = 0;
    for shard in ["2/3", "1/3", "3/3"] {
        let made = objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out", "--shard", shard], 0);
        let made = summary(&made)["made"].as_u64().expect("a number") as usize;
        assert_eq!(manifest(&folder.path().join("out"), &shard.replace('/', "-of-")).len(), made);
        images_of_shards += made;
    }
    assert_eq!(images_of_shards, 10);
    assert!(images(&folder.path().join("out")) == images(&folder.path().join("whole")), "other images");
    // Another number of shards finds them all.
    for shard in ["1/2", "2/2"] {
        let made = objects(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out", "--shard", shard], 0);
        assert_eq!(summary(&made)["made"], 0);
    }
}

#[test]
fn schedulers_name_the_shard() {
    let folder = folder();
    write_prompts(folder.path(), 9);
    let run = |shard: &str, variables: &[(&str, &str)], out: &str| {
        let mut command =
            command(folder.path(), &["p.toml", "prompts.jsonl", "--out", out, "--shard", shard, "--json"]);
        command.envs(variables.iter().copied());
        let answer = answer(command);
        assert_eq!(answer.code, Some(0), "{answer}");
        parse(&answer.stdout)
    };
    run("2/3", &[], "plain");
    let expected = images(&folder.path().join("plain"));
    assert!(!expected.is_empty() && expected.len() < 9, "{} images", expected.len());
    let slurm = [
        ("SLURM_ARRAY_TASK_ID", "5"),
        ("SLURM_ARRAY_TASK_MIN", "3"),
        ("SLURM_ARRAY_TASK_MAX", "7"),
        ("SLURM_ARRAY_TASK_STEP", "2"),
    ];
    let aws = [("AWS_BATCH_JOB_ARRAY_INDEX", "1"), ("AWS_BATCH_JOB_ARRAY_SIZE", "3")];
    for (shard, variables, out) in [
        ("auto", &slurm[..], "slurm"),
        ("auto/3", &[("JOB_COMPLETION_INDEX", "1")], "kubernetes"),
        ("auto", &aws, "aws"),
    ] {
        run(shard, variables, out);
        assert!(images(&folder.path().join(out)) == expected, "{out}");
    }
    // Contradictions are refused.
    let mut command = command(folder.path(), &["p.toml", "prompts.jsonl", "--out", "out", "--shard", "auto"]);
    command.envs(slurm).envs(aws);
    let answer = answer(command);
    assert_eq!(answer.code, Some(2), "{answer}");
    assert!(answer.stderr.contains("several schedulers: SLURM_ARRAY_TASK_ID, AWS_BATCH_JOB_ARRAY_INDEX"), "{answer}");
}
