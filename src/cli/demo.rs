//! `ldm-ort demo`.

use std::io::Write;
use std::path::{Path, PathBuf};

use super::args::DemoArgs;
use super::output;
use crate::error::{Error, Result};
use crate::files;

/// The demo pipeline, whose model is in [`MODEL`].
const PIPELINE: &str = include_str!("../../pipeline.toml");

/// The demo model's directory, relative to the pipeline file.
const MODEL: &str = "models/shapes";

/// Writes the demo pipeline and its model into a folder, and prints the path of the pipeline file.
///
/// # Errors
/// [`Error::Input`] if the demo model is not on this machine, or a file with other contents is in the way; [`Error::Io`] if
/// a file cannot be read or written.
pub fn demo(args: &DemoArgs, out: &mut dyn Write) -> Result<()> {
    let source = find_model(args.model.as_ref())?;
    files::require_writable_folder("DIR", &args.dir)?;
    copy_folder(&source, &args.dir.join(MODEL))?;
    let pipeline = args.dir.join("pipeline.toml");
    write(&pipeline, PIPELINE.as_bytes())?;
    output::text(out, &format!("{}\n", pipeline.display()))
}

/// Finds the demo model in the command's package, next to the executable, as in a release archive, in the source tree that the
/// executable is in, or in the current directory, which is a clone's for a program that `cargo install` put elsewhere.
fn find_model(packaged: Option<&PathBuf>) -> Result<PathBuf> {
    let executable = std::env::current_exe().and_then(|path| path.canonicalize()).unwrap_or_default();
    let beside = executable.parent().unwrap_or(Path::new(".")).to_path_buf();
    // `target/debug/ldm-ort` is two folders below the source tree.
    let around = beside.ancestors().take(3).chain([Path::new("")]).map(|folder| folder.join(MODEL));
    let mut places = packaged.cloned().into_iter().chain(around);
    let is_model = |place: &PathBuf| place.join("model_index.json").is_file();
    places.find(is_model).ok_or_else(|| {
        Error::input(
            beside.join(MODEL).display().to_string(),
            "the demo model is not here",
            "unpack the whole release archive, or run it in a clone of the source",
        )
    })
}

/// Copies the files of a folder and its subfolders.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to).map_err(|e| Error::io(to, "creating the folder", e))?;
    let entries = std::fs::read_dir(from).map_err(|e| Error::io(from, "reading", e))?;
    for entry in entries {
        let path = entry.map_err(|e| Error::io(from, "reading", e))?.path();
        let Some(name) = path.file_name() else { continue };
        if path.is_dir() {
            copy_folder(&path, &to.join(name))?;
        } else {
            write(&to.join(name), &files::read(&path).map_err(|e| Error::io(&path, "reading", e))?)?;
        }
    }
    Ok(())
}

/// Writes a file, unless it has these contents already.
fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    match files::read(path) {
        Ok(present) if present == bytes => Ok(()),
        Ok(_) => Err(Error::input(
            path.display().to_string(),
            "a file with other contents has this name",
            "choose another folder, or remove the file",
        )),
        Err(_) => files::write_whole(path, |file| file.write_all(bytes)),
    }
}
