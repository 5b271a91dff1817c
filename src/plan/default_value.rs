//! The value of a key that a pipeline file leaves open.

/// The value of a key that the pipeline file leaves open.
#[derive(Debug, Clone, PartialEq)]
pub struct DefaultValue {
    /// The key, such as `run.steps`.
    pub key: String,
    /// The value, as TOML.
    pub value: String,
    /// The source of the value, such as `default of StableDiffusionXLPipeline`.
    pub source: String,
}
