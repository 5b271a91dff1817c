//! Layouts of model directories.

/// The layout of a model directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Layout {
    /// One directory per component, each with a config.json: Optimum, and exporters that follow it.
    Configured,
    /// One directory per component, none with a config.json, and a model_index.json: diffusers' first ONNX exports.
    Legacy,
    /// One directory per component, with neither config.json nor model_index.json.
    Bare,
    /// All graphs directly in the model's directory, such as `unet.onnx`.
    Flat,
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Configured => "a directory with config.json for each component (Optimum's layout)",
            Self::Legacy => "a directory without config.json for each component (diffusers' legacy ONNX layout)",
            Self::Bare => "a directory for each component, without model_index.json",
            Self::Flat => "all graphs in one directory",
        })
    }
}
