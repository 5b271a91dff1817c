//! The records of runs with fewer evaluations of the denoiser.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// A reduced number of evaluations: the requested methods and the resulting counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct FewerEvaluations {
    /// Evaluations of the full model, each branch of the guidance counted separately.
    pub made: usize,
    /// The evaluations of its shallow layers alone.
    #[serde(skip_serializing_if = "is_zero", default, alias = "outer")]
    pub shallow: usize,
    /// Evaluations of a full run.
    #[serde(rename = "of")]
    pub total: usize,
    /// The start and end of guidance, as fractions of the run.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub guidance_interval: Option<[f64; 2]>,
    /// The caching method.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cache: Option<CacheRecord>,
}

fn is_zero(count: &usize) -> bool {
    *count == 0
}

/// A caching method with its parameters.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CacheRecord {
    /// The method's name in pipeline.toml.
    pub method: String,
    /// The method's parameters, by name.
    pub parameters: BTreeMap<String, serde_json::Value>,
}
