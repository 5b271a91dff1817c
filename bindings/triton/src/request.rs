//! The tensors of a request become JSON requests and images in memory, one for each row of its batch.

use serde_json::{Map, Value};

use crate::fault::{Answer, Fault};
use crate::library::MemoryImage;
use crate::names::{Content, Input};
use crate::paths::refuse_paths;
use crate::tensor::{DataType, Part, Tensor};

/// Tables of a request that hold the fields of a run and those of a task.
const RUN_FIELDS: [&str; 5] = ["seed", "steps", "width", "height", "images"];
const TASK_FIELDS: [&str; 4] = ["prompt", "negative_prompt", "guidance_scale", "strength"];

/// A request to the pipeline: a row of a batch, or all of a request without batches.
#[derive(Debug, Clone, PartialEq, Default)]
pub(crate) struct Row {
    pub fields: Map<String, Value>,
    pub images: Vec<MemoryImage>,
}

/// Reads the rows of a request.
pub(crate) fn rows(tensors: &[Tensor], is_batched: bool, allows_paths: bool) -> Answer<Vec<Row>> {
    let mut rows: Vec<Row> = Vec::new();
    // `REQUEST` comes first, so that the other inputs go over it.
    let (requests, others): (Vec<_>, Vec<_>) = tensors.iter().partition(|tensor| tensor.name == "REQUEST");
    for (at, tensor) in requests.into_iter().chain(others).enumerate() {
        let input = Input::find(&tensor.name).ok_or_else(|| Fault::input(&tensor.name, "unknown input"))?;
        let parts = tensor.parts(is_batched)?;
        if at == 0 {
            rows.resize_with(parts.len(), Row::default);
        }
        if rows.len() != parts.len() {
            let (expected, found) = (rows.len(), parts.len());
            return Err(Fault::input(
                &tensor.name,
                format!("expected a batch of {expected} as of other inputs, found {found}"),
            ));
        }
        for (row, part) in rows.iter_mut().zip(&parts) {
            row.add(input, part, allows_paths)?;
        }
    }
    match tensors {
        // Everything is in the pipeline's file.
        [] => Ok(vec![Row::default()]),
        _ => Ok(rows),
    }
}

impl Row {
    fn add(&mut self, input: &Input, part: &Part<'_>, allows_paths: bool) -> Answer<()> {
        let value = match input.content {
            Content::Request => {
                self.fields = request_of(part)?;
                return if allows_paths { Ok(()) } else { refuse_paths(&self.fields) };
            }
            Content::Image(key) => {
                self.images.push(image_of(key, part)?);
                return Ok(());
            }
            Content::Text => match part.strings()?[..] {
                [text] => text.into(),
                [] => return Err(part.fault("expected a text, found none")),
                ref texts => Value::from(texts.to_vec()),
            },
            Content::Name => only(part, part.strings()?)?.into(),
            Content::Integer | Content::Number => only(part, part.numbers()?)?,
            Content::Numbers => part.numbers()?.into(),
        };
        self.set(input.field, value);
        Ok(())
    }

    /// Sets a field, in the table where `REQUEST` may have it.
    fn set(&mut self, field: &str, value: Value) {
        let table = match field {
            _ if RUN_FIELDS.contains(&field) => self.fields.get_mut("run"),
            _ if TASK_FIELDS.contains(&field) => {
                let task = self.fields.get_mut("task").and_then(Value::as_object_mut);
                task.and_then(|task| task.values_mut().next())
            }
            "loras" => {
                self.fields.remove("lora");
                None
            }
            _ => None,
        };
        let table = match table {
            Some(Value::Object(table)) => table,
            _ => &mut self.fields,
        };
        table.insert(field.to_owned(), value);
    }

    /// The request as JSON.
    pub(crate) fn json(&self) -> Vec<u8> {
        Value::Object(self.fields.clone()).to_string().into_bytes()
    }
}

/// The only element of a part.
fn only<T>(part: &Part<'_>, mut elements: Vec<T>) -> Answer<T> {
    let count = elements.len();
    match elements.pop() {
        Some(element) if count == 1 => Ok(element),
        _ => Err(part.fault(format_args!("expected one value, found {count}"))),
    }
}

fn request_of(part: &Part<'_>) -> Answer<Map<String, Value>> {
    let text = only(part, part.strings()?)?;
    match serde_json::from_str(text) {
        Ok(Value::Object(fields)) => Ok(fields),
        Ok(_) => Err(part.fault("expected a JSON object such as {\"prompt\": \"…\"}")),
        Err(error) => Err(part.fault(format_args!("is not JSON: {error}"))),
    }
}

/// Reads an image: an encoded file as a text or as bytes `[n]`, or pixels `[h, w, 3]`, `[h, w, 1]` or `[h, w]`.
fn image_of(key: &'static std::ffi::CStr, part: &Part<'_>) -> Answer<MemoryImage> {
    if part.data_type == DataType::Bytes {
        let data = only(part, part.texts()?)?.to_vec();
        return Ok(MemoryImage { key, data, size: None });
    }
    let data = part.bytes();
    let side = |side: usize| u32::try_from(side).ok().filter(|side| *side > 0);
    let (height, width, data) = match *part.shape {
        _ if part.data_type != DataType::Uint8 => {
            return Err(part.fault(format_args!("expected UINT8, found {:?}", part.data_type)));
        }
        [_] => return Ok(MemoryImage { key, data: data.to_vec(), size: None }),
        [height, width, 3] => (height, width, data.to_vec()),
        [height, width] | [height, width, 1] => (height, width, data.iter().flat_map(|grey| [*grey; 3]).collect()),
        _ => return Err(part.fault(format_args!("expected [h, w, 3] pixels, found {:?}", part.shape))),
    };
    match (side(width), side(height)) {
        (Some(width), Some(height)) => Ok(MemoryImage { key, data, size: Some((width, height)) }),
        _ => Err(part.fault(format_args!("expected pixels, found {:?}", part.shape))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tensor::tests::{integers, texts};

    fn fields(tensors: &[Tensor], is_batched: bool) -> Vec<Value> {
        let rows = rows(tensors, is_batched, false).expect("rows");
        rows.into_iter().map(|row| Value::Object(row.fields)).collect()
    }

    #[test]
    fn inputs_become_fields() {
        let tensors = [
            texts("PROMPT", &[1], &[b"a lighthouse"]),
            integers("STEPS", &[1], &[4]),
            texts("SCHEDULER", &[1], &[b"euler"]),
            integers("LORAS", &[2], &[1, 0]),
        ];
        let expected = json!({"prompt": "a lighthouse", "steps": 4, "scheduler": "euler", "loras": [1, 0]});
        assert_eq!(fields(&tensors, false), [expected]);
        assert_eq!(fields(&[texts("PROMPT", &[2], &[b"a", b"b"])], false), [json!({"prompt": ["a", "b"]})]);
        assert_eq!(fields(&[], false), [json!({})]);
    }

    #[test]
    fn batches_become_rows() {
        let tensors = [texts("PROMPT", &[2, 1], &[b"a", b"b"]), integers("SEED", &[2, 1], &[7, 9])];
        assert_eq!(fields(&tensors, true), [json!({"prompt": "a", "seed": 7}), json!({"prompt": "b", "seed": 9})]);
    }

    /// Inputs go over the same field of REQUEST, flat or in its table.
    #[test]
    fn inputs_go_over_the_request() {
        let over = |request: &str| {
            let request = texts("REQUEST", &[1], &[request.as_bytes()]);
            fields(&[texts("PROMPT", &[1], &[b"new"]), integers("SEED", &[1], &[2]), request], false).remove(0)
        };
        assert_eq!(over(r#"{"prompt": "old", "seed": 1}"#), json!({"prompt": "new", "seed": 2}));
        assert_eq!(
            over(r#"{"task": {"text-to-image": {"prompt": "old"}}, "run": {"seed": 1, "steps": 3}}"#),
            json!({"task": {"text-to-image": {"prompt": "new"}}, "run": {"seed": 2, "steps": 3}})
        );
    }

    #[test]
    fn images_are_files_or_pixels() {
        let pixels = |shape: &[usize], data: &[u8]| Tensor {
            name: "MASK".to_owned(),
            data_type: DataType::Uint8,
            shape: shape.to_vec(),
            data: data.to_vec(),
        };
        let image = |tensor: Tensor| rows(&[tensor], false, false).map(|mut rows| rows.remove(0).images.remove(0));
        let is = |data: &[u8], size| Ok(MemoryImage { key: c"mask", data: data.to_vec(), size });
        assert_eq!(image(texts("MASK", &[1], &[b"\x89PNG"])), is(b"\x89PNG", None));
        assert_eq!(image(pixels(&[4], b"\x89PNG")), is(b"\x89PNG", None));
        assert_eq!(image(pixels(&[1, 2, 3], b"rgbrgb")), is(b"rgbrgb", Some((2, 1))));
        assert_eq!(image(pixels(&[2, 1], b"ab")), is(b"aaabbb", Some((1, 2))));
        assert!(image(pixels(&[0, 2, 3], b"")).is_err());
        assert!(image(pixels(&[1, 1, 4], b"rgba")).is_err());
    }

    /// Each wrong input is an invalid argument that names it.
    #[test]
    fn wrong_inputs_are_named() {
        let cases = [
            (vec![integers("STEPS", &[3], &[1, 2, 3])], false, "input STEPS: expected one value, found 3"),
            (vec![integers("STEPS", &[0], &[])], false, "input STEPS: expected one value, found 0"),
            (vec![integers("PROMPT", &[1], &[1])], false, "input PROMPT: expected a text"),
            (vec![texts("PROMPT", &[0], &[])], false, "input PROMPT: expected a text, found none"),
            (vec![texts("PROMPT", &[1], &[b"\xff"])], false, "input PROMPT: is not UTF-8"),
            (vec![texts("STEPS", &[1], &[b"4"])], false, "input STEPS: expected numbers"),
            (vec![texts("REQUEST", &[1], &[b"{"])], false, "input REQUEST: is not JSON"),
            (vec![texts("REQUEST", &[1], &[b"[1]"])], false, "input REQUEST: expected a JSON object"),
            (vec![texts("REQUEST", &[1], &[br#"{"image": "/x.png"}"#])], false, "input REQUEST: image: names a file"),
            (vec![texts("OTHER", &[1], &[b"x"])], false, "input OTHER: unknown input"),
            (
                vec![texts("PROMPT", &[2, 1], &[b"a", b"b"]), integers("SEED", &[1, 1], &[7])],
                true,
                "input SEED: expected a batch of 2",
            ),
        ];
        for (tensors, is_batched, start) in cases {
            let fault = rows(&tensors, is_batched, false).expect_err(start);
            assert!(fault.message.starts_with(start), "{start}: {}", fault.message);
        }
    }
}
