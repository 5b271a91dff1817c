//! The errors for damaged or wrong files and directories.

use ldm_ort::bundle::{Bundle, DirectoryOverrides, GraphFile};

use super::writer::{Dir, F32, Model, legacy, unet};

/// Returns the error for these bytes in a graph's file.
fn message(contents: impl AsRef<[u8]>) -> String {
    let message = Dir::new().put("unet/model.onnx", contents).error();
    assert!(message.contains("model.onnx"), "{message}");
    message
}

#[test]
fn an_empty_file_is_called_empty() {
    assert!(message("").contains("is empty"));
}

#[test]
fn a_web_page_is_called_a_web_page() {
    for page in ["<!DOCTYPE html><html>Sign in</html>", "\n  <html>", "\u{feff}<?xml version=\"1.0\"?>"] {
        assert!(message(page).contains("looks like a web page"), "{page}");
    }
}

#[test]
fn a_git_lfs_pointer_is_called_one() {
    let pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 3438167540\n";
    let message = message(pointer);
    assert!(message.contains("Git LFS pointer") && message.contains("git lfs pull"), "{message}");
}

#[test]
fn a_cut_file_is_told_with_both_sizes() {
    let whole = unet().weight("w", &[1000]).build();
    for length in [whole.len() - 1, whole.len() / 2, 40] {
        let message = message(&whole[..length]);
        assert!(message.contains("truncated"), "{length}: {message}");
        assert!(message.contains(&format!("it has {length}")), "{length}: {message}");
    }
}

#[test]
fn other_files_are_not_taken_for_graphs() {
    assert!(message("PK\x03\x04 and so on").contains("PyTorch"));
    assert!(message("\x10\0\0\0\0\0\0\0{\"__metadata__\":{}}").contains("PyTorch"));
    assert!(message("\x18\0\0\0ORTM____").contains(".ort format"));
    assert!(message("hello, I am not a graph").contains("not an ONNX graph"));
    assert!(message([0xff; 64]).contains("not an ONNX graph"));
    assert!(message(b"\x08\x08").contains("contains no graph"));
}

#[test]
fn damage_inside_the_graph_is_told() {
    let mut bytes = unet().build();
    let at = bytes.windows(6).position(|w| w == b"sample").unwrap();
    bytes[at - 1] = 0x7f;
    assert!(message(bytes).contains("damaged"));
}

#[test]
fn a_graph_without_inputs_is_refused() {
    let model = Model::new().output("out", F32, "1").weight("w", &[1]);
    assert!(message(model.build()).contains("no inputs"));
}

#[test]
fn stored_inputs_need_not_be_fed() {
    let model = unet().input("w", F32, "3").weight("w", &[3]);
    let dir = Dir::new().graph("unet/model.onnx", model);
    assert_eq!(dir.only_component().graph.inputs.len(), 3);
}

#[test]
fn missing_weights_are_named() {
    let dir = Dir::new().graph("unet/model.onnx", unet().external("w", &[100], "model.onnx_data", 16));
    let message = dir.error();
    assert!(message.contains("model.onnx_data") && message.contains("416 bytes"), "{message}");
    assert!(message.contains("copy model.onnx_data next to it"), "{message}");
}

#[test]
fn short_weights_are_told_with_both_sizes() {
    let dir = Dir::new().graph("unet/model.onnx", unet().external("w", &[100], "weights.pb", 16));
    let dir = dir.put("unet/weights.pb", [0; 415]);
    let message = dir.error();
    for part in ["weights.pb", "truncated", "tensor w", "needs 416 bytes", "it has 415"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    let dir = dir.put("unet/weights.pb", [0; 416]);
    let external = &dir.only_component().graph.external;
    assert_eq!((external[0].bytes, external[0].needed), (416, 416));
    let pointer = "version https://git-lfs.github.com/spec/v1\n";
    assert!(dir.put("unet/weights.pb", pointer).error().contains("git lfs pull"));
}

#[test]
fn weights_elsewhere_are_refused() {
    for location in ["/etc/passwd", "../weights.pb", "a/../../weights.pb", "..\\weights.pb", ""] {
        let dir = Dir::new().put("weights.pb", [0; 64]);
        let dir = dir.graph("unet/model.onnx", unet().external("w", &[1], location, 0));
        let message = dir.error();
        assert!(message.contains("outside of its own directory"), "{location}: {message}");
    }
    let dir = Dir::new().put("unet/parts/w.bin", [0; 64]);
    let dir = dir.graph("unet/model.onnx", unet().external("w", &[1], "parts/w.bin", 0));
    assert_eq!(dir.only_component().graph.external[0].location, "parts/w.bin");
}

#[test]
fn an_offset_that_overflows_is_refused() {
    let dir = Dir::new().put("unet/w", [0; 64]);
    let dir = dir.graph("unet/model.onnx", unet().external("w", &[100], "w", u64::MAX - 3));
    assert!(dir.error().contains("overflows"));
}

#[cfg(unix)]
mod links {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_link_out_of_the_model_is_followed() {
        let elsewhere = Dir::new().put("disk", [0; 64]);
        let dir = Dir::new().graph("unet/model.onnx", unet().external("w", &[1], "weights.pb", 0));
        symlink(elsewhere.join("disk"), dir.join("unet/weights.pb")).unwrap();
        assert!(dir.only_component().graph.external[0].is_linked);
    }

    #[test]
    fn a_link_does_not_widen_what_a_graph_may_name() {
        let elsewhere = Dir::new().put("weights.pb", [0; 64]);
        let dir = Dir::new().graph("unet/model.onnx", unet().external("w", &[1], "../weights.pb", 0));
        symlink(elsewhere.join("weights.pb"), dir.join("weights.pb")).unwrap();
        assert!(dir.error().contains("outside of its own directory"));
    }

    #[test]
    fn a_link_inside_the_model_is_followed() {
        let dir = Dir::new().put("blob", [0; 64]);
        let dir = dir.graph("unet/model.onnx", unet().external("w", &[1], "weights.pb", 0));
        symlink("../blob", dir.join("unet/weights.pb")).unwrap();
        assert!(dir.only_component().graph.external[0].is_linked);
        let plain = Dir::new().graph("real/model.onnx", unet().external("w", &[1], "./w", 0)).put("real/w", [0; 4]);
        symlink("real", plain.join("unet")).unwrap();
        assert!(
            !plain.only_component().graph.external[0].is_linked,
            "the folder is a link, and the file in it is none"
        );
    }

    #[test]
    fn a_snapshot_of_the_hugging_face_cache_opens() {
        let repo = Dir::new().graph("blobs/1", unet().external("w", &[1], "weights.pb", 0)).put("blobs/2", [0; 4]);
        let snapshot = repo.join("snapshots/abc");
        std::fs::create_dir_all(snapshot.join("unet")).unwrap();
        symlink("../../../blobs/1", snapshot.join("unet/model.onnx")).unwrap();
        symlink("../../../blobs/2", snapshot.join("unet/weights.pb")).unwrap();
        let bundle = Bundle::open(&snapshot, &DirectoryOverrides::default()).unwrap();
        assert_eq!(bundle.components.len(), 1);
        std::fs::remove_file(repo.join("blobs/2")).unwrap();
        let error = Bundle::open(&snapshot, &DirectoryOverrides::default()).unwrap_err().to_string();
        for part in ["unet/weights.pb", "blobs/2, which does not exist", "incomplete"] {
            assert!(error.contains(part), "{part}: {error}");
        }
    }

    /// A cache entry with these snapshots of one graph each.
    fn entry(snapshots: &[&str]) -> Dir {
        let dir = Dir::new().put("blobs/1", unet().build());
        for name in snapshots {
            std::fs::create_dir_all(dir.join(&format!("snapshots/{name}/unet"))).unwrap();
            symlink("../../../blobs/1", dir.join(&format!("snapshots/{name}/unet/model.onnx"))).unwrap();
        }
        dir
    }

    #[test]
    fn an_entry_of_the_cache_stands_for_its_snapshot() {
        let open = |dir: &Dir| Bundle::open(dir.path(), &DirectoryOverrides::default());
        let one = entry(&["abc"]);
        assert_eq!(open(&one).unwrap().dir, one.join("snapshots/abc"));
        let two = entry(&["abc", "def"]);
        let error = open(&two).unwrap_err().to_string();
        assert!(error.contains("abc, def") && error.contains("such as"), "{error}");
        let two = two.put("refs/main", "def\n");
        assert_eq!(open(&two).unwrap().dir, two.join("snapshots/def"));
        for gone in ["other", "../snapshots/abc", ""] {
            let error = open(&entry(&["abc"]).put("refs/main", gone)).unwrap_err().to_string();
            assert!(error.contains("refs/main") && error.contains("incomplete"), "{gone:?}: {error}");
        }
        let error = open(&entry(&[]).put("snapshots/.keep", "").put("refs/other", "")).unwrap_err().to_string();
        assert!(error.contains("snapshots"), "{error}");
        let error = Bundle::open(&two.join("snapshots"), &DirectoryOverrides::default()).unwrap_err().to_string();
        assert!(error.contains("use one of them, or the entry itself"), "{error}");
    }

    #[test]
    fn a_dangling_link_is_an_unfinished_download() {
        let dir = Dir::new().put("unet/config.json", "{}");
        symlink("../blobs/none", dir.join("unet/model.onnx")).unwrap();
        let message = dir.error();
        assert!(message.contains("does not exist") && message.contains("incomplete"), "{message}");
    }

    #[test]
    fn folders_and_files_that_are_broken_links_are_named() {
        let model = || legacy().put("model_index.json", "{}");
        for name in ["vae_decoder", "scheduler", "tokenizer", "text_encoder_2", "model_index.json"] {
            let dir = if name == "model_index.json" { legacy() } else { model() };
            let at = dir.join(name);
            let _ = std::fs::remove_dir_all(&at);
            let _ = std::fs::remove_file(&at);
            symlink("../gone", &at).unwrap();
            let message = dir.error();
            assert!(message.contains(&format!("{name}: is a link to")), "{name}: {message}");
            std::fs::remove_file(&at).unwrap();
            symlink(name, &at).unwrap();
            let message = dir.error();
            assert!(message.contains("points back to itself"), "{name}: {message}");
        }
        let dir = model();
        symlink("gone", dir.join("safety_checker")).unwrap();
        Bundle::open(dir.path(), &DirectoryOverrides::default()).unwrap();
    }
}

#[test]
fn a_directory_without_a_model_says_what_was_looked_for() {
    let message = Dir::new().put("notes.txt", "").error();
    for part in ["expected unet/model.onnx", "found notes.txt"] {
        assert!(message.contains(part), "{message}");
    }
    assert!(Dir::new().error().contains("found nothing"));
}

#[test]
fn a_pytorch_checkpoint_is_sent_to_the_exporter() {
    let dir = Dir::new().put("unet/diffusion_pytorch_model.safetensors", "").put("model_index.json", "{}");
    assert!(dir.error().contains("scripts/export.py"));
    let file = Dir::new().put("v1-5.ckpt", "");
    let error = Bundle::open(&file.join("v1-5.ckpt"), &DirectoryOverrides::default()).unwrap_err().to_string();
    assert!(error.contains("is a file") && error.contains("scripts/export.py"), "{error}");
}

#[test]
fn a_missing_directory_is_told() {
    let dir = Dir::new();
    let error = Bundle::open(&dir.join("none"), &DirectoryOverrides::default()).unwrap_err();
    assert_eq!(error.exit_code(), 2);
    assert!(error.to_string().contains("no such directory"), "{error}");
}

#[test]
fn several_graphs_in_one_place_are_listed() {
    let dir = Dir::new().graph("unet/a.onnx", unet()).graph("unet/b.onnx", unet());
    let message = dir.error();
    assert!(message.contains("a.onnx, b.onnx") && message.contains("[model.unet] graph = "), "{message}");
}

#[test]
fn configurations_that_do_not_parse_are_named() {
    let message = legacy().put("unet/config.json", "{\"in_channels\": }").error();
    assert!(message.contains("unet/config.json") && message.contains("line 1"), "{message}");
    assert!(legacy().put("scheduler/scheduler_config.json", "<html>").error().contains("web page"));
    assert!(legacy().put("model_index.json", "[1]").error().contains("a JSON object"));
    assert!(legacy().put("model_index.json", [0xff, 0xfe]).error().contains("not JSON"));
}

#[test]
fn a_graph_that_is_not_there_is_told() {
    let dir = Dir::new();
    let error = GraphFile::open(&dir.join("none.onnx")).unwrap_err();
    assert!(error.to_string().contains("no such file"), "{error}");
    let error = GraphFile::open(dir.path()).unwrap_err();
    assert!(error.to_string().contains("is a directory"), "{error}");
}
