//! Just enough of NumPy's file format to read a reference.

use std::path::Path;

/// A float32 array and its shape.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

/// Reads a float32 or float16 array in C order from a version 1 file.
pub fn read(path: &Path) -> Array {
    let bytes = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00", "{} is a version 1 .npy file", path.display());
    let start = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..start]).expect("the header is text");
    let is_half = header.contains("'descr': '<f2'");
    assert!(is_half || header.contains("'descr': '<f4'"), "{}: {header}", path.display());
    assert!(header.contains("'fortran_order': False"), "{}: {header}", path.display());
    let shape = header.split_once("'shape': (").and_then(|(_, rest)| rest.split_once(')')).expect("there is a shape").0;
    let shape: Vec<usize> =
        shape.split(',').map(str::trim).filter(|n| !n.is_empty()).map(|n| n.parse().expect("a number")).collect();
    let single = |b: &[u8]| f32::from_le_bytes(b.try_into().expect("four bytes"));
    let half = |b: &[u8]| half::f16::from_le_bytes(b.try_into().expect("two bytes")).to_f32();
    let values: Vec<f32> = match is_half {
        true => bytes[start..].chunks_exact(2).map(half).collect(),
        false => bytes[start..].chunks_exact(4).map(single).collect(),
    };
    assert_eq!(values.len(), shape.iter().product::<usize>(), "{}: {shape:?}", path.display());
    Array { shape, values }
}

impl Array {
    /// The norm of the difference from `reference`, as a part of the reference's norm.
    pub fn relative_error(&self, reference: &Self) -> f64 {
        assert_eq!(self.shape, reference.shape, "the arrays have one shape");
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|v| v * v).sum::<f64>().sqrt();
        let pairs = self.values.iter().zip(&reference.values);
        norm(&mut pairs.map(|(a, b)| f64::from(a - b))) / norm(&mut reference.values.iter().map(|&v| f64::from(v)))
    }

    /// The largest difference from `reference`, as a part of the reference's largest magnitude.
    pub fn difference(&self, reference: &Self) -> f32 {
        assert_eq!(self.shape, reference.shape, "the arrays have one shape");
        let largest = reference.values.iter().fold(0f32, |m, v| m.max(v.abs()));
        let apart = self.values.iter().zip(&reference.values).fold(0f32, |m, (a, b)| {
            let d = (a - b).abs();
            if d.is_nan() { f32::INFINITY } else { m.max(d) }
        });
        apart / largest
    }
}
