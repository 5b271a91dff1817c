//! The lines of a batch's input.

use std::io::{BufRead, Read};

use crate::engine::Request;
use crate::error::{Error, Result};
use crate::task::InputImage;

/// The longest line in bytes; a line can hold images in base64.
const LONGEST: usize = 64 << 20;

/// The meaning of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LineForm {
    /// JSON: a string is a prompt, an object is a request as [`Request::from_json`] reads it.
    Json,
    /// A prompt, as it is.
    Prompt,
}

/// A line of the input that is not blank, or a request that another program gives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputLine {
    /// Its number, counted from 1; absent for a request that is of no file.
    pub number: Option<usize>,
    /// Its text, without spaces around it; or the reason that it has none.
    text: Result<String, String>,
    form: LineForm,
    /// Input images in memory by their keys.
    images: Vec<(String, InputImage)>,
}

/// Reads lines. Blank lines are left out; their numbers are counted. A line that is not UTF-8 or longer than 64 MiB is kept as
/// one whose [`InputLine::request`] fails.
///
/// # Errors
/// The error of the reader.
pub fn read_lines(mut input: impl BufRead, form: LineForm) -> std::io::Result<Vec<InputLine>> {
    let mut lines = Vec::new();
    for number in 1.. {
        let mut bytes = Vec::new();
        if input.by_ref().take(LONGEST as u64 + 1).read_until(b'\n', &mut bytes)? == 0 {
            break;
        }
        let text = if bytes.len() > LONGEST {
            if !bytes.ends_with(b"\n") {
                input.skip_until(b'\n')?;
            }
            Err("the line is longer than 64 MiB".to_owned())
        } else {
            let start = if number == 1 { bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes) } else { &bytes };
            std::str::from_utf8(start)
                .map(|text| text.trim().to_owned())
                .map_err(|_| "the line is not UTF-8 text".to_owned())
        };
        if text.as_ref().is_ok_and(String::is_empty) {
            continue;
        }
        lines.push(InputLine { number: Some(number), text, form, images: Vec::new() });
    }
    Ok(lines)
}

impl InputLine {
    /// Makes the line of a text in [`LineForm::Json`], with input images in memory by their keys, such as `mask`. If `text`
    /// is an error, it is that of [`InputLine::request`].
    pub fn new(number: Option<usize>, text: Result<String, String>, images: Vec<(String, InputImage)>) -> Self {
        Self { number, text, form: LineForm::Json, images }
    }

    /// Reads the request, without holding it against a pipeline.
    ///
    /// # Errors
    /// [`Error::Input`] if the line holds none.
    pub fn request(&self) -> Result<Request> {
        let fail = |problem: String| {
            let hint = "write a JSON string (a prompt) or a JSON object (a request) in a line";
            Error::input("request", problem, hint)
        };
        let text = self.text.as_ref().map_err(|problem| fail(problem.clone()))?;
        if self.form == LineForm::Prompt {
            return Ok(Request::new().prompt(text));
        }
        match serde_json::from_str(text) {
            Ok(serde_json::Value::String(prompt)) => Ok(Request::new().prompt(prompt)),
            Ok(serde_json::Value::Object(_)) => {
                let images = self.images.iter();
                Ok(images.fold(Request::from_json(text)?, |request, (key, image)| request.image(key, image.clone())))
            }
            Ok(other) => {
                let kind = match other {
                    serde_json::Value::Array(_) => "an array",
                    serde_json::Value::Number(_) => "a number",
                    serde_json::Value::Bool(_) => "a boolean",
                    _ => "null",
                };
                Err(fail(format!("expected a JSON string or object, found {kind}")))
            }
            Err(error) => Err(fail(format!("is not JSON: {error}"))),
        }
    }

    /// The text that the line is identified by where it has no key.
    pub(super) fn identity(&self) -> String {
        format!("{}:{}", self.number.unwrap_or_default(), self.text())
    }

    /// The text of the line, if it has any.
    pub(super) fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_a_prompt_or_a_request() {
        let text = "\u{feff}\"a cat\"\r\n\n  {\"prompt\": \"a dog\", \"seed\": 3}\n[1]\n{\nnull\n\"last\"";
        let lines = read_lines(text.as_bytes(), LineForm::Json).unwrap();
        assert_eq!(lines.iter().map(|line| line.number).collect::<Vec<_>>(), [1, 3, 4, 5, 6, 7].map(Some));
        assert_eq!(lines[0].request().unwrap(), Request::new().prompt("a cat"));
        assert_eq!(lines[1].request().unwrap(), Request::new().prompt("a dog").seed(3));
        assert_eq!(lines[5].request().unwrap(), Request::new().prompt("last"));
        for (at, says) in
            [(2, "request: expected a JSON string or object, found an array"), (3, "request: is not JSON")]
        {
            let error = lines[at].request().unwrap_err().to_string();
            assert!(error.starts_with(says) && error.contains("hint:"), "{error}");
        }
        let lines = read_lines(&b"a cat\n{\n\xff\n"[..], LineForm::Prompt).unwrap();
        assert_eq!(lines[1].request().unwrap(), Request::new().prompt("{"));
        assert!(lines[2].request().unwrap_err().to_string().contains("request: the line is not UTF-8"));
    }
}
