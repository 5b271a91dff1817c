//! The record in an image file, with everything that is needed to generate the image again.

mod differences;
mod exif;
mod fewer_evaluations;
mod read;
mod stage_record;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

pub use differences::compare_files;
pub use fewer_evaluations::{CacheRecord, FewerEvaluations};
pub(crate) use read::record_in;
pub use read::{read_png, read_record};
pub use stage_record::StageRecord;

/// The keyword of the PNG text chunk that holds the [`Record`] as JSON.
pub const RECORD_KEYWORD: &str = "ldm-ort";

/// The keyword of the PNG text chunk that AUTOMATIC1111's web UI and compatible tools read.
pub const PARAMETERS_KEYWORD: &str = "parameters";

/// The version of the record that this program writes, and the highest that it reads.
///
/// Version 1 had neither `weights`, `files`, `arithmetic` nor `unrecorded`, and absolute paths in `pipeline`. Version 2 had
/// old names of keys and fields ([`crate::aliases`]).
pub const SCHEMA: u32 = 3;

/// This program and its version, as records name it.
pub const ENGINE: &str = concat!("ldm-ort ", env!("CARGO_PKG_VERSION"));

/// The record of an image: the program, the models and the pipeline that generated it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Record {
    /// The version of this record.
    pub schema: u32,
    /// The program and its version.
    pub engine: String,
    /// The version of ONNX Runtime.
    pub runtime: String,
    /// Other influences on rounding: the CPU's instruction set, and whether graphs were optimized before the run.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub arithmetic: String,
    /// The requested execution providers, in order of preference.
    pub providers: Vec<String>,
    /// The model directory's name.
    pub model: String,
    /// SHA-256 of all graphs and their weights, in hexadecimal.
    pub model_digest: String,
    /// SHA-256 of each graph with its weights, by component, and of each LoRA and textual inversion, in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub weights: BTreeMap<String, String>,
    /// SHA-256 of each configuration and tokenizer file, by its path in the model directory, in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub files: BTreeMap<String, String>,
    /// The task's name in pipeline.toml.
    pub task: String,
    /// The prompt of this image.
    pub prompt: String,
    /// The negative prompt of this image.
    pub negative_prompt: String,
    /// The scheduler's name in pipeline.toml.
    pub scheduler: String,
    /// The number of steps.
    pub steps: usize,
    /// The guidance scale.
    pub guidance_scale: f64,
    /// The image-to-image strength, the fraction of the steps that were run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub strength: Option<f64>,
    /// The seed of this image.
    pub seed: u64,
    /// Width in pixels.
    pub width: usize,
    /// Height in pixels.
    pub height: usize,
    /// The text of a pipeline file that generates this image. Its paths are relative, and those of files outside the
    /// current directory are bare names, unless `[output] record_paths` requests absolute paths.
    pub pipeline: String,
    /// The index of this image among those of the pipeline, counted from 0.
    pub index: usize,
    /// The type in which the denoiser multiplied, if it is not that of its graph: `bf16 (amx_bf16)`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub precision: Option<String>,
    /// The comparison of each component with the CPU, if there was one, in a sentence.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub verified: Vec<String>,
    /// The component that decoded the image, if it is not the VAE's own decoder: `tiny_vae_decoder`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decoder: Option<String>,
    /// The side in latents of the tiles in which the image was decoded, if it was not decoded whole.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub decode_tile: Option<usize>,
    /// The number of evaluations, if it was reduced by a guidance interval or caching.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub fewer_evaluations: Option<FewerEvaluations>,
    /// SHA-256 of each input file of the pipeline besides the model, by key, in hexadecimal.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub inputs: BTreeMap<String, String>,
    /// The further stages, the `[[stage]]` tables.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stages: Vec<StageRecord>,
    /// A sentence for each change that a program made after planning and that a pipeline file cannot express. If there
    /// is any, the image cannot be generated again from this record.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub unrecorded: Vec<String>,
}

impl Record {
    /// Returns the text chunks of the image file, as keyword and text.
    ///
    /// # Errors
    /// [`Error::Input`] if the record cannot be written as JSON.
    pub fn chunks(&self) -> Result<Vec<(&'static str, String)>> {
        let json = serde_json::to_string(self)
            .map_err(|e| Error::input("record", format!("cannot be written as JSON: {e}"), ""))?;
        Ok(vec![(PARAMETERS_KEYWORD, self.parameters()), (RECORD_KEYWORD, json)])
    }

    /// The component that decoded the image, if it is not the VAE's own decoder.
    pub fn tiny_decoder(&self) -> Option<&str> {
        self.stages.last().map_or(&self.decoder, |stage| &stage.decoder).as_deref()
    }

    /// Formats the text that AUTOMATIC1111's web UI writes under `parameters`.
    pub fn parameters(&self) -> String {
        let mut text = self.prompt.clone();
        if !self.negative_prompt.is_empty() {
            text.push_str("\nNegative prompt: ");
            text.push_str(&self.negative_prompt);
        }
        let digest: String = self.model_digest.chars().take(10).collect();
        text.push_str(&format!(
            "\nSteps: {}, Sampler: {}, CFG scale: {}, Seed: {}, Size: {}x{}, Model hash: {digest}, Model: {}",
            self.steps, self.scheduler, self.guidance_scale, self.seed, self.width, self.height, self.model
        ));
        if let Some(strength) = self.strength {
            text.push_str(&format!(", Denoising strength: {strength}"));
        }
        if let Some(decoder) = self.tiny_decoder() {
            text.push_str(&format!(", Decoder: {decoder}"));
        }
        if let Some(fewer) = &self.fewer_evaluations {
            if let Some([from, to]) = fewer.guidance_interval {
                text.push_str(&format!(", Guidance interval: {from}-{to}"));
            }
            if let Some(cache) = &fewer.cache {
                text.push_str(&format!(", Cache: {}", cache.method));
            }
            text.push_str(&format!(", Evaluations: {} of {}", fewer.made, fewer.total));
            if fewer.shallow > 0 {
                text.push_str(&format!(", Evaluations of the shallow layers alone: {}", fewer.shallow));
            }
        }
        for stage in &self.stages {
            if let Some(start) = stage.denoising_start {
                let digest: String = stage.model_digest.chars().take(10).collect();
                text.push_str(&format!(", Refiner: {} [{digest}], Refiner switch at: {start}", stage.model));
            }
        }
        text.push_str(", Version: ");
        text.push_str(&self.engine);
        text
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::aliases::{ALIASES, AliasKind};

    pub(super) fn record() -> Record {
        Record {
            schema: SCHEMA,
            engine: "ldm-ort 0.1.0".into(),
            runtime: "1.31.1".into(),
            arithmetic: "x86_64 avx2, graphs as stored".into(),
            providers: vec!["cpu".into()],
            model: "shapes".into(),
            model_digest: "0123456789abcdef".into(),
            weights: BTreeMap::from([("unet".into(), "01".into()), ("lora[0]".into(), "02".into())]),
            files: BTreeMap::from([("scheduler/scheduler_config.json".into(), "03".into())]),
            task: "text-to-image".into(),
            prompt: "a red circle".into(),
            negative_prompt: "blue".into(),
            scheduler: "ddim".into(),
            steps: 20,
            guidance_scale: 7.5,
            strength: None,
            seed: 42,
            width: 64,
            height: 48,
            pipeline: "[model]\n".into(),
            index: 0,
            precision: None,
            verified: Vec::new(),
            decoder: None,
            decode_tile: None,
            fewer_evaluations: None,
            inputs: BTreeMap::from([("run.latents".into(), "0123".into())]),
            stages: Vec::new(),
            unrecorded: Vec::new(),
        }
    }

    #[test]
    fn parameters_have_the_format_of_other_tools() {
        assert_eq!(
            record().parameters(),
            "a red circle\nNegative prompt: blue\nSteps: 20, Sampler: ddim, CFG scale: 7.5, Seed: 42, Size: 64x48, \
             Model hash: 0123456789, Model: shapes, Version: ldm-ort 0.1.0"
        );
        let refiner = StageRecord {
            input: "latents".into(),
            model: "refiner".into(),
            model_digest: "fedcba9876543210".into(),
            weights: BTreeMap::new(),
            files: BTreeMap::new(),
            task: "image-to-image".into(),
            scheduler: "euler".into(),
            steps: 20,
            guidance_scale: 5.0,
            strength: None,
            denoising_start: Some(0.8),
            decoder: None,
            fewer_evaluations: None,
        };
        let refined = Record { stages: vec![refiner], ..record() };
        let expected = "Model: shapes, Refiner: refiner [fedcba9876], Refiner switch at: 0.8, Version: ldm-ort 0.1.0";
        assert!(refined.parameters().ends_with(expected), "{}", refined.parameters());
    }

    #[test]
    fn fewer_evaluations_are_recorded() {
        let mut record = record();
        assert!(!serde_json::to_string(&record).unwrap().contains("evaluations"));
        let parameters = BTreeMap::from([("threshold".to_owned(), 0.05.into()), ("reset".to_owned(), true.into())]);
        let cache = CacheRecord { method: "ucache".into(), parameters };
        record.fewer_evaluations = Some(FewerEvaluations {
            made: 14,
            shallow: 0,
            total: 20,
            guidance_interval: Some([0.2, 0.8]),
            cache: Some(cache),
        });
        let text = record.parameters();
        assert!(
            text.contains("Model: shapes, Guidance interval: 0.2-0.8, Cache: ucache, Evaluations: 14 of 20, Version"),
            "{text}"
        );
        let again: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
        record.fewer_evaluations.iter_mut().for_each(|fewer| fewer.shallow = 6);
        let text = record.parameters();
        assert!(text.contains("Evaluations: 14 of 20, Evaluations of the shallow layers alone: 6, Version"), "{text}");
        let again: Record = serde_json::from_str(&serde_json::to_string(&record).unwrap()).unwrap();
        assert_eq!(again, record);
    }

    fn png_with(chunks: &[(&str, String)]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut encoder = png::Encoder::new(file.reopen().unwrap(), 1, 1);
        encoder.set_color(png::ColorType::Rgb);
        for (keyword, text) in chunks {
            encoder.add_itxt_chunk((*keyword).to_owned(), text.clone()).unwrap();
        }
        encoder.write_header().unwrap().write_image_data(&[1, 2, 3]).unwrap();
        file
    }

    #[test]
    fn a_record_survives_its_image() {
        let mut record = record();
        record.prompt = "日本の山 \"naïve\"".into();
        let file = png_with(&record.chunks().unwrap());
        assert_eq!(read_png(file.path()).unwrap(), record);
    }

    /// A record with the old name of an alias in it, from the JSON of one with the new names.
    fn with_old_name(old: &str, mut json: serde_json::Value) -> serde_json::Value {
        let rename = |object: &mut serde_json::Value, new: &str, old: &str| {
            let value = object.as_object_mut().and_then(|object| object.remove(new)).expect("the new name is there");
            object[old] = value;
        };
        match old {
            "fewer_evaluations.outer" => rename(&mut json["fewer_evaluations"], "shallow", "outer"),
            "stages[].hand" => rename(&mut json["stages"][0], "input", "hand"),
            "weights.embedding[]" => {
                rename(&mut json["weights"], "textual_inversion[1]", "embedding[1]");
                rename(&mut json["stages"][0]["weights"], "textual_inversion[0]", "embedding[0]");
            }
            "weights.small_decoder" => rename(&mut json["weights"], "tiny_vae_decoder", "small_decoder"),
            "decoder = \"small_decoder\"" => json["decoder"] = "small_decoder".into(),
            other => panic!("the alias {other} has no sample here"),
        }
        json
    }

    #[test]
    fn old_names_in_a_record_are_read() {
        let fewer = FewerEvaluations { made: 14, shallow: 6, total: 20, guidance_interval: None, cache: None };
        let weights = |names: [&str; 2]| names.map(|name| (name.to_owned(), "01".to_owned())).into();
        let stage = StageRecord {
            input: "image".into(),
            model: "refiner".into(),
            model_digest: "01".into(),
            weights: weights(["unet", "textual_inversion[0]"]),
            files: BTreeMap::new(),
            task: "image-to-image".into(),
            scheduler: "euler".into(),
            steps: 20,
            guidance_scale: 5.0,
            strength: None,
            denoising_start: None,
            decoder: None,
            fewer_evaluations: None,
        };
        let new = Record {
            weights: weights(["tiny_vae_decoder", "textual_inversion[1]"]),
            decoder: Some("tiny_vae_decoder".into()),
            fewer_evaluations: Some(fewer),
            stages: vec![stage],
            ..record()
        };
        let json = serde_json::to_value(&new).unwrap();
        for alias in ALIASES.iter().filter(|alias| alias.kind == AliasKind::Record) {
            let old = with_old_name(alias.old, json.clone());
            assert_ne!(old, json);
            let file = png_with(&[(RECORD_KEYWORD, old.to_string())]);
            assert_eq!(read_png(file.path()).unwrap(), new, "{}", alias.old);
        }
    }

    #[test]
    fn a_missing_record_is_an_error() {
        let error = |file: &Path| read_png(file).unwrap_err().to_string();
        let none = png_with(&[("parameters", "x".into())]);
        assert!(error(none.path()).contains("has no record"));
        let later = png_with(&[(RECORD_KEYWORD, r#"{"schema": 9}"#.into())]);
        assert!(error(later.path()).contains("version 9"));
        let text = tempfile::NamedTempFile::new().unwrap();
        assert!(error(text.path()).contains("is not a PNG file"));
        assert!(error(Path::new("not-there.png")).contains("no such file"));
    }
}
