//! One graph on operators of our own or ONNX Runtime's, at one size, for `scripts/bench/denoisers.py`.
//!
//! ```sh
//! cargo bench --bench graph -- FOLDER float32|bf16|int8|onnxruntime RUNS NAME=LENGTH…
//! ```
//!
//! FOLDER holds `model.onnx` and an `INPUT.npy` in float32 for each of its inputs. The first output is written to
//! `PRECISION.npy`, and a line of JSON to stdout: seconds to open the graph and of each run.

use std::path::Path;
use std::time::Instant;

use ldm_ort::bundle::GraphFile;
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::kernels::{Filtering, InstructionSet, OperandType};
use ldm_ort::npy;
use ldm_ort::rewrite::{OperatorChoice, Pass};
use ldm_ort::session::{Cancel, Session, SessionOptions};
use ldm_ort::tensor::TensorView;
use ldm_ort::{Engine, Runtime};

type Answer = Result<(), Box<dyn std::error::Error>>;

/// The passes of a denoiser on this CPU.
fn passes(precision: &str) -> Vec<Pass> {
    let set = InstructionSet::used();
    let linear_in_int8 = precision == "int8";
    let operators = if precision == "bf16" || linear_in_int8 && set.is_faster_in_bf16() {
        let filtering = (set != InstructionSet::Amx).then_some(Filtering::Four);
        OperatorChoice::new(OperandType::Bf16, filtering)
    } else {
        OperatorChoice::new(OperandType::Float32, Some(Filtering::Four))
    };
    let operators = Pass::Operators(OperatorChoice { linear_in_int8, ..operators });
    let own = (precision != "onnxruntime").then_some([Pass::AxisNames, operators]);
    [Pass::Attention, Pass::FeedForward, Pass::Subpixel].into_iter().chain(own.into_iter().flatten()).collect()
}

fn measure(folder: &Path, precision: &str, runs: usize, axes: Vec<(String, usize)>) -> Answer {
    let runtime = Runtime::load(&Engine::default().runtime_options(None))?;
    let graph = GraphFile::open(&folder.join("model.onnx"))?;
    let options = SessionOptions { axes, ..SessionOptions::default() };
    let cache = GraphCache::new(folder.join("graphs"));
    cache.optimize(&runtime, &graph, &passes(precision), &options, &mut |_| {})?;
    let start = Instant::now();
    let mut session: Session = cache.open(&runtime, &graph, &passes(precision), &options, &mut |_| {})?;
    let opened = start.elapsed().as_secs_f64();
    let read = |name: &str| npy::read_f32(folder.join(format!("{name}.npy")));
    let arrays = session.inputs().iter().map(|info| Ok((info.name.clone(), read(&info.name)?)));
    let arrays = arrays.collect::<ldm_ort::Result<Vec<_>>>()?;
    let inputs: Vec<_> = arrays.iter().map(|(name, array)| (name.as_str(), TensorView::F32(array.view()))).collect();
    let output = session.outputs()[0].name.clone();
    let mut seconds = Vec::new();
    for _ in 0..runs {
        let start = Instant::now();
        let made = session.run(&inputs, &[&output], &Cancel::new())?;
        seconds.push(start.elapsed().as_secs_f64());
        npy::write_f32(folder.join(format!("{precision}.npy")), made[0].view())?;
    }
    println!("{{\"precision\": \"{precision}\", \"open\": {opened:.3}, \"seconds\": {seconds:.3?}}}");
    Ok(())
}

fn main() -> Answer {
    if let Ok(name) = std::env::var("LDM_ORT_INSTRUCTION_SET") {
        InstructionSet::choose(&name)?;
    }
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let [folder, precision, runs, axes @ ..] = arguments.as_slice() else {
        println!("cargo bench --bench graph -- FOLDER float32|bf16|int8|onnxruntime RUNS NAME=LENGTH…");
        return Ok(());
    };
    let axis = |text: &String| {
        let (name, length) = text.split_once('=').ok_or("expected NAME=LENGTH")?;
        Ok::<_, Box<dyn std::error::Error>>((name.to_owned(), length.parse()?))
    };
    let axes = axes.iter().map(axis).collect::<Result<Vec<_>, _>>()?;
    measure(Path::new(folder), precision, runs.parse()?, axes)
}
