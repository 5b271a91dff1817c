//! Mutations of files by their formats.

use std::path::Path;

use serde_json::Value;

use super::bytes::{is_message, mutate, mutate_message, mutate_png};
use super::random::Random;
use super::values::{mutate_json, mutate_toml, rename};

fn kind_of(file: &Path) -> &str {
    file.extension().and_then(|extension| extension.to_str()).unwrap_or_default()
}

/// Returns one input: the bytes of a valid file with one to three mutations, most of which keep its syntax.
pub fn mutated(random: &mut Random, file: &Path, bytes: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=random.below(2) + usize::from(random.one_in(4)) {
        let structured = if random.one_in(5) { None } else { structured(random, kind_of(file), &bytes, other) };
        match structured {
            Some(new) => bytes = new,
            None => mutate(random, &mut bytes, other),
        }
    }
    bytes
}

/// A mutation that keeps the syntax of the format, where the format is known and the file is still of it.
fn structured(random: &mut Random, kind: &str, bytes: &[u8], other: &[u8]) -> Option<Vec<u8>> {
    match kind {
        "json" => {
            let mut value = serde_json::from_slice(bytes).ok()?;
            let other = serde_json::from_slice(other).unwrap_or(Value::Null);
            mutate_json(random, &mut value, &other);
            Some(value.to_string().into_bytes())
        }
        "toml" => {
            let text = std::str::from_utf8(bytes).ok()?;
            let other = std::str::from_utf8(other).unwrap_or_default();
            mutate_toml(random, text, other).map(String::into_bytes)
        }
        "onnx" => mutate_message(random, bytes),
        "png" => mutate_png(random, bytes),
        "safetensors" => {
            let (length, rest) = bytes.split_first_chunk::<8>()?;
            let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
            let (mut value, mut data) = (serde_json::from_slice::<Value>(header).ok()?, data.to_vec());
            let tensors = value.as_object_mut()?;
            match random.below(4) {
                0 => mutate_json(random, &mut value, &Value::Null),
                1 => rename(random, tensors),
                2 => {
                    // A shape of the same number of values.
                    let at = random.below(tensors.len());
                    let shape = tensors.values_mut().nth(at)?.get_mut("shape")?.as_array_mut()?;
                    if random.one_in(2) { shape.push(1.into()) } else { shape.reverse() }
                }
                _ => {
                    let at = random.below(data.len().saturating_sub(4));
                    let odd = *random.pick(&[f32::NAN, f32::INFINITY, 1e38, -0.0, 1e-40]);
                    data.get_mut(at..at + 4)?.copy_from_slice(&odd.to_le_bytes());
                }
            }
            let header = value.to_string().into_bytes();
            Some([&(header.len() as u64).to_le_bytes()[..], &header, &data].concat())
        }
        "txt" => {
            let text = std::str::from_utf8(bytes).ok()?;
            let mut lines: Vec<_> = text.lines().collect();
            let at = random.below(lines.len());
            match random.below(4) {
                0 => lines.truncate(at),
                1 => drop((!lines.is_empty()).then(|| lines.remove(at))),
                2 => lines.insert(at, *random.pick(&["", " ", "a", "a b c", "\u{0} \u{1b}", "#version: 0.2", "zz zz"])),
                _ => {
                    let other = random.below(lines.len());
                    lines.swap(at, other);
                }
            }
            Some(lines.join("\n").into_bytes())
        }
        _ => None,
    }
}

/// True if the syntax of a file is right, if its format has one apart from its meaning.
pub fn is_well_formed(file: &Path, bytes: &[u8]) -> bool {
    match kind_of(file) {
        "json" => serde_json::from_slice::<Value>(bytes).is_ok(),
        "toml" => std::str::from_utf8(bytes).is_ok_and(|text| text.parse::<toml::Table>().is_ok()),
        "onnx" => is_message(bytes),
        "safetensors" => safetensors::SafeTensors::deserialize(bytes).is_ok(),
        "png" => png::Decoder::new(std::io::Cursor::new(bytes)).read_info().is_ok(),
        _ => true,
    }
}
