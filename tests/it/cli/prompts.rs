//! Warnings about prompts.

use super::{assert_says, call};
use crate::common::{answer, ldm_ort, models, root};

/// A prompt that is longer than the model can take is cut, and the run says so.
#[test]
fn a_prompt_that_is_cut_is_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let pipeline = root().join("tests/golden/pipelines/long-prompt/pipeline.toml");
    let pipeline = pipeline.to_str().expect("the path is Unicode");
    let answer = call(folder.path(), &["run", pipeline, "--output", "out", "--steps", "1"]);
    assert_eq!(answer.code, Some(0), "{answer}");
    assert_says(&answer.stderr, &["16 tokens", "88 tokens"]);
}

/// Syntax of other programs in prompts, and embeddings that no prompt names, are told of by `check` and by a run.
#[test]
fn prompts_that_are_not_read_as_they_are_meant_are_warned_of() {
    let folder = tempfile::tempdir().expect("a folder");
    // One vector of zeros, as wide as the text encoder's.
    let header = r#"{"<cat>":{"dtype":"F32","shape":[1,16],"data_offsets":[0,64]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 64]].concat();
    std::fs::write(folder.path().join("cat.safetensors"), bytes).expect("a file can be written");
    let cat = "[[textual_inversion]]\npath = 'cat.safetensors'\n";
    let weights = "prompt_weighting = 'a1111'\n";
    for (prompt, keys, tables, says) in [
        ("a <lora:x:1> cat", "", "", Some("prompt: \"<lora:x:1>\" is read as words and adds no LoRA")),
        ("a [cat:dog:0.5]", weights, "", Some("prompt: \"[cat:dog:0.5]\" is read as words")),
        ("a [cat|dog]", weights, "", Some("prompt: \"[cat|dog]\" is read as words")),
        ("a cat AND a dog", weights, "", Some("prompt: \"AND\" is read as a word")),
        ("a (red:1.4) cat", "", "", Some("prompt_weighting = \"a1111\"")),
        ("a cat", "negative_prompt = 'a BREAK b'\n", "", Some("negative_prompt: \"BREAK\" is read as a word")),
        ("a cat", "", cat, Some("cat.safetensors: no prompt has its token \"<cat>\"")),
        ("a <cat>", "", cat, None),
        ("a (<cat>:1.2)", weights, cat, None),
        ("a <CAT>", "", cat, Some("transformers 4 (without ftfy, and with ftfy) gives other tokens")),
        ("a cat", "negative_prompt = '<cat>'\n", cat, None),
        (r"a \\[cat\\] \\(red\\), 3:4", weights, "", None),
        ("a “cat”", "", "", Some("prompt: CLIPTokenizer of transformers 4 (with ftfy) gives other tokens")),
        ("a &amp; b", "", "", Some("transformers 4 (with ftfy) gives other tokens")),
        ("a 猫猫", "", "", Some("transformers 4 (without ftfy) gives other tokens")),
        ("a “cat”", "text_cleaning = 'ftfy'\n", "", None),
        ("a “cat”", "text_cleaning = 'basic'\n", "", None),
        ("a “cat”", "text_cleaning = 'fast'\n", "", None),
        ("a café", "", "", None),
    ] {
        let text = format!(
            "[model]\npath = '{}'\n[task.text-to-image]\nprompt = \"{prompt}\"\n{keys}{tables}[run]\nsteps = 1\nseed = 1\n\
             width = 64\nheight = 64\n",
            models().join("sd1").display()
        );
        std::fs::write(folder.path().join("pipeline.toml"), text).expect("a file can be written");
        for arguments in [["check", "pipeline.toml"], ["run", "pipeline.toml"]] {
            let mut command = ldm_ort(folder.path());
            command.args(arguments);
            let answer = answer(command);
            assert_eq!(answer.code, Some(0), "{prompt}: {answer}");
            let warnings: Vec<&str> = answer.stderr.lines().filter(|line| line.contains("warning")).collect();
            match says {
                Some(says) => assert!(warnings.len() == 1 && warnings[0].contains(says), "{prompt}: {answer}"),
                None => assert!(warnings.is_empty(), "{prompt}: {answer}"),
            }
        }
    }
}
