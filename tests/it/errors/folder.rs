//! The folder that a row is laid out in.

use std::path::{Path, PathBuf};

/// A folder to write, copy and spoil files in. Paths are relative to it, with `/` between their parts.
pub struct Folder {
    path: PathBuf,
}

impl Folder {
    pub fn new(path: &Path) -> Self {
        Self { path: path.to_path_buf() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    pub fn read(&self, name: &str) -> Vec<u8> {
        let path = self.path(name);
        std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }

    /// Writes a file, and the folders above it.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        let above = path.parent().expect("a file is in a folder");
        std::fs::create_dir_all(above).unwrap_or_else(|error| panic!("{}: {error}", above.display()));
        std::fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    pub fn remove(&self, name: &str) {
        let path = self.path(name);
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    /// Copies a folder with all that is below it.
    pub fn copy(&self, from: &Path, name: &str) {
        for entry in std::fs::read_dir(from).unwrap_or_else(|error| panic!("{}: {error}", from.display())) {
            let from = entry.expect("an entry").path();
            let name = format!("{name}/{}", from.file_name().unwrap_or_default().to_string_lossy());
            if from.is_dir() {
                self.copy(&from, &name);
            } else {
                self.write(&name, std::fs::read(&from).unwrap_or_else(|error| panic!("{}: {error}", from.display())));
            }
        }
    }

    /// Cuts a file off after so many bytes.
    pub fn cut(&self, name: &str, length: usize) {
        let bytes = self.read(name);
        assert!(length < bytes.len(), "{name} has only {} bytes", bytes.len());
        self.write(name, &bytes[..length]);
    }

    /// Replaces the first place where `from` stands in a file, which has to be there.
    pub fn replace(&self, name: &str, from: &str, to: &str) {
        let bytes = self.read(name);
        let at = bytes.windows(from.len()).position(|window| window == from.as_bytes());
        let at = at.unwrap_or_else(|| panic!("{from:?} is not in {name}"));
        self.write(name, [&bytes[..at], to.as_bytes(), &bytes[at + from.len()..]].concat());
    }

    /// Writes a grey PNG, each pixel of which is told by its place, counted from the upper left.
    pub fn grey(&self, name: &str, width: usize, height: usize, level: fn(usize) -> u8) {
        let file = std::fs::File::create(self.path(name)).expect("a file");
        let mut encoder = png::Encoder::new(file, width as u32, height as u32);
        encoder.set_color(png::ColorType::Grayscale);
        let mut writer = encoder.write_header().expect("a header");
        let levels: Vec<u8> = (0..width * height).map(level).collect();
        writer.write_image_data(&levels).expect("an image");
    }

    /// Writes an image with a gradient.
    pub fn image(&self, name: &str, width: u32, height: u32) {
        let shade = |n: u32, of: u32| u8::try_from(n * 255 / of).unwrap_or(255);
        image::RgbImage::from_fn(width, height, |x, y| image::Rgb([shade(x, width), shade(y, height), 90]))
            .save(self.path(name))
            .expect("an image can be written");
    }

    /// Writes a float32 array.
    pub fn array(&self, name: &str, shape: &[usize]) {
        let values = shape.iter().product::<usize>();
        let numbers: Vec<u8> = (0..values).flat_map(|i| ((i % 7) as f32 - 3.0).to_le_bytes()).collect();
        self.write(name, [npy_header("<f4", shape), numbers].concat());
    }

    /// The files below a folder, which need not be there.
    pub fn files_below(&self, name: &str) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(self.path(name)) else { return Vec::new() };
        entries.map(|entry| entry.expect("an entry").path()).collect()
    }
}

/// The header of a version 1 .npy file.
pub fn npy_header(dtype: &str, shape: &[usize]) -> Vec<u8> {
    let shape: String = shape.iter().map(|n| format!("{n}, ")).collect();
    let mut text = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': ({}), }}", shape.trim_end());
    while (10 + text.len() + 1) % 64 != 0 {
        text.push(' ');
    }
    text.push('\n');
    let length = u16::try_from(text.len()).expect("a short header");
    [b"\x93NUMPY\x01\x00".as_slice(), &length.to_le_bytes(), text.as_bytes()].concat()
}
