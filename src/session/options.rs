//! How a session is opened.

use super::Cancel;
use super::provider::ProviderChoice;

/// How far ONNX Runtime rewrites a graph when it opens it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Optimization {
    /// The graph as it stands.
    None,
    /// Constant folding and removal of redundant nodes: opens several times faster than [`Optimization::All`], and
    /// runs some 5 to 20 % slower on a processor.
    Basic,
    /// Fusions too.
    Extended,
    /// Data layout for this machine too.
    #[default]
    All,
}

/// How a session is opened.
#[derive(Debug, Clone)]
pub struct SessionOptions {
    /// The component's name, for messages: `unet`, `text_encoder`.
    pub component: String,
    /// Execution providers in order of preference; empty means the processor (`cpu`).
    ///
    /// Nodes that no provider of the list takes run on the processor only if the list ends in `cpu`; otherwise heavy
    /// nodes (convolutions, matrix products, attention) without a provider are an error. Light nodes, such as the
    /// shape arithmetic that ONNX Runtime itself moves off a GPU, may run on the processor in any case.
    pub providers: Vec<ProviderChoice>,
    /// Threads within one node on the processor; `None` is one for each physical core.
    pub threads: Option<usize>,
    /// Whether memory is laid out once for all runs of one shape.
    ///
    /// Off by default: for the few large runs of a diffusion model laying out costs more than it saves (the first
    /// run of a Stable Diffusion 1.5 UNet at 512×512 took 15.2 s with it and 11.6 s without, and 0.5 GiB more).
    pub memory_pattern: bool,
    /// How far the graph is rewritten.
    pub optimization: Optimization,
    /// Further entries of ONNX Runtime's session configuration, key and value, under its own names such as
    /// `session.disable_prepacking`.
    pub config: Vec<(String, String)>,
    /// Stops the opening, which can take minutes where a provider compiles.
    pub cancel: Cancel,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            component: "graph".into(),
            providers: Vec::new(),
            threads: None,
            memory_pattern: false,
            optimization: Optimization::default(),
            config: Vec::new(),
            cancel: Cancel::new(),
        }
    }
}
