//! The samplers of the latent diffusion paper's code.

use super::golden::number;
use super::stream::{IMAGES, LENGTH, Stream, difference, model};
use super::table_of;
use crate::common::root;
use ldm_ort::scheduler::{self, ScheduleRequest};
use serde_json::Value;

/// The samplers of the latent diffusion paper's code, recorded by scripts/goldens/golden_compvis.py, are configurations of
/// schedulers.
#[test]
fn the_papers_samplers_are_configurations() {
    let golden = root().join("tests/golden");
    let lines = std::fs::read_to_string(golden.join("compvis.jsonl")).expect("the recording's lines");
    let values = std::fs::read(golden.join("compvis.f32")).expect("the recording's values");
    let values: Vec<f32> = values.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect();
    let mut rest = values.as_slice();
    for line in lines.lines() {
        let case: Value = serde_json::from_str(line).expect("a line of JSON");
        let plms = case["name"] == "plms";
        let mut table = table_of(&[
            ("beta_start", 0.00085.into()),
            ("beta_end", 0.012.into()),
            ("beta_schedule", "scaled_linear".into()),
            ("set_alpha_to_one", false.into()),
            ("timestep_spacing", "compvis".into()),
        ]);
        let (more, name) =
            if plms { (("skip_prk_steps", true.into()), "pndm") } else { (("clip_sample", false.into()), "ddim") };
        table.extend(table_of(&[more]));
        if !plms {
            table.insert("eta".to_owned(), case["eta"].clone());
        }
        let request = ScheduleRequest::new(number(&case, "steps"), IMAGES);
        let mut scheduler = scheduler::build(name, None, &table, &request).expect("it builds");
        let expected_timesteps = rest.split_off(..number(&case, "calls")).expect("timesteps");
        assert_eq!(scheduler.timesteps().iter().map(|t| *t as f32).collect::<Vec<_>>(), expected_timesteps, "{line}");
        let mut stream = Stream::new(case["seed"].as_u64().expect("a seed"));
        let mut x = stream.take(LENGTH);
        assert_eq!(rest.split_off(..LENGTH), Some(&x[..]));
        for step in 0..expected_timesteps.len() {
            let output = model(&x, scheduler.timesteps()[step], false);
            scheduler.step(step, &output, &mut x, &mut stream).expect("it steps");
            // The first step of the paper's PLMS has two evaluations, which are two steps in diffusers.
            if !(plms && step == 0) {
                let expected = rest.split_off(..LENGTH).expect("a sample");
                let error = difference(&x, expected);
                assert!(error < 1e-5, "{error:.1e} off after evaluation {step}: {line}");
            }
        }
    }
    assert!(rest.is_empty());
}
