//! Schedulers' configuration files.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::json;
use super::search::read_if_there;
use crate::error::Result;

/// A scheduler's configuration file.
#[derive(Debug, Clone, PartialEq)]
pub struct SchedulerFile {
    /// The file.
    pub path: PathBuf,
    /// diffusers' class, such as `PNDMScheduler`, from the file or else from model_index.json.
    pub class: Option<String>,
    /// The file's contents.
    pub config: Map<String, Value>,
}

/// Reads the configuration in the folder `name` of a model directory, if there is one.
pub(super) fn find_scheduler(dir: &Path, name: &str, index: &Map<String, Value>) -> Result<Option<SchedulerFile>> {
    for file in ["scheduler_config.json", "config.json"] {
        let path = dir.join(name).join(file);
        if let Some(config) = read_if_there(&path)? {
            let indexed = index.get(name).and_then(|entry| entry.get(1)).and_then(Value::as_str);
            let class = json::string(&config, "_class_name").or(indexed).map(str::to_owned);
            return Ok(Some(SchedulerFile { path, class, config }));
        }
    }
    Ok(None)
}
