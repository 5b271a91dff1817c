//! Comparing components with the CPU: `check --verify`, and graphs that are compared before they are first used.

use std::path::Path;

use ldm_ort::bundle::ModuleWeights;
use ldm_ort::execution::{Execution, ExecutionEvent, VerificationOutcome, verify_session};
use ldm_ort::graph_cache::GraphCache;
use ldm_ort::plan::Plan;
use ldm_ort::session::{Cancel, Session, SessionOptions};
use ldm_ort::spec::{Overrides, Spec};
use ldm_ort::tensor::Weight;

use crate::common::{answer, copy_folder, ldm_ort, models, root, runtime};

fn plan(model: &Path, cache: Option<&Path>, set: &[&str]) -> Plan {
    let model = model.to_str().expect("the test's folders are named in Unicode");
    let text =
        format!("[model]\npath = {model:?}\n[task.text-to-image]\nprompt = \"a red circle\"\n[run]\nsteps = 2\n");
    let set = set.iter().map(|&key| key.to_owned()).collect();
    let spec = Spec::parse(&text, None, &Overrides { set, ..Overrides::default() }).expect("a pipeline");
    let mut plan = Plan::new(spec).expect("a plan");
    plan.execution.graph_cache = cache.map(GraphCache::new);
    plan
}

/// The components that were compared as a pipeline was opened, and those whose comparison was known.
fn opened(plan: &Plan) -> [Vec<String>; 2] {
    let (mut compared, mut remembered) = (Vec::new(), Vec::new());
    let mut observe = |event: ExecutionEvent<'_>| {
        if let ExecutionEvent::Verified(verification) = event {
            let VerificationOutcome::Compared { is_remembered, .. } = verification.outcome else {
                panic!("{}", verification.to_line())
            };
            if is_remembered { &mut remembered } else { &mut compared }.push(verification.component.clone());
        }
    };
    let execution = Execution::load(plan, &runtime(), &Cancel::new(), &mut observe).expect("a pipeline");
    assert_eq!(execution.verifications().len(), compared.len() + remembered.len());
    [compared, remembered]
}

/// A graph with one layer's weights negated is wrong, and the same graph as it is stored is right.
#[test]
fn a_component_with_a_wrong_weight_is_an_error() {
    root();
    let plan = plan(&models().join("sd1"), None, &[]);
    let (model, runtime, cancel) = (&plan.execution, runtime(), Cancel::new());
    let mut tried = Vec::new();
    for opening in model.openings() {
        let weights = ModuleWeights::open(opening.graph).expect("weights");
        let wrong = |weight| -> Weight {
            let values = weights.read(weight).expect("values");
            weight.replacement(values.iter().map(|value| -value).collect()).expect("floats")
        };
        let options = SessionOptions { component: opening.name(), ..model.session_options(&opening) };
        let open = |weights| Session::open_with(&runtime, &opening.graph.path, &options, weights).expect("a session");
        let verify =
            |mut session| verify_session(model, &opening, &mut session, &runtime, &cancel).expect("a comparison");
        let right = verify(open(Vec::new()));
        assert!(right.error().is_none() && right.to_line().contains("right"), "{}", right.to_line());
        let Some(first) = weights.modules.first() else { continue };
        tried.push(opening.kind);
        let found = verify(open(vec![wrong(first)]));
        let error = found.error().unwrap_or_else(|| panic!("{}", found.to_line()));
        assert_eq!(error.exit_code(), 2);
        let text = error.to_string();
        assert!(text.starts_with(&format!("provider cpu: computes {} wrongly", opening.name())), "{text}");
    }
    assert!(tried.contains(&model.model.denoiser.kind), "{tried:?}");
}

#[test]
fn graphs_are_compared_once_and_again_if_they_change() {
    root();
    let folder = tempfile::tempdir().expect("a folder");
    let (model, cache) = (folder.path().join("model"), folder.path().join("cache"));
    copy_folder(&models().join("sd1"), &model);
    let all = ["text_encoder", "unet", "vae_decoder"].map(str::to_owned).to_vec();
    let verify = ["device.verify=true"];
    let none = Vec::<String>::new;
    // Graphs on the CPU are compared if a pipeline says so.
    assert_eq!(opened(&plan(&model, Some(&cache), &[])), [none(), none()]);
    assert_eq!(opened(&plan(&model, Some(&cache), &verify)), [all.clone(), none()]);
    assert_eq!(opened(&plan(&model, Some(&cache), &verify)), [none(), all.clone()]);
    assert_eq!(opened(&plan(&model, Some(&cache), &["device.verify=false"])), [none(), none()]);
    // Without a cache, nothing is remembered.
    assert_eq!(opened(&plan(&model, None, &verify)), [all.clone(), none()]);
    assert_eq!(opened(&plan(&model, None, &verify)), [all, none()]);
    let graph = model.join("unet/model.onnx");
    let mut bytes = std::fs::read(&graph).expect("a graph");
    // ModelProto.metadata_props
    bytes.extend_from_slice(b"\x72\x06\x0a\x01a\x12\x01b");
    std::fs::write(&graph, bytes).expect("a graph");
    let [compared, remembered] = opened(&plan(&model, Some(&cache), &verify));
    assert_eq!((compared, remembered.len()), (vec!["unet".to_owned()], 2));
}

#[test]
fn providers_other_than_the_cpu_are_compared_unless_told_otherwise() {
    root();
    for (set, want) in [
        (vec!["device.provider=webgpu"], [true, true]),
        (vec!["device.provider=[\"webgpu\", \"cpu\"]"], [true, true]),
        (vec!["device.provider=webgpu", "device.unet.provider=cpu"], [false, true]),
        (vec!["device.provider=webgpu", "device.verify=false"], [false, false]),
        (vec![], [false, false]),
        (vec!["device.verify=true"], [true, true]),
    ] {
        let plan = plan(&models().join("sd1"), None, &set);
        let (denoiser, decoder) = (plan.model.denoiser.kind, plan.model.decoder.as_ref().expect("a decoder").kind);
        assert_eq!([denoiser, decoder].map(|kind| plan.execution.verifies(kind)), want, "{set:?}");
    }
}

#[test]
fn check_compares_every_component() {
    root();
    let folder = tempfile::tempdir().expect("a folder");
    let check = |model: &str, more: &[&str]| {
        let mut command = ldm_ort(folder.path());
        let pipeline = folder.path().join("pipeline.toml");
        let path = models().join(model);
        std::fs::write(&pipeline, format!("[model]\npath = {path:?}\n[task.text-to-image]\nprompt = \"a\"\n"))
            .expect("a file");
        command.env_remove("LDM_ORT_OPTIMIZE").env("LDM_ORT_CACHE_DIR", folder.path().join("cache"));
        command.env("ORT_DYLIB_PATH", runtime().path());
        command.args(["check", "--verify"]).args(more).arg(&pipeline);
        answer(command)
    };
    let told = check("sd1", &[]);
    assert_eq!(told.code, Some(0), "{told}");
    for component in ["text_encoder", "unet", "vae_decoder"] {
        assert!(told.stdout.contains(&format!("\n{component} on cpu: right, ")), "{told}");
    }
    let told = check("sd1", &["--json"]);
    assert_eq!(told.code, Some(0), "{told}");
    let objects: Vec<serde_json::Value> =
        told.stdout.lines().map(|line| serde_json::from_str(line).expect("a JSON object a line")).collect();
    assert_eq!(objects.len(), 3, "{told}");
    assert!(objects.iter().all(|object| object["verified"] == true && object["relative_l2"].is_number()), "{told}");
    let mut command = ldm_ort(folder.path());
    command.args(["check", "--json", "pipeline.toml"]);
    assert_eq!(answer(command).code, Some(2), "--json is of --verify");
}
