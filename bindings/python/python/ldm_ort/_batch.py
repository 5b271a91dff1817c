"""Batches: many requests, stored under the digests of their content."""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal, NoReturn, TypedDict, Unpack

from . import _native
from ._fields import EngineSettings, Settings, batch_request, settings_json
from ._pipeline import Callback, Closable, Engine, native_engine


class BatchRow(TypedDict):
    """An image of a batch, or a request that failed."""

    request: int
    """The index of the request."""
    key: str | None
    """The image's key: the SHA-256 of its canonical request and the model's digests. None for a failure."""
    file: str | None
    """The image's file, below the batch's folder or bucket."""
    seed: int | None
    """The image's seed."""
    index: int | None
    """The index of the image in its request, counted from 0, prompts outermost."""
    seconds: float | None
    """The seconds that the image took; None for an image that existed, and for a failure."""
    error: str | None
    """The reason that the request, or the rest of it, has no images."""


class Batch(Closable):
    """A folder or a bucket of images, as `ldm-ort batch` makes them: each has the name of its content's digest, an image that
    exists is not made again, and a batch begun here is resumed by the command, and the other way round.

    `pipeline` is a pipeline file or a model directory. `out` is a folder or, with a wheel built with the feature `s3`,
    `s3://bucket/prefix`. `format` is "png", "jpeg" or "webp"; `quality` is 1 to 100, for JPEG. `manifest` names the file in
    `manifest/` that lists the images, "1-of-1" by default; processes that work on one batch at the same time should have one
    each. `engine` and `settings` are as for `Pipeline`.

    The pipeline is opened by the first call of `run` that makes an image, and stays open. `with` or `close()` releases its memory.
    """

    def __init__(
        self,
        pipeline: str | os.PathLike[str],
        out: str | os.PathLike[str],
        *,
        format: Literal["png", "jpeg", "webp"] = "png",
        quality: int | None = None,
        manifest: str | None = None,
        engine: Engine | EngineSettings | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        text = settings_json("Batch()", settings, Settings.__annotations__)
        names = os.fspath(pipeline), os.fspath(out)
        self._batch = _native.Batch.open(native_engine(engine), *names, text, format, quality, manifest)

    def run(
        self,
        requests: Iterable[str | Mapping[str, Any]],
        *,
        lines: Sequence[int | None] | None = None,
        callback: Callback | None = None,
        cancel: _native.Cancel | None = None,
    ) -> list[BatchRow]:
        """Makes the images that are not stored yet, and returns a row for each image of each request, in their order.

        A request is a prompt, or a dict of a request's fields as for `Pipeline`. One that is wrong or fails is a row with an
        `error`, after the rows of those of its images that exist, and a line in the manifest; the others are made. After ten failures
        in a row that are not the requests' own (memory, ONNX Runtime) the last one is raised. `lines` are the numbers of the requests
        for the manifest, counted from 1.

        `callback` receives the events of opening and running; `cancel` and Ctrl-C stop the call, as for `Pipeline`. What is stored
        by then is whole, and the next call goes on from there.
        """
        requests = list(requests)
        numbers = [None] * len(requests) if lines is None else lines
        if len(numbers) != len(requests):
            raise ValueError(f"lines: expected {len(requests)} numbers, one for each request, found {len(numbers)}")
        converted = [batch_request(request, line) for request, line in zip(requests, numbers)]
        return [_row(at, json.loads(text)) for at, text in self._batch.run(converted, callback, cancel)]

    def close(self) -> None:
        """Releases the pipeline's memory. A second time does nothing."""
        self._batch.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Batch' object\n  hint: send the paths and the settings, and open it in the other process")


def _row(request: int, entry: Mapping[str, Any]) -> BatchRow:
    return {
        "request": request,
        "key": entry.get("key"),
        "file": entry.get("file"),
        "seed": entry.get("seed"),
        "index": entry.get("image"),
        "seconds": entry.get("seconds"),
        "error": entry.get("error"),
    }
