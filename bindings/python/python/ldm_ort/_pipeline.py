"""Engines and pipelines."""

import abc
import os
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, NoReturn, Self, TypeAlias, Unpack

from . import _native
from ._fields import EngineSettings, RequestFields, Settings, request_json, settings_json
from ._runtime import package_dir

Callback: TypeAlias = Callable[[dict[str, Any]], object]


class Engine:
    """Opens pipelines: the search for ONNX Runtime, and the caches. One is enough for a program.

    What is absent comes from the environment, as for the command:

    - `runtime`: ONNX Runtime's library, a file or its folder (`ORT_DYLIB_PATH`). Without it, the library of the package
      `onnxruntime` in this Python environment is taken, else one from the user's cache or of the system, else one is fetched.
    - `offline`: True fetches nothing from the network (`LDM_ORT_OFFLINE`).
    - `index_url`: the Python package index that ONNX Runtime is fetched from.
    - `cache_dir`: the folder of fetched builds and of optimized graphs (`LDM_ORT_CACHE_DIR`).
    - `graph_cache`: False opens graphs as stored (`LDM_ORT_OPTIMIZE`).
    - `graph_cache_size`: such as "20 GB", or "unlimited" (`LDM_ORT_GRAPH_CACHE_SIZE`).
    """

    def __init__(self, **settings: Unpack[EngineSettings]) -> None:
        text = settings_json("Engine()", settings, EngineSettings.__annotations__)
        self._engine = _native.Engine(text, package_dir())

    def __reduce__(self) -> NoReturn:
        raise TypeError("cannot pickle 'Engine' object\n  hint: make one in each process")


def native_engine(engine: Engine | EngineSettings | None) -> _native.Engine:
    """The engine of an argument, for opening pipelines."""
    # Official builds of ONNX Runtime send telemetry unless this is set when they are loaded. It is set here, under the GIL,
    # since the library would set it on a thread of its own.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    return (engine if isinstance(engine, Engine) else Engine(**(engine or {})))._engine


class Closable(abc.ABC):
    """Closes itself at the end of a `with` block."""

    @abc.abstractmethod
    def close(self) -> None: ...

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class Pipeline(Closable):
    """An open pipeline, which runs any number of requests, one at a time.

    `path` is a pipeline file or a model directory. `settings` are keys over the file's: those of `[device]`
    (`provider="cpu"`, `threads=2`, `memory_budget="4 GB"`), and tables as dicts (`run={"steps": 4}`). `engine` is an
    `Engine`, or a dict with its settings.

    `callback` receives the events of opening, and `cancel` stops it. Ctrl-C stops it too.

    A pipeline belongs to the process that opened it: it can be neither pickled nor used after a fork. `with` or `close()`
    releases its memory.
    """

    _pipeline: _native.Pipeline
    _source: str

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        engine: Engine | EngineSettings | None = None,
        callback: Callback | None = None,
        cancel: _native.Cancel | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        path = os.fspath(path)
        self._open(path, path, engine, callback, cancel, settings)

    @classmethod
    def from_toml(
        cls,
        text: str,
        *,
        engine: Engine | EngineSettings | None = None,
        callback: Callback | None = None,
        cancel: _native.Cancel | None = None,
        **settings: Unpack[Settings],
    ) -> Self:
        """Opens the pipeline in the text of a pipeline file. Its paths are relative to the current directory."""
        pipeline = cls.__new__(cls)
        pipeline._open((text,), "TOML", engine, callback, cancel, settings)
        return pipeline

    def _open(
        self,
        source: str | tuple[str],
        name: str,
        engine: Engine | EngineSettings | None,
        callback: Callback | None,
        cancel: _native.Cancel | None,
        settings: Settings,
    ) -> None:
        text = settings_json("Pipeline()", settings, Settings.__annotations__)
        self._pipeline = _native.Pipeline.open(native_engine(engine), source, text, callback, cancel)
        self._source = name

    def __call__(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        callback: Callback | None = None,
        cancel: _native.Cancel | None = None,
        **fields: Unpack[RequestFields],
    ) -> list[_native.Image]:
        """Makes images: `images` for each prompt. What is absent, or None, is what the pipeline's file says.

        - `prompt`, `negative_prompt`: a text, or a list of prompts.
        - `seed`: 0 to 2**63 - 1; image `i` is drawn from `seed + i`.
        - `steps`: the scheduler's steps. `guidance_scale`: 1 is without guidance.
        - `width`, `height`: in pixels, multiples of the VAE's factor, 8 for most models.
        - `images`: the number of images for each prompt.
        - `image`, `mask`: a path, the bytes of an encoded file, a PIL image, a uint8 array `[height, width, 3]`, or an image of
          a pipeline; the mask's white part is redrawn. An `image` means image-to-image, with a `mask` inpainting.
        - `strength`: the share of the schedule that is denoised for an `image`, in (0, 1].
        - `scheduler`: a name, such as "euler", or a table, such as `{"ddim": {"eta": 1.0}}`.
        - `loras`: the scales of the file's LoRAs. `preview`: previews every so many steps, as events.
        - `task`, `run`, `cache`, `control`, `condition`, `lora`: tables of a pipeline file, as dicts and lists of dicts.
        - `request`: a whole request of these fields as a dict.
        - As in diffusers: `num_inference_steps`, `num_images_per_prompt`, `generator` (an int or a torch.Generator) and
          `mask_image`.

        `callback` receives each event as a dict: `event["event"]` is "step" (with `step` and `steps`), "preview" or "image"
        (with `pixels`, a `Preview` or an `Image`), "warning", "done" or another. The run waits for it, and ends if it raises.
        `cancel` stops the run from another thread, which raises `Cancelled`; Ctrl-C stops it with KeyboardInterrupt. The
        pipeline remains usable after every error.
        """
        text, inputs = request_json(prompt, request, fields)
        return self._pipeline.run(text, inputs, callback, cancel)

    def check(
        self,
        prompt: str | Sequence[str] | None = None,
        *,
        request: Mapping[str, Any] | None = None,
        **fields: Unpack[RequestFields],
    ) -> None:
        """Raises what a call with these arguments would raise for them, without running it."""
        self._pipeline.check(*request_json(prompt, request, fields))

    def close(self) -> None:
        """Releases the pipeline's memory. A second time does nothing."""
        self._pipeline.close()

    def __repr__(self) -> str:
        state = "closed, " if self._pipeline.is_closed else ""
        return f"<ldm_ort.Pipeline {self._source!r}, {state}ONNX Runtime {self._pipeline.runtime_version}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "cannot pickle 'Pipeline' object\n"
            "  hint: send the path and the settings, and open the pipeline in the other process"
        )


def runtime_version(pipeline: Pipeline) -> str:
    """Returns the version of ONNX Runtime that a pipeline uses, such as "1.31.1"."""
    return pipeline._pipeline.runtime_version
