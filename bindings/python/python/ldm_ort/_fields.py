"""The keyword arguments: their names and types, and the conversion to JSON and images in memory."""

import difflib
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias, TypedDict

from . import _native

if TYPE_CHECKING:
    import numpy
    import PIL.Image

    ImageLike: TypeAlias = (
        str
        | os.PathLike[str]
        | bytes
        | bytearray
        | memoryview
        | PIL.Image.Image
        | numpy.ndarray[Any, numpy.dtype[numpy.uint8]]
        | _native.Image
        | _native.Preview
    )


class EngineSettings(TypedDict, total=False):
    """The settings of an engine. What is absent comes from the environment."""

    runtime: str | os.PathLike[str]
    offline: bool
    index_url: str
    cache_dir: str | os.PathLike[str]
    graph_cache: bool
    graph_cache_size: str


class Settings(TypedDict, total=False):
    """Keys of a pipeline file over the file's own: those of `[device]` by themselves, and whole tables."""

    provider: str | Sequence[str]
    provider_library: str | Sequence[str]
    threads: int
    batching: str
    denoising_loop: str
    optimize: bool
    precision: str
    fast_convolutions: bool
    exact: bool
    offload: bool
    free_activations: bool
    memory_budget: str
    overcommit: bool
    verify: bool
    model: Mapping[str, Any]
    task: Mapping[str, Any]
    scheduler: Mapping[str, Any]
    cache: Mapping[str, Any]
    run: Mapping[str, Any]
    device: Mapping[str, Any]
    output: Mapping[str, Any]
    condition: Sequence[Mapping[str, Any]]
    control: Sequence[Mapping[str, Any]]
    lora: Sequence[Mapping[str, Any]]
    textual_inversion: Sequence[Mapping[str, Any]]
    stage: Sequence[Mapping[str, Any]]


class RequestFields(TypedDict, total=False):
    """The fields of a request but the prompt. What is absent, or None, is what the pipeline's file says."""

    negative_prompt: str | Sequence[str] | None
    seed: int | None
    steps: int | None
    guidance_scale: float | None
    width: int | None
    height: int | None
    images: int | None
    strength: float | None
    image: "ImageLike | None"
    mask: "ImageLike | None"
    scheduler: str | Mapping[str, Any] | None
    loras: Sequence[float | Mapping[str, Any]] | None
    preview: int | None
    task: Mapping[str, Any] | None
    cache: Mapping[str, Any] | None
    run: Mapping[str, Any] | None
    control: Sequence[Mapping[str, Any]] | None
    condition: Sequence[Mapping[str, Any]] | None
    lora: Sequence[Mapping[str, Any]] | None
    num_inference_steps: int | None
    num_images_per_prompt: int | None
    generator: Any
    mask_image: "ImageLike | None"


# The names that diffusers has for fields.
ALIASES = {
    "num_inference_steps": "steps",
    "num_images_per_prompt": "images",
    "generator": "seed",
    "mask_image": "mask",
}

Input: TypeAlias = bytes | tuple[int, int, bytes]
Inputs: TypeAlias = list[tuple[str, Input]]


def known(function: str, names: Iterable[str], valid: Iterable[str]) -> None:
    """Raises TypeError for a keyword argument that a function does not have, with those that it has."""
    valid = list(valid)
    for name in names:
        if name not in valid:
            near = difflib.get_close_matches(name, valid, 1)
            hint = f"did you mean {near[0]!r}?" if near else "tables of a pipeline file are dicts, as in run={'steps': 4}"
            raise TypeError(
                f"{function} got an unexpected keyword argument {name!r}; valid: {', '.join(valid)}\n  hint: {hint}"
            )


def settings_json(function: str, settings: Mapping[str, Any], valid: Iterable[str]) -> str:
    """Converts settings to JSON; None is the same as absent."""
    known(function, settings, valid)
    inputs: Inputs = []
    given = {name: value for name, value in settings.items() if value is not None}
    text = dumps(_plain(given, "", inputs))
    for key, _ in inputs:
        raise TypeError(f"{key}: expected a path, found an image\n  hint: give images in memory to the call, not when opening")
    return text


def request_json(
    prompt: str | Sequence[str] | None, request: Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> tuple[str, Inputs]:
    """Converts a request to JSON and the images in memory, by key."""
    known("Pipeline.__call__()", fields, ("prompt", "request", "callback", "cancel", *RequestFields.__annotations__))
    whole = dict(request or {})
    given = _given({"prompt": prompt, **fields})
    for name in given:
        if name in whole:
            raise TypeError(f"{name} is in request= and a keyword argument\n  hint: leave one of them out")
    inputs: Inputs = []
    return dumps(_plain(whole | given, "", inputs)), inputs


def batch_request(request: Any, line: int | None) -> "_native.BatchRequest":
    """Converts a request of a batch, a prompt or a dict of fields. One that cannot be converted says why."""
    inputs: Inputs = []
    problem = None
    text = None
    try:
        if isinstance(request, Mapping):
            text = dumps(_plain(_given(request), "", inputs))
        elif isinstance(request, str):
            text = dumps(request)
        else:
            problem = f"expected a prompt or a dict of fields, found {type(request).__name__}"
    except (TypeError, ValueError) as error:
        # The hint is that of the batch.
        problem = str(error).partition("\n")[0]
    return {"line": line, "json": text, "images": inputs, "problem": problem}


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that are not None, by their own names."""
    given: dict[str, Any] = {}
    for name, value in fields.items():
        if value is None:
            continue
        field = ALIASES.get(name, name)
        if field in given:
            raise TypeError(f"{name} and {field} are the same field\n  hint: leave one of them out")
        given[field] = _seed(value) if name == "generator" else value
    return given


def dumps(value: object) -> str:
    """Writes JSON, which has no NaN and no infinity."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False)


def _seed(generator: Any) -> Any:
    if isinstance(generator, (list, tuple)):
        raise TypeError(
            "generator: expected an int or a torch.Generator, found a list\n"
            "  hint: image i is drawn from seed + i; for other seeds, call once for each"
        )
    initial_seed = getattr(generator, "initial_seed", None)
    return initial_seed() if callable(initial_seed) else generator


def _plain(value: Any, key: str, inputs: Inputs) -> Any:
    """Converts a value to those of JSON. Images in memory go to `inputs`."""
    if isinstance(value, Mapping):
        plain = {}
        for name, inner in value.items():
            if not isinstance(name, str):
                raise TypeError(f"{key or 'request'}: expected names as keys, found {name!r}")
            path = f"{key}.{name}" if key else name
            pixels = _image(inner, path)
            if pixels is None:
                plain[name] = _plain(inner, path, inputs)
            else:
                inputs.append((path, pixels))
        return plain
    if isinstance(value, (list, tuple)):
        return [_plain(inner, f"{key}.{at}", inputs) for at, inner in enumerate(value)]
    if isinstance(value, (bool, int, float, str)) or value is None:
        return value
    if isinstance(value, os.PathLike):
        return os.fsdecode(value)
    if hasattr(value, "__array_interface__") and hasattr(value, "tolist"):
        return value.tolist()
    raise TypeError(f"{key}: expected a number, a text, a list, a dict or an image, found {type(value).__name__}")


def _image(value: Any, key: str) -> Input | None:
    """Reads an image in memory: RGB pixels or an encoded file. None for anything else."""
    if isinstance(value, (_native.Image, _native.Preview)):
        return value.width, value.height, value.tobytes()
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    pil = sys.modules.get("PIL.Image")
    if pil is not None and isinstance(value, pil.Image):
        rgb = value.convert("RGB")
        return rgb.width, rgb.height, rgb.tobytes()
    interface = getattr(value, "__array_interface__", None)
    if not isinstance(interface, dict) or len(interface["shape"]) < 2:
        return None
    return _array(value, interface, key)


def _array(value: Any, interface: Mapping[str, Any], key: str) -> Input:
    """Reads a uint8 array: `[height, width, 3]`, or `[height, width]` for gray."""
    import numpy

    shape, kind = tuple(interface["shape"]), interface["typestr"]
    is_gray = len(shape) == 2
    if kind != "|u1" or not (is_gray or (len(shape) == 3 and shape[2] == 3)):
        hint = "(255 * array).round().astype('uint8') converts values in [0, 1]" if kind[1] == "f" else "one image, RGB"
        found = f"{numpy.dtype(kind)} {list(shape)}"
        raise ValueError(f"{key}: expected a uint8 array [height, width, 3], found {found}\n  hint: {hint}")
    array = numpy.asarray(value)
    rgb = numpy.repeat(array[:, :, None], 3, axis=2) if is_gray else array
    return shape[1], shape[0], rgb.tobytes()
