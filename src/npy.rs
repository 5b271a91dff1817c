//! NumPy's `.npy` format, for noise and latents.
//!
//! Source: the format's description in `numpy.lib.format`, versions 1.0 to 3.0.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use half::f16;
use ndarray::{ArrayD, ArrayViewD, IxDyn, ShapeBuilder};

use crate::error::{Error, Result};
use crate::files;

const MAGIC: &[u8; 6] = b"\x93NUMPY";
const HELP: &str = "save it with numpy.save as a float32 array";
/// The maximum length of a header. NumPy writes 118 bytes, except for structured arrays.
const MAX_HEADER: usize = 64 * 1024;

/// Reads an array of floating-point numbers.
///
/// Accepts little-endian float16, float32 and float64 in C or Fortran order and converts the values to `f32` (float64
/// is rounded to the nearest).
///
/// # Errors
///
/// [`Error::Input`] if the file is missing, is not a `.npy` file, has another type, or has another length than its
/// header implies; [`Error::Io`] if it cannot be read.
pub fn read_f32(path: impl AsRef<Path>) -> Result<ArrayD<f32>> {
    let path = path.as_ref();
    let file = files::open_input(path)?;
    let length = file.metadata().map_err(|e| Error::io(path, "reading", e))?.len();
    let mut reader = BufReader::new(file);
    let fail = |problem: String| Error::input(path.display().to_string(), problem, HELP);

    let header = read_header(&mut reader)
        .map_err(|e| Error::io(path, "reading", e))?
        .map_err(fail)
        .and_then(|(text, begin)| Ok((parse_header(&text).map_err(fail)?, begin)))?;
    let (Header { element_type, fortran, shape }, begin) = header;

    // The file's length limits the allocation, whatever the header says.
    let count = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d));
    let wanted = count.and_then(|n| n.checked_mul(element_type.size()));
    let found = length.saturating_sub(begin);
    let Some(wanted) = wanted.filter(|&n| n as u64 == found) else {
        return Err(fail(format!(
            "expected {} bytes of values for {element_type} of shape {shape:?}, found {found}",
            wanted.map_or_else(|| "too many".to_owned(), |n| n.to_string()),
        )));
    };
    let mut bytes = vec![0; wanted];
    reader.read_exact(&mut bytes).map_err(|e| Error::io(path, "reading", e))?;

    let values = element_type.decode(&bytes);
    ArrayD::from_shape_vec(IxDyn(&shape).set_f(fortran), values)
        .map_err(|e| fail(format!("cannot create an array of shape {shape:?}: {e}")))
}

/// Writes an array atomically as float32 in C order.
///
/// # Errors
///
/// [`Error::Io`] if the file cannot be written; an existing file is then unchanged.
pub fn write_f32(path: impl AsRef<Path>, array: ArrayViewD<'_, f32>) -> Result<()> {
    let mut shape = String::new();
    for length in array.shape() {
        shape.push_str(&format!("{length}, "));
    }
    // A tuple of one has a trailing comma, longer tuples do not.
    let shape = if array.ndim() > 1 { shape.trim_end_matches(", ") } else { shape.trim_end() };
    let mut header = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({shape}), }}");
    // The values start at a multiple of 64 bytes; the header ends with a newline.
    let unpadded = MAGIC.len() + 4 + header.len() + 1;
    header.push_str(&" ".repeat(unpadded.next_multiple_of(64) - unpadded));
    header.push('\n');

    files::write_whole(path.as_ref(), |file: &mut BufWriter<File>| {
        file.write_all(MAGIC)?;
        file.write_all(&[1, 0])?;
        let length = u16::try_from(header.len()).map_err(std::io::Error::other)?;
        file.write_all(&length.to_le_bytes())?;
        file.write_all(header.as_bytes())?;
        for value in array.iter() {
            file.write_all(&value.to_le_bytes())?;
        }
        Ok(())
    })
}

#[derive(Debug, Clone, Copy)]
enum ElementType {
    F16,
    F32,
    F64,
}

impl ElementType {
    fn size(self) -> usize {
        match self {
            Self::F16 => 2,
            Self::F32 => 4,
            Self::F64 => 8,
        }
    }

    fn decode(self, bytes: &[u8]) -> Vec<f32> {
        match self {
            Self::F16 => bytes.as_chunks().0.iter().map(|&b| f16::from_le_bytes(b).to_f32()).collect(),
            Self::F32 => bytes.as_chunks().0.iter().map(|&b| f32::from_le_bytes(b)).collect(),
            Self::F64 => bytes.as_chunks().0.iter().map(|&b| f64::from_le_bytes(b) as f32).collect(),
        }
    }
}

impl std::fmt::Display for ElementType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::F16 => "float16",
            Self::F32 => "float32",
            Self::F64 => "float64",
        })
    }
}

#[derive(Debug)]
struct Header {
    element_type: ElementType,
    fortran: bool,
    shape: Vec<usize>,
}

/// Reads the header and returns its text and the offset of the values. The inner error is for invalid files, the outer
/// one for files that cannot be read.
fn read_header(reader: &mut impl Read) -> std::io::Result<Result<(String, u64), String>> {
    let not_npy = || Ok(Err("not a .npy file".to_owned()));
    let mut start = Vec::new();
    reader.by_ref().take(8).read_to_end(&mut start)?;
    let Some([major, _minor]) = start.strip_prefix(MAGIC).and_then(|version| <[u8; 2]>::try_from(version).ok()) else {
        return not_npy();
    };
    let width = match major {
        1 => 2,
        2 | 3 => 4,
        other => return Ok(Err(format!("expected version 1, 2 or 3 of the .npy format, found version {other}"))),
    };
    let mut length = Vec::new();
    reader.by_ref().take(width).read_to_end(&mut length)?;
    if length.len() as u64 != width {
        return not_npy();
    }
    let length = length.iter().rev().fold(0, |n, &byte| (n << 8) | usize::from(byte));
    if length > MAX_HEADER {
        return Ok(Err(format!("expected a header of at most {MAX_HEADER} bytes, found {length}")));
    }
    let mut text = Vec::new();
    reader.by_ref().take(length as u64).read_to_end(&mut text)?;
    if text.len() != length {
        return Ok(Err("the file ends within its header".to_owned()));
    }
    Ok(match String::from_utf8(text) {
        Ok(text) => Ok((text, 8 + width + length as u64)),
        Err(_) => Err("its header is not text".to_owned()),
    })
}

/// Reads the header's Python dictionary, such as `{'descr': '<f4', 'fortran_order': False, 'shape': (1, 4), }`.
fn parse_header(text: &str) -> Result<Header, String> {
    let value = |key: &str| -> Result<&str, String> {
        ['\'', '"']
            .iter()
            .find_map(|quote| text.split_once(&format!("{quote}{key}{quote}")))
            .and_then(|(_, rest)| rest.trim_start().strip_prefix(':'))
            .map(str::trim_start)
            .ok_or_else(|| format!("its header has no '{key}': {}", text.trim_end()))
    };

    let descr = value("descr")?;
    let name = descr.strip_prefix(['\'', '"']).and_then(|rest| rest.split(['\'', '"']).next());
    let element_type = match name {
        Some("<f2") => ElementType::F16,
        Some("<f4") => ElementType::F32,
        Some("<f8") => ElementType::F64,
        Some(other) => {
            return Err(format!("expected float32 ('<f4'), float64 or float16 values, found '{other}'"));
        }
        None => return Err("expected float32, float64 or float16 values, found records".to_owned()),
    };

    let order = value("fortran_order")?;
    let fortran = match (order.starts_with("True"), order.starts_with("False")) {
        (true, _) => true,
        (_, true) => false,
        _ => return Err(format!("its header's fortran_order is neither True nor False: {}", text.trim_end())),
    };

    let bad_shape = || format!("its header's shape is not a tuple of lengths: {}", text.trim_end());
    let (shape, _) = value("shape")?.strip_prefix('(').and_then(|rest| rest.split_once(')')).ok_or_else(bad_shape)?;
    let shape = shape
        .split(',')
        .map(str::trim)
        .filter(|length| !length.is_empty())
        .map(|length| length.parse().map_err(|_| bad_shape()))
        .collect::<Result<_, _>>()?;
    Ok(Header { element_type, fortran, shape })
}

#[cfg(test)]
mod tests {
    use ndarray::{Array, array};

    use super::*;

    /// A file of the given version, header and values.
    fn file(version: u8, header: &str, values: &[u8]) -> tempfile::NamedTempFile {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([version, 0]);
        let length = header.len() as u32;
        bytes.extend(&length.to_le_bytes()[..if version == 1 { 2 } else { 4 }]);
        bytes.extend(header.as_bytes());
        bytes.extend(values);
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        file
    }

    fn bytes_of(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|v| v.to_le_bytes()).collect()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for array in [
            Array::from_shape_fn((2, 4, 3, 5), |(a, b, c, d)| (a * 60 + b * 15 + c * 5 + d) as f32).into_dyn(),
            array![1.5_f32, -0.0, f32::INFINITY].into_dyn(),
            ndarray::arr0(3.0_f32).into_dyn(),
            Array::zeros((0, 3)).into_dyn(),
        ] {
            write_f32(&path, array.view()).unwrap();
            assert_eq!(read_f32(&path).unwrap(), array);
            let swapped = array.view().reversed_axes();
            write_f32(&path, swapped.view()).unwrap();
            assert_eq!(read_f32(&path).unwrap(), swapped);
        }
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_header_is_the_one_numpy_writes() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.npy");
        for (array, shape) in [
            (Array::zeros((1, 4)).into_dyn(), "(1, 4)"),
            (Array::zeros(3).into_dyn(), "(3,)"),
            (ndarray::arr0(0.0).into_dyn(), "()"),
        ] {
            write_f32(&path, array.view()).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let dictionary = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}");
            assert_eq!(&bytes[..10], b"\x93NUMPY\x01\x00\x76\x00");
            assert_eq!(bytes[10..128], *format!("{dictionary:<117}\n").as_bytes());
        }
    }

    #[test]
    fn fortran_order_and_later_versions_are_read() {
        let values = bytes_of(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        for version in [1, 2, 3] {
            let fortran = file(version, "{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", &values);
            let want = array![[1.0, 3.0, 5.0], [2.0, 4.0, 6.0]].into_dyn();
            assert_eq!(read_f32(fortran.path()).unwrap(), want);
        }
    }

    #[test]
    fn half_and_double_are_converted() {
        let header = |element_type| format!("{{'descr': '{element_type}', 'fortran_order': False, 'shape': (2,), }}\n");
        let half: Vec<u8> = [1.5_f32, -2.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
        let double: Vec<u8> = [0.1_f64, 1e300].iter().flat_map(|v| v.to_le_bytes()).collect();
        assert_eq!(read_f32(file(1, &header("<f2"), &half).path()).unwrap(), array![1.5, -2.0].into_dyn());
        let want = array![0.1_f32, f32::INFINITY].into_dyn();
        assert_eq!(read_f32(file(1, &header("<f8"), &double).path()).unwrap(), want);
    }

    #[test]
    fn bad_files_say_what_is_wrong() {
        let four = bytes_of(&[1.0; 4]);
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (4,), }\n";
        for (bad, word) in [
            (file(1, &good.replace("<f4", "<i8"), &four), "'<i8'"),
            (file(1, &good.replace("<f4", ">f4"), &four), "'>f4'"),
            (file(1, &good.replace("'<f4'", "[('a', '<f4')]"), &four), "records"),
            (file(1, &good.replace("(4,)", "(5,)"), &four), "20 bytes"),
            (file(1, &good.replace("(4,)", "(3,)"), &four), "12 bytes"),
            (file(1, &good.replace("(4,)", "(99999999999, 99999999999)"), &four), "too many"),
            (file(1, &good.replace("(4,)", "(-4,)"), &four), "shape"),
            (file(1, &good.replace("'shape'", "'form'"), &four), "'shape'"),
            (file(1, &good.replace("False", "0"), &four), "fortran_order"),
            (file(4, good, &four), "version 4"),
        ] {
            let error = read_f32(bad.path()).unwrap_err();
            assert!(matches!(error, Error::Input { .. }), "{error}");
            assert!(error.to_string().contains(word), "{error}");
            assert!(error.to_string().contains(&bad.path().display().to_string()), "{error}");
        }
        let mut cut = tempfile::NamedTempFile::new().unwrap();
        for bytes in [
            b"".as_slice(),
            b"\x93NUM",
            b"PK\x03\x04 a zip file",
            b"\x93NUMPY\x01\x00\x76",
            b"\x93NUMPY\x01\x00\x76\x00{'de",
        ] {
            cut.as_file_mut().set_len(0).unwrap();
            std::fs::write(cut.path(), bytes).unwrap();
            assert!(matches!(read_f32(cut.path()), Err(Error::Input { .. })));
        }
        assert!(matches!(read_f32("no/such.npy"), Err(Error::Input { .. })));
    }
}
