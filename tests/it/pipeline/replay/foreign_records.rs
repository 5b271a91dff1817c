//! Records of strangers and of older versions.

use super::{again, forge, made};
use crate::common::{answer, ldm_ort};
use crate::pipeline::{pixels, text};
use ldm_ort::metadata::Record;

/// Nothing in a stranger's record leads out of the current directory, and `[output]` leads nowhere.
#[test]
fn a_strangers_record_reaches_nothing_outside() {
    let (folder, record) = made("");
    let out = folder.path().join("out.png");
    let forged = |pipeline: String, flags: &[&str]| {
        forge(&folder.path().join("forged.png"), &out, &Record { pipeline, ..record.clone() });
        again(folder.path(), "forged.png", flags)
    };
    let model = "[model]\npath = 'models/sd1'\n";
    let prompt = "[task.text-to-image]\nprompt = 'a'\n";
    let run = "[run]\nsteps = 1\nseed = 1\n";
    let image = |path: &str| format!("{model}[task.image-to-image]\nprompt = 'a'\nimage = '{path}'\n{run}");
    for (pipeline, says) in [
        (format!("[model]\npath = '/models/sd1'\n{prompt}"), "model.path: \"/models/sd1\" is absolute"),
        (format!("[model]\npath = '../sd1'\n{prompt}"), "model.path: \"../sd1\" contains `..`"),
        (format!("[model]\npath = '~/sd1'\n{prompt}"), "model.path: \"~/sd1\" is in a home folder"),
        (format!("[model]\npath = 'https://host/sd1'\n{prompt}"), "model.path: \"https://host/sd1\" is a URL"),
        (format!("{model}unet.graph = '/x/model.onnx'\n{prompt}"), "model.unet.graph"),
        (image("/etc/passwd"), "--input task.image-to-image.image=PATH"),
        (image("models/../../secret.png"), "task.image-to-image.image"),
        (image("C:\\\\secret.png"), "task.image-to-image.image"),
        (image("\\\\\\\\host\\\\share.png"), "task.image-to-image.image"),
        (format!("{model}{prompt}[run]\nlatents = '/x.npy'\n"), "run.latents"),
        (format!("{model}{prompt}[[lora]]\npath = '../x.safetensors'\n"), "lora[0].path"),
        (format!("{model}{prompt}[[textual_inversion]]\npath = '/x.safetensors'\n"), "textual_inversion[0].path"),
        (format!("{model}{prompt}[[control]]\nimage = '/x.png'\npath = '../net'\n"), "control[0].path"),
        (
            format!("{model}{prompt}[[condition]]\nconditioning = 'cross-attention'\nvectors = '/x.npy'\n"),
            "condition[0].vectors",
        ),
        (
            format!(
                "{model}{prompt}[[condition]]\nconditioning = 'cross-attention'\nlabel_map = 'x.png'\ngraph = '..'\n"
            ),
            "condition[0].graph",
        ),
        (
            format!("{model}{prompt}[[stage]]\nmodel.path = '/x'\ntask.image-to-image = {{}}\n"),
            "--input stage[0].model.path=PATH",
        ),
        (
            format!(
                "{model}{prompt}[device]\nprovider = ['openvino', 'cpu']\n[device.openvino]\nload_config = '/x.json'\n"
            ),
            "--set device.openvino.load_config=VALUE",
        ),
        (
            format!("{model}{prompt}[device]\nprovider = 'qnn'\n[device.qnn]\nbackend_path = 'evil'\n"),
            "device.qnn.backend_path",
        ),
        (format!("{model}{prompt}[runtime]\npath = '/x.so'\n"), "unknown table `runtime`"),
    ] {
        let refused = forged(pipeline.clone(), &[]);
        assert_eq!(refused.code, Some(2), "{pipeline}{refused}");
        assert!(refused.stderr.contains(says), "{says:?} is not in {refused}");
        assert!(refused.stderr.contains("forged.png"), "{refused}");
    }
    // What the command line gives anew is the user's own.
    let given = forged(
        format!("[model]\npath = '/models/sd1'\n{prompt}{run}"),
        &["--model", text(&folder.path().join("models/sd1"))],
    );
    assert_eq!(given.code, Some(0), "{given}");

    let output = format!("[output]\ndir = '{}/stolen'\nsave_intermediate = true\n", text(folder.path()));
    let mut command = ldm_ort(folder.path());
    forge(
        &folder.path().join("forged.png"),
        &out,
        &Record { pipeline: format!("{model}{prompt}{run}{output}"), ..record },
    );
    command.args(["run", "--from", "forged.png"]);
    let ignored = answer(command);
    assert_eq!(ignored.code, Some(0), "{ignored}");
    assert!(ignored.stderr.contains("warning: [output] in the record is ignored"), "{ignored}");
    assert!(ignored.stdout.starts_with("outputs"), "{ignored}");
    assert!(!folder.path().join("stolen").exists());
}

/// Records of the released version 1 had absolute paths and no digests of the small files. They are read with the paths
/// given anew, and what they cannot tell is said.
#[test]
fn a_record_of_version_1_is_read() {
    let (folder, record) = made("");
    let model = folder.path().join("models/sd1");
    let older = Record {
        schema: 1,
        pipeline: record.pipeline.replace("models/sd1", text(&model)),
        arithmetic: String::new(),
        weights: Default::default(),
        files: Default::default(),
        ..record
    };
    let out = folder.path().join("out.png");
    forge(&folder.path().join("older.png"), &out, &older);
    let refused = again(folder.path(), "older.png", &[]);
    assert_eq!(refused.code, Some(2), "{refused}");
    assert!(refused.stderr.contains("model.path") && refused.stderr.contains("--model DIR"), "{refused}");
    let read = again(folder.path(), "older.png", &["--model", "models/sd1"]);
    assert_eq!(read.code, Some(0), "{read}");
    let warnings: Vec<_> = read.stderr.lines().filter(|line| line.starts_with("warning")).collect();
    assert!(matches!(&warnings[..], [one] if one.contains("version 1")), "{read}");
    assert_eq!(pixels(&folder.path().join(read.stdout.trim())), pixels(&out));

    let other = Record { model_digest: "0".into(), ..older };
    forge(&folder.path().join("other.png"), &out, &other);
    let told = again(folder.path(), "other.png", &["--model", "models/sd1"]);
    assert!(told.stderr.contains("the weights are not those"), "{told}");
}
