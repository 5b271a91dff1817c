//! Programs in C and C++ are compiled with warnings as errors, by each compiler that is installed, and run: as they are,
//! under valgrind, and with AddressSanitizer.
//!
//! They need the library: `cargo build -p ldm-ort-c` before `cargo test -p ldm-ort-c`.

use std::mem::offset_of;
use std::path::{Path, PathBuf};
use std::process::Command;

use ort_sys::OrtApi;

#[path = "../../../tests/it/common/fixtures.rs"]
mod fixtures;
#[path = "programs/parity.rs"]
mod parity;

/// The functions of ONNX Runtime that `host.c` calls, by their places in its table.
const ORT: &[(&str, usize)] = &[
    ("GetErrorMessage", offset_of!(OrtApi, GetErrorMessage)),
    ("CreateEnv", offset_of!(OrtApi, CreateEnv)),
    ("CreateThreadingOptions", offset_of!(OrtApi, CreateThreadingOptions)),
    ("SetGlobalIntraOpNumThreads", offset_of!(OrtApi, SetGlobalIntraOpNumThreads)),
    ("CreateEnvWithGlobalThreadPools", offset_of!(OrtApi, CreateEnvWithGlobalThreadPools)),
    ("CreateSessionOptions", offset_of!(OrtApi, CreateSessionOptions)),
    ("DisablePerSessionThreads", offset_of!(OrtApi, DisablePerSessionThreads)),
    ("CreateSession", offset_of!(OrtApi, CreateSession)),
    ("CreateCpuMemoryInfo", offset_of!(OrtApi, CreateCpuMemoryInfo)),
    ("CreateTensorWithDataAsOrtValue", offset_of!(OrtApi, CreateTensorWithDataAsOrtValue)),
    ("Run", offset_of!(OrtApi, Run)),
    ("GetTensorMutableData", offset_of!(OrtApi, GetTensorMutableData)),
    ("ReleaseValue", offset_of!(OrtApi, ReleaseValue)),
    ("ReleaseMemoryInfo", offset_of!(OrtApi, ReleaseMemoryInfo)),
    ("ReleaseSession", offset_of!(OrtApi, ReleaseSession)),
    ("VERSION", ort_sys::ORT_API_VERSION as usize),
    ("INT64", ort_sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64 as usize),
];

fn models() -> PathBuf {
    fixtures::root().join("tests/fixtures/models")
}

fn crate_folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder with the libraries, above that of this test.
fn libraries() -> PathBuf {
    let test = std::env::current_exe().expect("this test");
    let folder = test.ancestors().nth(2).expect("a target folder").to_path_buf();
    assert!(folder.join("libldm_ort.so").is_file(), "{} has no library: cargo build -p ldm-ort-c", folder.display());
    folder
}

/// A folder with a program's files and the pipeline of the tiny Stable Diffusion model.
struct World(tempfile::TempDir);

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let model = models().join("sd1");
        let text = format!(
            "[model]\npath = '{}'\n[task.text-to-image]\nprompt = 'a black cat'\nguidance_scale = 5.0\n\
             [scheduler.euler]\n[run]\nsteps = 3\nseed = 4\n",
            model.display()
        );
        std::fs::write(folder.path().join("pipeline.toml"), text).expect("a file");
        Self(folder)
    }

    fn path(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    fn pipeline(&self) -> String {
        self.path("pipeline.toml")
    }

    /// Compiles one of the programs, with further flags.
    fn compile(&self, compiler: &str, source: &str, flags: &[&str]) -> String {
        self.compile_file(compiler, &crate_folder().join("tests/programs").join(source), flags)
    }

    fn compile_file(&self, compiler: &str, source: &Path, flags: &[&str]) -> String {
        let programs = crate_folder().join("tests/programs");
        let name = source.file_stem().and_then(|name| name.to_str()).expect("a name");
        let standard =
            if source.extension().is_some_and(|extension| extension == "cpp") { "-std=c++17" } else { "-std=gnu11" };
        let mut command = Command::new(compiler);
        command.args([standard, "-Wall", "-Wextra", "-Werror", "-g", "-O1", "-pthread"]).args(flags);
        command.args(ORT.iter().map(|(name, value)| format!("-DORT_{name}={value}")));
        command.arg("-I").arg(crate_folder().join("include")).arg("-I").arg(&programs);
        command.arg(source).arg("-o").arg(self.0.path().join(name));
        if !flags.iter().any(|flag| flag.ends_with(".a")) {
            command.arg("-L").arg(libraries()).arg("-lldm_ort").arg(format!("-Wl,-rpath,{}", libraries().display()));
        }
        succeed(command.arg("-ldl").arg("-lm"));
        self.path(name)
    }
}

/// Runs a command, which must succeed, and returns its output.
fn succeed(command: &mut Command) -> String {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{command:?}: {}\n{text}", output.status);
    text
}

fn run(program: &str, arguments: &[&str]) -> String {
    succeed(Command::new(program).args(arguments))
}

fn is_installed(program: &str) -> bool {
    Command::new(program).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// The compilers of C and C++ that are installed; the system's own are required.
fn compilers() -> Vec<(&'static str, &'static str)> {
    assert!(is_installed("cc") && is_installed("c++"), "no C compiler: install gcc or clang");
    [("gcc", "g++"), ("clang", "clang++")].into_iter().filter(|(c, cpp)| is_installed(c) && is_installed(cpp)).collect()
}

/// The PNG that the command's library writes for the pipeline.
fn png_of(pipeline: &str) -> Vec<u8> {
    let engine = ldm_ort::Engine::builder().graph_cache(false).build().expect("an engine");
    let images = engine.open(pipeline).and_then(|mut open| open.generate(&ldm_ort::Request::new())).expect("images");
    images[0].to_png().expect("a PNG")
}

#[test]
fn programs_get_the_same_bytes_in_every_language() {
    let world = World::new();
    let expected = png_of(&world.pipeline());
    for (c, cpp) in compilers() {
        for (compiler, source) in [(c, "first.c"), (cpp, "wrapper.cpp")] {
            let program = world.compile(compiler, source, &[]);
            run(&program, &[&world.pipeline(), &world.path("image.png")]);
            let written = std::fs::read(world.path("image.png")).expect("an image");
            assert!(written == expected, "{compiler} {source}: other bytes");
        }
    }
}

#[test]
fn the_guides_programs_work_as_written() {
    let world = World::new();
    let guide = std::fs::read_to_string(fixtures::root().join("docs/c.md")).expect("the guide");
    for (language, compiler) in [("c", "cc"), ("cpp", "c++")] {
        let start = format!("```{language}\n#include");
        let at = guide.find(&start).unwrap_or_else(|| panic!("docs/c.md has no program in {language}"));
        let text = guide[at..].lines().skip(1).take_while(|line| *line != "```").collect::<Vec<_>>().join("\n") + "\n";
        let source = world.0.path().join("guide").with_extension(language);
        std::fs::write(&source, text).expect("a file");
        let image = world.path(&format!("{language}.png"));
        let said = run(&world.compile_file(compiler, &source, &[]), &[&world.pipeline(), &image]);
        assert!(said.contains("step 4 of 4"), "{said}");
        assert!(std::fs::read(&image).expect("an image").starts_with(b"\x89PNG"), "{language}: no PNG");
    }
}

#[test]
fn the_static_library_needs_no_other_file() {
    let world = World::new();
    let library = libraries().join("libldm_ort.a").display().to_string();
    // The library is after the program on the linker's line.
    let program = world.compile("cc", "first.c", &["-Wl,--whole-archive", &library, "-Wl,--no-whole-archive"]);
    run(&program, &[&world.pipeline(), &world.path("image.png")]);
}

#[test]
fn requests_are_refused_and_the_pipeline_lives_on() {
    let world = World::new();
    for (c, _) in compilers() {
        run(&world.compile(c, "refused.c", &[]), &[&world.pipeline()]);
    }
}

#[test]
fn threads_cancel_and_meet() {
    let world = World::new();
    run(&world.compile("cc", "threads.c", &[]), &[&world.pipeline()]);
}

#[test]
fn fifty_cycles_leave_no_memory_behind() {
    let world = World::new();
    println!("{}", run(&world.compile("cc", "cycles.c", &[]), &[&world.pipeline(), "50"]));
}

#[test]
fn hosts_share_their_runtime() {
    let world = World::new();
    let runtime = ldm_ort::Engine::default().load_runtime(
        &ldm_ort::Spec::load(world.pipeline().as_ref(), &ldm_ort::Overrides::default()).expect("a pipeline"),
        &ldm_ort::Cancel::new(),
        &mut |_| {},
    );
    let runtime = runtime.expect("ONNX Runtime").path().display().to_string();
    let model = models().join("sd1/text_encoder/model.onnx").display().to_string();
    let program = world.compile("cc", "host.c", &[]);
    for threads in ["host", "own"] {
        println!("{threads}: {}", run(&program, &[&world.pipeline(), &model, &runtime, threads]));
    }
    run(&world.compile("cc", "old_host.c", &[]), &[&world.pipeline()]);
}

/// Leaks and wrong uses of memory, of this library: what ONNX Runtime keeps until the process ends is not counted. valgrind
/// takes a minute, so that it is run where `LDM_ORT_VALGRIND` is set, as by `scripts/check --full`.
#[test]
fn sanitizers_find_nothing() {
    let world = World::new();
    let image = world.path("image.png");
    for source in ["first.c", "refused.c", "threads.c"] {
        let program = world.compile("gcc", source, &["-fsanitize=address", "-fno-omit-frame-pointer"]);
        let mut command = Command::new(&program);
        command.arg(world.pipeline()).env("ASAN_OPTIONS", "detect_leaks=0");
        if source == "first.c" {
            command.arg(&image);
        }
        succeed(&mut command);
    }
    if std::env::var_os("LDM_ORT_VALGRIND").is_none() || !is_installed("valgrind") {
        println!("LDM_ORT_VALGRIND is not set, or valgrind is not installed: not run under it");
        return;
    }
    for (source, rest) in [("refused.c", ""), ("cycles.c", "3"), ("first.c", image.as_str())] {
        let program = world.compile("gcc", source, &[]);
        let mut command = Command::new("valgrind");
        let suppressions = crate_folder().join("tests/programs/valgrind.supp");
        command.arg("--leak-check=full").arg("--error-exitcode=9").arg("--errors-for-leak-kinds=definite");
        command.arg(format!("--suppressions={}", suppressions.display())).arg(&program).arg(world.pipeline());
        if !rest.is_empty() {
            command.arg(rest);
        }
        succeed(&mut command);
    }
}
