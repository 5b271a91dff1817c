//! The rewrites that graphs on WebGPU need.

use std::collections::BTreeSet;

use super::{Lengths, SIZES, compare, fixtures, run};
use crate::common::{root, runtime};
use ldm_ort::bundle::GraphFile;
use ldm_ort::rewrite::{Pass, rewrite};
use ldm_ort::session::{Session, SessionOptions};
use ldm_ort::tensor::Dim;

/// Nine channels of latents, mask and masked image are padded to twelve; four are left alone.
#[test]
fn channels_are_padded_where_webgpu_is_wrong() {
    root();
    let path = fixtures().join("families/inpaint/unet/model.onnx");
    let new = rewrite(&GraphFile::open(&path).unwrap(), &[Pass::ChannelPadding], &[]).unwrap().expect("a convolution");
    assert_eq!(new.report, [(Pass::ChannelPadding, 1)]);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.onnx");
    std::fs::write(&file, &new.bytes).unwrap();
    let operators = GraphFile::open(&file).unwrap().operators;
    let pads: usize = operators.iter().filter(|(own, _)| own.name == "Pad").map(|(_, count)| count).sum();
    assert_eq!(pads, 2, "the image and the weights");
    compare(&runtime(), &path, &new, &SIZES);

    let plain = GraphFile::open(&fixtures().join("models/sd1/unet/model.onnx")).unwrap();
    assert!(rewrite(&plain, &[Pass::ChannelPadding], &[]).unwrap().is_none());
}

#[test]
fn free_axes_get_names_of_their_own() {
    root();
    let path = fixtures().join("models/sd1/unet/model.onnx");
    let graph = GraphFile::open(&path).unwrap();
    let free = |graph: &GraphFile| -> Vec<String> {
        let dims = graph.inputs.iter().flat_map(|info| &info.shape);
        dims.filter_map(|dim| if let Dim::Free(name) = dim { Some(name.clone()) } else { None }).collect()
    };
    let old = free(&graph);
    assert!(old.iter().collect::<BTreeSet<_>>().len() < old.len(), "names are shared: {old:?}");
    let new = rewrite(&graph, &[Pass::AxisNames], &[]).unwrap().expect("free axes");
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.onnx");
    std::fs::write(&file, &new.bytes).unwrap();
    let rewritten = GraphFile::open(&file).unwrap();
    let names = free(&rewritten);
    assert_eq!((names.len(), names.iter().collect::<BTreeSet<_>>().len()), (old.len(), old.len()), "{names:?}");
    let order = |graph: &GraphFile| graph.inputs.iter().map(|info| (info.name.clone(), info.dtype)).collect::<Vec<_>>();
    assert_eq!(order(&graph), order(&rewritten));
    let is_unnamed = |dim: &Dim| dim.fixed().is_some() || *dim == Dim::Free(String::new());
    assert!(rewritten.outputs.iter().all(|info| info.shape.iter().all(is_unnamed)));

    // An axis that is fixed keeps the name by which it is.
    let Some(first) = old.first() else { panic!("no free axis") };
    let fixed = rewrite(&graph, &[Pass::AxisNames], &[(first.clone(), 2)]).unwrap().expect("other free axes");
    std::fs::write(&file, &fixed.bytes).unwrap();
    let kept = free(&GraphFile::open(&file).unwrap());
    let count = |names: &[String]| names.iter().filter(|name| *name == first).count();
    assert_eq!((count(&kept), kept.len()), (count(&old), old.len()));

    let lengths = Lengths { batch: 2, height: 16, width: 16, tokens: 5 };
    let folder = path.parent().unwrap().to_string_lossy().into_owned();
    let config = vec![("session.model_external_initializers_file_folder_path".to_owned(), folder)];
    std::fs::write(&file, &new.bytes).unwrap();
    let options = SessionOptions { config, ..SessionOptions::default() };
    let mut before = Session::open(&runtime(), &path, &SessionOptions::default()).unwrap();
    let mut after = Session::open(&runtime(), &file, &options).unwrap();
    let [wanted, got] = [&mut before, &mut after].map(|session| run(session, lengths).expect("a run"));
    assert_eq!(got, wanted);
}
