//! The kinds of errors, and their exit codes.

/// The kinds of errors, by cause. Front ends map them to their own codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// A key, value or input of the request, or a flag.
    Request,
    /// The pipeline file, the model directory, or a graph.
    Pipeline,
    /// An execution provider that is not available on this machine.
    Provider,
    /// ONNX Runtime's library.
    Runtime,
    /// A file that cannot be read or written.
    Io,
    /// Insufficient memory.
    Memory,
    /// A tensor with non-finite values.
    NonFinite,
    /// An interrupted run.
    Interrupted,
    /// A bug of this program.
    Internal,
}

impl ErrorKind {
    /// Returns the command line's exit code: 1 for a failed run, 2 for an error in usage, pipeline, provider or
    /// runtime, 70 for a bug of the program, 130 for an interrupted run.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Request | Self::Pipeline | Self::Provider | Self::Runtime => 2,
            Self::Io | Self::Memory | Self::NonFinite => 1,
            Self::Internal => 70,
            Self::Interrupted => 130,
        }
    }
}
