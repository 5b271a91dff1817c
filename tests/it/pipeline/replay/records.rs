//! The paths in a record.

use super::{again, made};
use crate::pipeline::text;
use ldm_ort::{Overrides, Spec};

#[test]
fn a_record_names_nothing_of_the_machine() {
    let lora = "[[lora]]\npath = 'LORA'\n[device.cuda]\nx = 1\n[device]\nprovider = ['cuda', 'cpu']\n";
    let (folder, record) = made("");
    let json = serde_json::to_string(&record).expect("JSON");
    let here = text(folder.path());
    assert!(!json.contains(here) && !json.contains(env!("CARGO_MANIFEST_DIR")), "{json}");
    assert!(record.pipeline.contains("path = \"models/sd1\""), "{}", record.pipeline);
    assert!(!record.pipeline.contains("[output]"), "{}", record.pipeline);
    let names = |map: &std::collections::BTreeMap<String, String>| map.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&record.weights), ["text_encoder", "unet", "vae_decoder"]);
    for file in
        ["model_index.json", "scheduler/scheduler_config.json", "vae_decoder/config.json", "tokenizer/merges.txt"]
    {
        assert!(record.files.contains_key(file), "{file}: {:?}", record.files);
    }

    // Options that could name a file stay behind; plain ones do not.
    let options = "trt_engine_cache_path = '/home/me/cache'\ndevice_id = 0\n";
    let spec = lora.replace("LORA", "/home/me/style.safetensors").replace("x = 1\n", options);
    let spec = format!("[model]\npath = '/home/me/sd15'\n[task.text-to-image]\nprompt = ''\n{spec}");
    let spec = Spec::parse(&spec, None, &Overrides::default()).expect("a pipeline");
    let portable = spec.to_record(Default::default(), &Default::default());
    assert!(!portable.contains("/home") && !portable.contains("cache_path"), "{portable}");
    assert!(portable.contains("path = \"style.safetensors\"") && portable.contains("device_id = \"0\""), "{portable}");
}

#[test]
fn a_record_has_absolute_paths_where_they_are_asked_for_and_no_run_follows_them() {
    let (folder, record) = made("[output]\nrecord_paths = 'absolute'\n");
    let model = folder.path().join("models/sd1");
    assert!(record.pipeline.contains(text(&model)), "{}", record.pipeline);
    let refused = again(folder.path(), "out.png", &[]);
    assert_eq!(refused.code, Some(2), "{refused}");
    for says in ["out.png", "model.path", "is absolute", "--model DIR"] {
        assert!(refused.stderr.contains(says), "{says}: {refused}");
    }
    let given = again(folder.path(), "out.png", &["--model", "models/sd1"]);
    assert_eq!(given.code, Some(0), "{given}");
    assert!(!given.stderr.contains("warning"), "{given}");
}
