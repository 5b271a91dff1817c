//! The tiny models, unpacked from `tests/fixtures/packed`, where a seed is in the place of most weights.
//!
//! `scripts/fixtures/seeds.py` packs them and says what the table of a model holds.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use half::f16;
use ldm_ort::rng::{Generator, TorchCpu};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// The root of the repository, in which every tiny model is unpacked.
pub fn root() -> &'static Path {
    static UNPACKED: OnceLock<()> = OnceLock::new();
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let root = folders.find(|folder| folder.join("tests/fixtures/packed").is_dir()).expect("the repository");
    UNPACKED.get_or_init(|| unpack_all(&root.join("tests/fixtures")));
    root
}

/// Unpacks what is not unpacked as its pack is now. Processes wait for each other, and a folder of models is there whole
/// or not at all.
fn unpack_all(fixtures: &Path) {
    let stamps = fixtures.join("packed/stamps");
    fs::create_dir_all(&stamps).expect("tests/fixtures can be written to");
    let lock = File::create(stamps.join("lock")).expect("a lock");
    lock.lock().expect("the lock");
    for kind in ["models", "families", "systems"] {
        let pack = fixtures.join("packed").join(kind).with_extension("zip");
        let packed = fs::read(&pack).expect("a pack");
        let (folder, stamp) = (fixtures.join(kind), stamps.join(kind));
        let sum = hex(&packed);
        if folder.is_dir() && fs::read_to_string(&stamp).is_ok_and(|stamped| stamped == sum) {
            continue;
        }
        let made = stamps.join("making");
        let _ = (fs::remove_dir_all(&made), fs::remove_file(&stamp), fs::remove_dir_all(&folder));
        unpack(&packed, &made).unwrap_or_else(|problem| panic!("{}: {problem}", pack.display()));
        fs::rename(&made, &folder).expect("the folder can be moved");
        fs::write(&stamp, sum).expect("a stamp");
    }
}

fn hex(bytes: &[u8]) -> String {
    Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the models of a pack into `folder`. They are compressed as one file, an archive that stores theirs: most of a
/// tiny model is what another one has too.
fn unpack(packed: &[u8], folder: &Path) -> Result<(), String> {
    let mut models = BTreeMap::<String, BTreeMap<String, Vec<u8>>>::new();
    let (_, stored) = entries(packed)?.pop_first().ok_or("the pack is empty")?;
    for (path, bytes) in entries(&stored)? {
        let (model, file) = path.split_once('/').ok_or("a file outside a model")?;
        models.entry(model.to_owned()).or_default().insert(file.to_owned(), bytes);
    }
    for (name, files) in models {
        unpack_model(files, &folder.join(&name)).map_err(|problem| format!("{name}: {problem}"))?;
    }
    Ok(())
}

fn entries(archive: &[u8]) -> Result<BTreeMap<String, Vec<u8>>, String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let mut archive = zip::ZipArchive::new(std::io::Cursor::new(archive)).map_err(|error| text(&error))?;
    let mut files = BTreeMap::new();
    for i in 0..archive.len() {
        let mut entry = archive.by_index(i).map_err(|error| text(&error))?;
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| text(&error))?;
        let name = entry.name().map_err(|error| text(&error))?.into_owned();
        files.insert(name, bytes);
    }
    Ok(files)
}

/// Draws the weights of a model and writes its files into `folder`.
fn unpack_model(mut files: BTreeMap<String, Vec<u8>>, folder: &Path) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let table = files.remove("seeds.json").ok_or("no seeds.json")?;
    let table: Value = serde_json::from_slice(&table).map_err(|error| text(&error))?;
    let mut draws = Draws::default();
    for weight in table["weights"].as_array().ok_or("no weights")? {
        let (file, at) = (weight["file"].as_str().ok_or("no file")?, number(weight, "at")?);
        let bytes = written(weight, draws.draw(weight)?)?;
        let whole = files.get_mut(file).ok_or("no such file")?;
        whole.get_mut(at..at + bytes.len()).ok_or("no such place")?.copy_from_slice(&bytes);
    }
    for (file, want) in table["sha256"].as_object().ok_or("no sha256")? {
        let got = hex(files.get(file).ok_or("no such file")?);
        if want != &got {
            return Err(format!("{file} is not what its seeds made: its sha256 is {got}, not {want}"));
        }
    }
    for (file, bytes) in files {
        let path: PathBuf = folder.join(file);
        fs::create_dir_all(path.parent().ok_or("no folder")?).map_err(|error| text(&error))?;
        fs::write(path, bytes).map_err(|error| text(&error))?;
    }
    Ok(())
}

fn number(weight: &Value, name: &str) -> Result<usize, String> {
    weight[name].as_u64().map(|n| n as usize).ok_or_else(|| format!("{weight} has no {name}"))
}

/// A generator, kept where it is for the next draw of the same seed.
#[derive(Default)]
struct Draws(Option<(usize, usize, TorchCpu)>);

impl Draws {
    /// The values of a draw, before what was done to them.
    fn draw(&mut self, weight: &Value) -> Result<Vec<f32>, String> {
        let (seed, skip, count) = (number(weight, "seed")?, number(weight, "skip")?, number(weight, "count")?);
        let (_, at, mut generator) = self
            .0
            .take()
            .filter(|(last, at, _)| *last == seed && *at <= skip)
            .unwrap_or_else(|| (seed, 0, TorchCpu::new(seed as u64)));
        generator.uniform(&mut vec![0.0; skip - at]);
        self.0 = Some((seed, skip, generator.clone()));
        let mut values = vec![0.0; count];
        let scalar = |name: &str| weight[name].as_f64().map(|v| v as f32).ok_or(format!("{weight} has no {name}"));
        let (scale, shift) = (scalar("scale")?, scalar("shift")?);
        if weight["draw"] == "normal" {
            generator.normal(&mut values);
            values.iter_mut().for_each(|v| *v = *v * scale + shift);
        } else {
            generator.uniform(&mut values);
            values.iter_mut().for_each(|v| *v = v.mul_add(scale, shift));
        }
        Ok(values)
    }
}

/// What was done to the values of a draw, and the bytes that they are stored as.
fn written(weight: &Value, mut values: Vec<f32>) -> Result<Vec<u8>, String> {
    let scalar = |name: &str, usual: f32| weight[name].as_f64().map_or(usual, |v| v as f32);
    let (gain, add) = (scalar("gain", 1.0), scalar("add", 0.0));
    for value in &mut values {
        *value = *value * gain + add;
        if weight["rounded"] == true {
            *value = f16::from_f32(*value).to_f32();
        }
    }
    if weight["rows"].is_u64() {
        let rows = number(weight, "rows")?;
        let columns = values.len() / rows;
        values = (0..values.len()).map(|i| values[i % rows * columns + i / rows]).collect();
    }
    Ok(match weight["dtype"].as_str() {
        Some("float16") => values.iter().flat_map(|v| f16::from_f32(*v).to_le_bytes()).collect(),
        Some("float32") => values.iter().flat_map(|v| v.to_le_bytes()).collect(),
        other => return Err(format!("a weight is stored as {other:?}")),
    })
}
