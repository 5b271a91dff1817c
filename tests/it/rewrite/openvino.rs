//! The rewrites that graphs on OpenVINO need.

use super::{SIZES, compare, fixtures};
use crate::common::{root, runtime};
use ldm_ort::bundle::GraphFile;
use ldm_ort::rewrite::{Pass, rewrite};

/// A mask's bias gets a minimum with zero, in half precision too; products that are no masks are left alone.
#[test]
fn masks_are_not_merged_with_what_is_added() {
    root();
    let path = fixtures().join("rewrite/mask-bias.onnx");
    let new = rewrite(&GraphFile::open(&path).unwrap(), &[Pass::MaskBias], &[]).unwrap().expect("a mask");
    assert_eq!(new.report, [(Pass::MaskBias, 2)]);
    let scratch = tempfile::tempdir().unwrap();
    let file = scratch.path().join("model.onnx");
    std::fs::write(&file, &new.bytes).unwrap();
    assert!(GraphFile::open(&file).unwrap().operators.iter().any(|(own, _)| own.name == "Min"));
    assert_eq!(compare(&runtime(), &path, &new, &SIZES), 0.0);

    let plain = GraphFile::open(&fixtures().join("models/sd1/unet/model.onnx")).unwrap();
    assert!(rewrite(&plain, &[Pass::MaskBias], &[]).unwrap().is_none());
}

/// Angles of up to 200, which are rounded by 8e-6 in float32.
#[test]
fn angles_in_float64_are_reduced() {
    root();
    let path = fixtures().join("rewrite/angles.onnx");
    let new = rewrite(&GraphFile::open(&path).unwrap(), &[Pass::Angles], &[]).unwrap().expect("a sine and a cosine");
    assert_eq!(new.report, [(Pass::Angles, 2)]);
    let worst = compare(&runtime(), &path, &new, &SIZES);
    assert!(worst < 1e-6, "{worst}");

    // Those in float32 are left alone.
    let plain = GraphFile::open(&fixtures().join("models/sd1/unet/model.onnx")).unwrap();
    assert!(rewrite(&plain, &[Pass::Angles], &[]).unwrap().is_none());
}
