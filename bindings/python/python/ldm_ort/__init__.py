"""Runs latent diffusion models on ONNX Runtime.

    import ldm_ort

    pipe = ldm_ort.Pipeline("pipeline.toml", provider="cpu")
    for image in pipe("a lighthouse in the fog", seed=7, steps=20):
        image.save(f"lighthouse-{image.seed}.png")

Errors are `ValueError` for what is wrong with a request, `ModelError` for a pipeline file or a model, `ProviderError` for an
execution provider or ONNX Runtime, `OSError`, `MemoryError`, `NonFiniteError`, `Cancelled`, `KeyboardInterrupt`, and
`RuntimeError` for a bug.
"""

from ._batch import Batch, BatchRow
from ._command import main
from ._native import (
    Cancel,
    Cancelled,
    Error,
    Image,
    ModelError,
    NonFiniteError,
    Preview,
    ProviderError,
    __version__,
)
from ._pipeline import Engine, Pipeline, runtime_version

__all__ = [
    "Batch",
    "BatchRow",
    "Cancel",
    "Cancelled",
    "Engine",
    "Error",
    "Image",
    "ModelError",
    "NonFiniteError",
    "Pipeline",
    "Preview",
    "ProviderError",
    "__version__",
    "main",
    "runtime_version",
]
