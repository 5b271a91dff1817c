//! Mistakes in what surrounds a run: the folder it writes to, the runtime, the providers, the command line itself.

use crate::Row;

pub fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row::new("a file in the place of the output folder")
            .files(|f| f.write("out", "in the way"))
            .says(&["output.dir", "out is a file"]),
        Row::new("an output folder below a file")
            .change("dir = 'out'", "dir = 'pipeline.toml/out'")
            .says(&["output.dir", "pipeline.toml is a file"]),
        Row::new("latents into a folder that is not there")
            .flags(&["--save-latents", "nowhere/latents.npy"])
            .says(&["nowhere"]),
        Row::new("latents over a folder").flags(&["--save-latents", "."]).says(&["--save-latents", "directory"]),
        Row::new("a provider that this build of the runtime lacks")
            .over(&["--provider", "cuda"])
            .unseen_by_check()
            .says(&["provider cuda"]),
        Row::new("a list of providers that this build lacks")
            .over(&["--set", "device.provider=['tensorrt', 'cuda']"])
            .unseen_by_check()
            .says(&["provider tensorrt", "cuda"]),
        Row::new("a runtime that is not there").flags(&["--runtime", "nowhere/libonnxruntime.so"]).fails().says(&[
            "ONNX Runtime",
            "nowhere/libonnxruntime.so",
            "--runtime",
        ]),
        Row::new("a runtime that is no library")
            .files(|f| f.write("libonnxruntime.so", "not a library"))
            .flags(&["--runtime", "libonnxruntime.so"])
            .fails()
            .says(&["ONNX Runtime", "libonnxruntime.so"]),
        Row::new("a variable that names no library")
            .files(|f| f.write("libonnxruntime.so", "not a library"))
            .environment("ORT_DYLIB_PATH", "libonnxruntime.so")
            .command(&["run", "pipeline.toml"])
            .fails()
            .says(&["ONNX Runtime", "libonnxruntime.so", "ORT_DYLIB_PATH"]),
        Row::new("an error and --json").change("steps = 2", "steps = 0").flags(&["--json"]).says(&["run.steps"]),
        Row::new("no arguments").command(&[]).says(&["Usage", "run"]),
        Row::new("an unknown command").command(&["draw", "pipeline.toml"]).says(&["draw", "Usage", "--help"]),
        Row::new("run, and no more").command(&["run"]).says(&["<PIPELINE.toml>"]),
        Row::new("a list of nothing").command(&["list", "samplers"]).says(&["samplers", "schedulers"]),
        Row::new("a runtime that is not built").command(&["runtime", "install", "metal"]).says(&["metal", "cpu"]),
    ];
    if cfg!(unix) {
        rows.push(
            Row::new("a full disk")
                .after_shell("trap '' XFSZ; ulimit -f 4")
                .change("width = 64", "width = 128")
                .fails()
                .says(&["out/", "writing failed"]),
        );
        rows.push(
            Row::new("a full disk for the latents")
                .after_shell("trap '' XFSZ; ulimit -f 40")
                .change("seed = 1", "seed = 1\nimages = 48")
                .flags(&["--save-latents", "latents.npy"])
                .fails()
                .leaves(48)
                .says(&["latents.npy", "writing failed"]),
        );
    }
    if cfg!(target_os = "linux") {
        // Every place that is searched lies in the empty folder; the system's own are empty where none is installed.
        rows.push(
            Row::new("no runtime, and none to be fetched")
                .environment("ORT_DYLIB_PATH", "")
                .environment("XDG_CACHE_HOME", "/nonexistent/cache")
                .environment("HOME", "/nonexistent")
                .flags(&["--offline"])
                .fails()
                .says(&["ONNX Runtime", "the network may not be used", "pip download", "ORT_DYLIB_PATH"]),
        );
    }
    rows
}
