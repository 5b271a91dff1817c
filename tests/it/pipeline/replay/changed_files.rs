//! Records whose files have moved or changed.

use super::{again, forge, made};
use crate::common::{answer, ldm_ort};
use crate::pipeline::{bytes, text};
use ldm_ort::metadata::Record;

/// The model directory has moved and is given anew; the image has the same bytes, record and all, also where the current
/// directory is another.
#[test]
fn an_image_is_made_again_after_its_files_have_moved() {
    let (folder, _) = made("");
    let image = folder.path().join("out.png");
    let same = again(folder.path(), "out.png", &[]);
    assert_eq!(same.code, Some(0), "{same}");
    assert!(!same.stderr.contains("warning"), "{same}");
    assert!(bytes(&folder.path().join(same.stdout.trim())) == bytes(&image));

    std::fs::create_dir_all(folder.path().join("elsewhere/models")).expect("a folder");
    std::fs::rename(folder.path().join("models/sd1"), folder.path().join("elsewhere/models/sd1")).expect("it moves");
    let lost = again(folder.path(), "out.png", &[]);
    assert_eq!(lost.code, Some(2), "{lost}");
    for says in ["out.png", "model.path", "models/sd1", "--model DIR"] {
        assert!(lost.stderr.contains(says), "{says}: {lost}");
    }
    let other = tempfile::tempdir().expect("a folder");
    for (at, model) in
        [(folder.path(), "elsewhere/models/sd1"), (other.path(), text(&folder.path().join("elsewhere/models/sd1")))]
    {
        let found = again(at, text(&image), &["--model", model]);
        assert_eq!(found.code, Some(0), "{found}");
        assert!(!found.stderr.contains("warning"), "{found}");
        assert!(bytes(&at.join(found.stdout.trim())) == bytes(&image), "other bytes");
    }
    let wrong = again(folder.path(), "out.png", &["--input", "task.text-to-image.image=a.png"]);
    assert_eq!(wrong.code, Some(2), "{wrong}");
    assert!(wrong.stderr.contains("--input") && wrong.stderr.contains("there are model.path"), "{wrong}");
    for flag in [["--model", "x"], ["--input", "model.path=x"]] {
        let mut command = ldm_ort(folder.path());
        command.args(["run", "pipeline.toml"]).args(flag);
        assert_eq!(answer(command).code, Some(2), "{flag:?} belongs to --from");
    }
}

/// A change of a file's bytes.
type Edit = fn(Vec<u8>) -> Vec<u8>;

/// Each file that determines the image is told by its name where it has changed.
#[test]
fn a_changed_file_is_told_by_its_name() {
    let (folder, _) = made("");
    let model = folder.path().join("models/sd1");
    let edits: [(&str, Edit); 6] = [
        ("scheduler/scheduler_config.json", |file| edit(file, "\"beta_end\": 0.012", "\"beta_end\": 0.02")),
        ("vae_decoder/config.json", |file| edit(file, "0.18215", "0.3")),
        ("tokenizer/tokenizer_config.json", |file| [file, b"\n".to_vec()].concat()),
        ("tokenizer/merges.txt", |file| [file, b"\n".to_vec()].concat()),
        ("model_index.json", |file| [file, b"\n".to_vec()].concat()),
        ("text_encoder/config.json", |file| [file, b"\n".to_vec()].concat()),
    ];
    for (name, change) in edits {
        let path = model.join(name);
        let before = std::fs::read(&path).expect("a file");
        std::fs::write(&path, change(before.clone())).expect("a file");
        let told = again(folder.path(), "out.png", &[]);
        std::fs::write(&path, before).expect("a file");
        assert_eq!(told.code, Some(0), "{told}");
        let warnings: Vec<_> = told.stderr.lines().filter(|line| line.starts_with("warning")).collect();
        assert!(
            matches!(&warnings[..], [one] if one.contains(&format!("{name} differs from the file"))),
            "{name}: {told}"
        );
    }
    // One that is gone, and one that has come.
    let gone = model.join("tokenizer/special_tokens_map.json");
    std::fs::rename(&gone, model.join("tokenizer/added_tokens.json")).expect("a new name");
    std::fs::write(model.join("tokenizer/added_tokens.json"), "{}").expect("a file");
    let told = again(folder.path(), "out.png", &[]);
    assert!(told.stderr.contains("tokenizer/special_tokens_map.json was used for the image"), "{told}");
    assert!(told.stderr.contains("tokenizer/added_tokens.json did not exist"), "{told}");

    // A graph with another doc_string, the sixth field of ONNX's ModelProto.
    let graph = model.join("unet/model.onnx");
    let weights = [std::fs::read(&graph).expect("a graph"), vec![6 << 3 | 2, 1, b'x']].concat();
    std::fs::write(&graph, weights).expect("a graph");
    let told = again(folder.path(), "out.png", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    assert!(told.stderr.contains("warning: unet differs from the file"), "{told}");
}

fn edit(file: Vec<u8>, from: &str, to: &str) -> Vec<u8> {
    let text = String::from_utf8(file).expect("text");
    assert!(text.contains(from), "{from:?} is not in {text}");
    text.replace(from, to).into_bytes()
}

/// Another version of the program or of ONNX Runtime, another CPU or provider: each is told, and the run goes on.
#[test]
fn another_engine_is_told() {
    let (folder, record) = made("");
    let other = Record {
        engine: "ldm-ort 0.0.1".into(),
        runtime: "1.0.0".into(),
        arithmetic: "abacus".into(),
        providers: vec!["cuda".into(), "cpu".into()],
        ..record
    };
    forge(&folder.path().join("other.png"), &folder.path().join("out.png"), &other);
    let told = again(folder.path(), "other.png", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    for says in ["by ldm-ort 0.0.1", "ONNX Runtime 1.0.0", "abacus", "cuda, cpu, this run uses cpu"] {
        assert!(told.stderr.contains(says), "{says}: {told}");
    }
}
