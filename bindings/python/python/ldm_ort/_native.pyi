"""The half of the package that is compiled."""

from collections.abc import Callable, Sequence
from os import PathLike
from typing import Any, Literal, NoReturn, TypeAlias, TypedDict

import PIL.Image

Input: TypeAlias = bytes | tuple[int, int, bytes]

__version__: str

class Error(Exception):
    """The base of the exceptions that Python has no name for."""

class ModelError(Error):
    """The pipeline file, the model directory or a graph is at fault."""

class ProviderError(Error):
    """An execution provider or ONNX Runtime's library cannot be used."""

class NonFiniteError(Error):
    """A tensor has NaN or infinite values; no image was made."""

class Cancelled(Error):
    """The call was stopped by its `Cancel`."""

class Cancel:
    """A switch that stops a call from another thread: `pipe(…, cancel=switch)` raises `Cancelled` once `switch.cancel()` was
    called. It stays cancelled; make a new one for the next call."""

    def __init__(self) -> None: ...
    def cancel(self) -> None:
        """Stops the calls that this switch was given to, and every later one. From any thread."""
    @property
    def is_cancelled(self) -> bool:
        """True once `cancel` was called."""
    def __reduce__(self) -> NoReturn: ...

class Image:
    """A finished image: `height` rows of `width` RGB pixels, 8 bits a channel, and the record of how it was made.

    `numpy.asarray(image)` is a read-only uint8 array `[height, width, 3]` of the image's own memory."""

    @property
    def width(self) -> int:
        """Width in pixels."""
    @property
    def height(self) -> int:
        """Height in pixels."""
    @property
    def seed(self) -> int:
        """The seed of this image alone: a request with it makes this image first."""
    @property
    def index(self) -> int:
        """The index in the request, counted from 0, prompts outermost."""
    @property
    def prompt(self) -> str:
        """The prompt; "" for a task without prompts."""
    @property
    def record(self) -> dict[str, Any]:
        """The record of how the image was made, as PNG files hold it. The first one of a pipeline computes the digests of the
        model's files."""
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    def to_pil(self) -> PIL.Image.Image:
        """Returns a copy as a `PIL.Image.Image` of mode RGB."""
    def tobytes(self) -> bytes:
        """Returns a copy of the pixels: 3 * width * height bytes, rows from the top."""
    def encode(self, format: Literal["png", "jpeg", "webp"] = "png", *, quality: int | None = None) -> bytes:
        """Encodes the image with its record: "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100, for JPEG; 90 by
        default."""
    def save(self, path: str | PathLike[str]) -> None:
        """Writes the image with its record, whole or not at all: a JPEG or WebP file if the name ends so, else a PNG."""
    def _repr_png_(self) -> bytes: ...
    def __reduce__(self) -> NoReturn: ...

class Preview:
    """A preview of an image that is not finished: RGB pixels, 8 bits a channel. It has no record.

    `numpy.asarray(preview)` is a read-only uint8 array `[height, width, 3]` of the preview's own memory."""

    @property
    def width(self) -> int:
        """Width in pixels."""
    @property
    def height(self) -> int:
        """Height in pixels."""
    @property
    def index(self) -> int:
        """The index of the image in the request, counted from 0."""
    @property
    def step(self) -> int:
        """The step, counted from 1."""
    @property
    def __array_interface__(self) -> dict[str, Any]: ...
    def to_pil(self) -> PIL.Image.Image:
        """Returns a copy as a `PIL.Image.Image` of mode RGB."""
    def tobytes(self) -> bytes:
        """Returns a copy of the pixels: 3 * width * height bytes, rows from the top."""
    def encode(self, format: Literal["png", "jpeg", "webp"] = "png", *, quality: int | None = None) -> bytes:
        """Encodes the pixels: "png", "jpeg" or "webp" (lossless). `quality` is 1 to 100, for JPEG; 90 by default."""
    def _repr_png_(self) -> bytes: ...
    def __reduce__(self) -> NoReturn: ...

class BatchRequest(TypedDict):
    """A request of a batch: its JSON with its images in memory by their keys, or the reason that it has none."""

    line: int | None
    json: str | None
    images: Sequence[tuple[str, Input]]
    problem: str | None

class Engine:
    def __init__(self, settings: str, package_dir: str | None) -> None: ...

class Pipeline:
    @staticmethod
    def open(
        engine: Engine,
        source: str | tuple[str],
        settings: str,
        callback: Callable[[dict[str, Any]], object] | None,
        cancel: Cancel | None,
    ) -> Pipeline: ...
    def check(self, request: str, inputs: Sequence[tuple[str, Input]]) -> None: ...
    def run(
        self,
        request: str,
        inputs: Sequence[tuple[str, Input]],
        callback: Callable[[dict[str, Any]], object] | None,
        cancel: Cancel | None,
    ) -> list[Image]: ...
    def close(self) -> None: ...
    @property
    def runtime_version(self) -> str: ...
    @property
    def is_closed(self) -> bool: ...

class Batch:
    @staticmethod
    def open(
        engine: Engine,
        pipeline: str,
        out: str,
        settings: str,
        format: str,
        quality: int | None,
        manifest: str | None,
    ) -> Batch: ...
    def run(
        self,
        requests: Sequence[BatchRequest],
        callback: Callable[[dict[str, Any]], object] | None,
        cancel: Cancel | None,
    ) -> list[tuple[int, str]]: ...
    def close(self) -> None: ...

def check_store(out: str) -> None: ...
def run_command(arguments: Sequence[str], package_dir: str | None, demo_model: str | None) -> int: ...
