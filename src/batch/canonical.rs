//! The canonical form of a request: one text for all ways to write the same image.
//!
//! It is JSON with sorted keys:
//! - `pipeline`: the tables of the pipeline file with the request in them, with one image's prompt and seed, and with the
//!   steps, the size, the scheduler, the guidance scale and the strength that the model's defaults leave; without paths,
//!   `[output]`, limits, and the settings of `[device]` that say how and not what is computed;
//! - `models`: the digests of the graphs with their weights, and of the configuration and tokenizer files, for each stage;
//! - `inputs`: the digests of input files, and of images in the request;
//! - `image`: the image's index if one file has the noise or the latents of all images, else 0.

use sha2::{Digest, Sha256};
use toml::{Table, Value};

use super::key::Key;
use crate::engine::ModelDigests;
use crate::error::{Error, Result};
use crate::files;
use crate::plan::{ModelPlan, Plan, RunPlan};
use crate::spec::{SchedulerSpec, Spec};
use crate::task::InputImage;

/// The version of the form, which is part of it.
const VERSION: i64 = 1;

/// Words in the names of providers' options that change the precision of arithmetic, and so the image.
const PRECISION: [&str; 9] = ["fp16", "bf16", "fp8", "int8", "tf32", "half", "precision", "fast_math", "fast_gelu"];

/// Keys of `[device]` that change more than the rounding: bf16, Winograd convolutions, and the tiles of a memory budget.
const DEVICE: [&str; 4] = ["precision", "fast_convolutions", "exact", "memory_budget"];

/// A request with all that determines its images.
pub(super) struct CanonicalRequest {
    spec: Spec,
    inputs: Table,
    models: Value,
}

impl CanonicalRequest {
    /// Fills the choices of `plan` into `spec`, the request's pipeline as it was read. `input_digests` are those of
    /// [`Spec::inputs`] by key.
    pub(super) fn new(mut spec: Spec, plan: &Plan, digests: &[ModelDigests], input_digests: Table) -> Self {
        let mut inputs = input_digests;
        resolve(&mut spec, &plan.request, &plan.model);
        pixel_digests(&spec, "", &mut inputs);
        for (at, (stage, planned)) in spec.stages.iter_mut().zip(&plan.stages).enumerate() {
            resolve(&mut stage.spec, &planned.request, &planned.model);
            pixel_digests(&stage.spec, &format!("stage[{at}]."), &mut inputs);
        }
        let models = digests.iter().map(|own| {
            let table = |map: &std::collections::BTreeMap<String, String>| {
                Value::Table(map.iter().map(|(name, digest)| (name.clone(), digest.clone().into())).collect())
            };
            Value::Table(Table::from_iter([
                ("weights".to_owned(), table(&own.weights)),
                ("files".to_owned(), table(&own.files)),
            ]))
        });
        Self { spec, inputs, models: Value::Array(models.collect()) }
    }

    /// Returns the seed of a request that has none: the first 31 bits of the SHA-256 of its `pipeline` and `inputs`, without
    /// the number of images. The model is not part of it, so that two models draw the same noise.
    ///
    /// # Errors
    /// [`Error::Internal`] if the pipeline is not written as TOML.
    pub(super) fn seed(&self) -> Result<u64> {
        let mut pipeline = tables(&self.spec)?;
        if let Some(Value::Table(run)) = pipeline.get_mut("run") {
            run.remove("images");
            run.remove("seed");
        }
        let form = [("pipeline", Value::Table(pipeline)), ("inputs", Value::Table(self.inputs.clone()))];
        Ok(Key::of(&text(&table(form))).number() >> 33)
    }

    /// Returns the key of one image.
    ///
    /// # Errors
    /// As [`CanonicalRequest::seed`].
    pub(super) fn key(&self, image: usize, seed: u64) -> Result<Key> {
        let mut own = self.spec.clone();
        let index = if own.shares_a_file() {
            image
        } else {
            own.keep_only(image, seed);
            0
        };
        let form = [
            ("version", VERSION.into()),
            ("pipeline", Value::Table(tables(&own)?)),
            ("models", self.models.clone()),
            ("inputs", Value::Table(self.inputs.clone())),
            ("image", i64::try_from(index).unwrap_or(i64::MAX).into()),
        ];
        Ok(Key::of(&text(&table(form))))
    }
}

fn table<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Table(entries.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

/// Writes the plan's choices over what the pipeline leaves open.
fn resolve(spec: &mut Spec, run: &RunPlan, model: &ModelPlan) {
    spec.run.steps = Some(run.steps);
    (spec.run.width, spec.run.height) = (Some(run.width), Some(run.height));
    spec.scheduler = Some(SchedulerSpec { name: run.scheduler.name.clone(), table: run.scheduler.table.clone() });
    let scale = run.task.guidance_scale(&model.model);
    if let Some(prompting) = spec.task.prompting_mut() {
        prompting.guidance_scale = Some(scale);
    }
    let strength = run.task.strength();
    if let Some(own) = spec.task.strength_mut() {
        *own = strength;
    }
}

/// The tables of a pipeline, without paths, output, limits, and settings that leave the image as it is.
fn tables(spec: &Spec) -> Result<Table> {
    let internal = |problem: &dyn std::fmt::Display| Error::internal("canonical request", problem.to_string());
    let mut tables: Table = spec.to_toml().parse().map_err(|error: toml::de::Error| internal(&error))?;
    for (key, _) in spec.paths() {
        remove(&mut tables, &key);
    }
    strip(&mut tables);
    if let Some(Value::Array(stages)) = tables.get_mut("stage") {
        stages.iter_mut().filter_map(Value::as_table_mut).for_each(strip);
    }
    Ok(tables)
}

fn strip(tables: &mut Table) {
    tables.remove("output");
    if let Some(Value::Table(run)) = tables.get_mut("run") {
        run.remove("max_input_megapixels");
    }
    let Some(Value::Table(mut device)) = tables.remove("device") else { return };
    device.retain(|name, value| match value {
        Value::Table(options) => {
            options.retain(|option, _| PRECISION.iter().any(|word| option.to_ascii_lowercase().contains(word)));
            !options.is_empty()
        }
        _ => DEVICE.contains(&name),
    });
    if !device.is_empty() {
        tables.insert("device".to_owned(), Value::Table(device));
    }
}

/// Removes a key such as `stage[0].control[1].image`.
fn remove(tables: &mut Table, key: &str) {
    let Some((first, rest)) = key.split_once('.') else {
        tables.remove(key);
        return;
    };
    let inner = match first.strip_suffix(']').and_then(|first| first.split_once('[')) {
        None => tables.get_mut(first),
        Some((name, number)) => {
            let items = tables.get_mut(name).and_then(Value::as_array_mut);
            items.zip(number.parse::<usize>().ok()).and_then(|(items, at)| items.get_mut(at))
        }
    };
    if let Some(inner) = inner.and_then(Value::as_table_mut) {
        remove(inner, rest);
    }
}

/// Adds the digests of images in memory, which a request has as `data:` URIs.
fn pixel_digests(spec: &Spec, prefix: &str, inputs: &mut Table) {
    let of_task = spec.task.images().into_iter();
    let of_task = of_task.map(|(key, image)| (format!("task.{}.{key}", spec.task.name()), image));
    let of_controls = spec.controls.iter().enumerate();
    let of_controls = of_controls.map(|(at, control)| (format!("control[{at}].image"), &control.image));
    for (key, image) in of_task.chain(of_controls) {
        if let InputImage::Pixels(pixels) = image {
            let mut hash = Sha256::new();
            hash.update(format!("{} {} ", pixels.width(), pixels.height()));
            hash.update(pixels.data());
            inputs.insert(format!("{prefix}{key}"), format!("pixels:{}", files::hexadecimal(hash)).into());
        }
    }
}

/// Writes JSON without spaces, with sorted keys.
fn text(value: &Value) -> String {
    let mut out = String::new();
    write(value, &mut out);
    out
}

fn write(value: &Value, out: &mut String) {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    match value {
        Value::Table(entries) => {
            let mut names: Vec<&String> = entries.keys().collect();
            names.sort();
            out.push('{');
            for (at, name) in names.into_iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(name));
                out.push(':');
                write(&entries[name], out);
            }
            out.push('}');
        }
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write(item, out);
            }
            out.push(']');
        }
        Value::String(text) => out.push_str(&quoted(text)),
        Value::Integer(number) => out.push_str(&number.to_string()),
        Value::Boolean(flag) => out.push_str(&flag.to_string()),
        // Infinities are no numbers of JSON.
        Value::Float(number) => match serde_json::Number::from_f64(*number) {
            Some(number) => out.push_str(&number.to_string()),
            None => out.push_str(&quoted(&number.to_string())),
        },
        Value::Datetime(date) => out.push_str(&quoted(&date.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_sorted_json() {
        let table: Table = "b = [1, 2.5, inf]\na = { d = \"x\\ny\", c = true }".parse().unwrap();
        assert_eq!(text(&Value::Table(table)), r#"{"a":{"c":true,"d":"x\ny"},"b":[1,2.5,"inf"]}"#);
    }

    #[test]
    fn the_machine_is_left_out() {
        let mut tables: Table =
            "[output]\ndir = 'x'\n[run]\nsteps = 3\nmax_input_megapixels = 99\n[device]\nprovider = ['cuda']\n\
                                 threads = 4\nfast_convolutions = true\n[device.tensorrt]\ntrt_fp16_enable = 'True'\n\
                                 device_id = '1'\n[[stage]]\n[stage.model]\npath = 'm'\n[stage.device]\nthreads = 2\n"
                .parse()
                .unwrap();
        remove(&mut tables, "stage[0].model.path");
        remove(&mut tables, "stage[7].model.path");
        strip(&mut tables);
        tables["stage"].as_array_mut().unwrap().iter_mut().filter_map(Value::as_table_mut).for_each(strip);
        let expected = r#"{"device":{"fast_convolutions":true,"tensorrt":{"trt_fp16_enable":"True"}},"run":{"steps":3},"stage":[{"model":{}}]}"#;
        assert_eq!(text(&Value::Table(tables)), expected);
    }
}
