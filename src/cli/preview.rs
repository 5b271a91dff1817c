//! `ldm-ort run --preview`: what an image is at, beside the file that it will be, and in terminals that show images.

use std::collections::HashMap;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::output;
use crate::engine::Saver;
use crate::error::Result;
use crate::files;
use crate::image::{Rgb8, encode_png};
use crate::plan::Plan;

/// Previews beside the images to be.
///
/// A preview is replaced by the next one and removed once its image is written; if the run fails or is interrupted, the
/// last one stays and shows how far it got. Its name is claimed by the first one, so a preview of another run is neither
/// replaced nor removed.
#[derive(Clone)]
pub(super) struct Previews {
    saver: Saver,
    suffix: &'static str,
    /// The number of images of the requests before this one.
    first_index: usize,
    /// Prompt and seed of each image of the request.
    images: Vec<(String, u64)>,
    /// The files written so far, by the index of the image. Shared with the thread that removes them.
    written: Arc<Mutex<HashMap<usize, PathBuf>>>,
    /// True if one of them could not be written.
    failed: bool,
}

impl Previews {
    /// Previews of the images of a plan, whose last stage's are written by `saver` with `suffix`.
    pub(super) fn new(plan: &Plan, saver: &Saver, suffix: &'static str, first_index: usize) -> Self {
        let request = &plan.request;
        let labels = request.task.labels();
        let prompt = |index: usize| labels.get(index / request.images.max(1)).cloned().unwrap_or_default();
        let images = (0..request.total_images()).map(|index| (prompt(index), request.seed_of(index))).collect();
        Self { saver: saver.clone(), suffix, first_index, images, written: Arc::default(), failed: false }
    }

    /// Writes a preview of the image with this index.
    pub(super) fn write(&mut self, index: usize, width: usize, height: usize, rgb: &[u8]) {
        if self.failed {
            return;
        }
        let Some(pixels) = Rgb8::new(width, height, rgb.to_vec()) else { return };
        if let Err(error) = encode_png(&pixels, &[]).and_then(|png| self.put(index, &png)) {
            // The image does not hang on it.
            self.failed = true;
            output::say(&format!("warning: no previews are written: {error}"));
        }
    }

    /// Removes the preview of an image that is written.
    pub(super) fn remove(&self, index: usize) {
        if let Some(path) = self.written().remove(&index) {
            // If somebody else has removed it already, so much the better.
            let _ = std::fs::remove_file(path);
        }
    }

    /// Replaces the preview before this one, so that whoever looks sees the one or the other; the first claims its name.
    fn put(&self, index: usize, png: &[u8]) -> Result<()> {
        let mut written = self.written();
        if let Some(path) = written.get(&index) {
            return files::replace(path, |file| file.write_all(png));
        }
        if let Some((prompt, seed)) = self.images.get(index) {
            let path =
                files::write_new(self.saver.preview_names(prompt, *seed, self.first_index + index, self.suffix), png)?;
            written.insert(index, path);
        }
        Ok(())
    }

    fn written(&self) -> MutexGuard<'_, HashMap<usize, PathBuf>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A way to show an image within the text of a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    /// <https://sw.kovidgoyal.net/kitty/graphics-protocol/>
    Kitty,
    /// <https://iterm2.com/documentation-images.html>
    Iterm2,
}

/// A terminal on standard error that shows images.
pub(super) struct Terminal {
    protocol: Protocol,
    /// True if the lines right above the cursor are those of a preview, which the next one overwrites.
    drawn: bool,
}

/// Lines of text that a preview takes.
const LINES: usize = 12;

impl Terminal {
    /// The terminal on standard error, where it is one and says that it shows images.
    pub(super) fn find() -> Option<Self> {
        let of_environment = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let protocol = std::io::stderr().is_terminal().then(|| protocol(&of_environment)).flatten()?;
        Some(Self { protocol, drawn: false })
    }

    /// Shows a preview in the place of the one before, or below what was printed since.
    pub(super) fn show(&mut self, width: usize, height: usize, rgb: Vec<u8>) {
        let Some(pixels) = Rgb8::new(width, height, rgb) else { return };
        let Ok(png) = encode_png(&pixels, &[]) else { return };
        let text = sequence(self.protocol, &STANDARD.encode(png), self.drawn);
        // A terminal that is gone is no reason to fail.
        let _ = std::io::stderr().write_all(text.as_bytes());
        self.drawn = true;
    }

    /// Remembers that something else was printed.
    pub(super) fn moved_on(&mut self) {
        self.drawn = false;
    }
}

/// Returns the protocol that the terminal's environment names. Within tmux and screen neither protocol gets through.
fn protocol(variable: &dyn Fn(&str) -> Option<String>) -> Option<Protocol> {
    let term = variable("TERM").unwrap_or_default();
    if variable("TMUX").is_some() || term.starts_with("screen") || term.starts_with("tmux") {
        return None;
    }
    let program = variable("TERM_PROGRAM").unwrap_or_default();
    if variable("KITTY_WINDOW_ID").is_some() || term == "xterm-kitty" || program == "ghostty" {
        return Some(Protocol::Kitty);
    }
    let is_iterm = ["iTerm.app", "WezTerm", "mintty"].contains(&program.as_str());
    (is_iterm || variable("LC_TERMINAL").as_deref() == Some("iTerm2")).then_some(Protocol::Iterm2)
}

/// Returns the sequence that shows a PNG, given in base64, over the lines above the cursor or on new ones, and leaves
/// the cursor below it.
fn sequence(protocol: Protocol, png: &str, again: bool) -> String {
    /// The most that kitty takes at once.
    const CHUNK: usize = 4096;
    // Lines are made first, so that nothing scrolls while the image is drawn; then the cursor goes up, and is put back
    // there after the image, wherever the protocol left it.
    let mut text = if again { String::new() } else { "\n".repeat(LINES) };
    text.push_str(&format!("\x1b[{LINES}A\r\x1b7"));
    match protocol {
        Protocol::Kitty => {
            let chunks = png.len().div_ceil(CHUNK);
            for (at, chunk) in png.as_bytes().chunks(CHUNK).enumerate() {
                let more = usize::from(at + 1 < chunks);
                // One id and one placement: the next preview takes this one's place. q=2 asks for no answer.
                let keys = if at == 0 {
                    format!("a=T,f=100,i=7391,p=1,r={LINES},C=1,q=2,m={more}")
                } else {
                    format!("m={more}")
                };
                text.push_str(&format!("\x1b_G{keys};{}\x1b\\", String::from_utf8_lossy(chunk)));
            }
        }
        Protocol::Iterm2 => {
            text.push_str(&format!("\x1b]1337;File=inline=1;height={LINES};preserveAspectRatio=1:{png}\x07"));
        }
    }
    text.push_str(&format!("\x1b8\x1b[{LINES}B\r"));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_told_by_what_they_say() {
        let of = |said: &[(&str, &str)]| {
            protocol(&|name| said.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned()))
        };
        assert_eq!(of(&[("TERM", "xterm-kitty")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM", "xterm-256color"), ("KITTY_WINDOW_ID", "1")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM_PROGRAM", "ghostty")]), Some(Protocol::Kitty));
        assert_eq!(of(&[("TERM_PROGRAM", "iTerm.app"), ("TERM", "xterm-256color")]), Some(Protocol::Iterm2));
        assert_eq!(of(&[("LC_TERMINAL", "iTerm2")]), Some(Protocol::Iterm2));
        assert_eq!(of(&[("TERM", "xterm-256color")]), None);
        assert_eq!(of(&[("TERM", "tmux-256color"), ("KITTY_WINDOW_ID", "1")]), None);
        assert_eq!(of(&[("TMUX", "/tmp/tmux"), ("TERM_PROGRAM", "iTerm.app")]), None);
    }

    #[test]
    fn a_large_image_comes_in_chunks_that_make_it_whole() {
        let png = "A".repeat(4096) + &"B".repeat(4096) + "C";
        let text = sequence(Protocol::Kitty, &png, false);
        assert!(text.starts_with(&"\n".repeat(LINES)));
        let chunks: Vec<(&str, &str)> =
            text.split("\x1b_G").skip(1).filter_map(|part| part.split("\x1b\\").next()?.split_once(';')).collect();
        let keys: Vec<&str> = chunks.iter().map(|(keys, _)| *keys).collect();
        assert!(keys[0].starts_with("a=T,f=100,") && keys[0].ends_with("m=1"), "{keys:?}");
        assert_eq!(keys[1..], ["m=1", "m=0"]);
        assert_eq!(chunks.iter().map(|(_, data)| *data).collect::<String>(), png);
        assert!(sequence(Protocol::Kitty, "A", true).starts_with("\x1b["), "the next one takes the lines of this one");
        let inline = sequence(Protocol::Iterm2, "QUJD", false);
        assert!(inline.contains("\x1b]1337;File=inline=1;") && inline.contains(":QUJD\x07"), "{inline:?}");
    }
}
