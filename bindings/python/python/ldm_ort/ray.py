"""Batches on Ray Data: `generate` makes the images of a dataset's rows, in the layout of `ldm-ort batch`.

    import ray
    import ldm_ort.ray

    prompts = ray.data.from_items([{"prompt": "a red circle"}, {"prompt": "a blue star", "images": 2}])
    images = ldm_ort.ray.generate(prompts, "pipeline.toml", "images", concurrency=2, num_cpus=4)
    for row in images.iter_rows():
        print(row["prompt"], row["file"], row["error"])
"""

import difflib
import math
import os
import warnings
from collections.abc import Collection, Mapping
from typing import Any, Literal, Unpack

from . import _native
from ._batch import Batch
from ._fields import EngineSettings, RequestFields, Settings, known

try:
    import pyarrow  # type: ignore[import-not-found]
    import ray  # type: ignore[import-not-found]
    import ray.data  # type: ignore[import-not-found]
except ImportError as error:
    raise ImportError(f"ldm_ort.ray needs Ray Data: {error}\n  hint: pip install 'ray[data]<2.64'") from error

__all__ = ["generate"]

REQUEST = ("prompt", *RequestFields.__annotations__)

# The columns of rows that are strings: of `ray.data.from_items` and of `ray.data.read_text`.
PROMPT_COLUMNS = ("item", "text")

LINE = "line"

# The fields that Ray's readers turn into floats where some rows lack them.
INTEGERS = {"seed", "generator", "steps", "num_inference_steps", "images", "num_images_per_prompt", "width", "height", "preview"}

# Above it, not every integer is a float.
EXACT = 2**53

RESULTS = {
    "key": pyarrow.string(),
    "file": pyarrow.string(),
    "seed": pyarrow.int64(),
    "index": pyarrow.int64(),
    "seconds": pyarrow.float64(),
    "error": pyarrow.string(),
}


def generate(
    dataset: "ray.data.Dataset",
    pipeline: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    concurrency: int | tuple[int, int] = 1,
    num_cpus: float = 1,
    num_gpus: float | None = None,
    batch_size: int = 16,
    retries: int = -1,
    keep: Collection[str] = (),
    format: Literal["png", "jpeg", "webp"] = "png",
    quality: int | None = None,
    engine: EngineSettings | None = None,
    **settings: Unpack[Settings],
) -> "ray.data.Dataset":
    """Returns the dataset of the images of a dataset's requests. They are made when it is consumed, and stored in `out`.

    A row is a request: its columns are the flat fields (`prompt`, `seed`, `steps`, `images`, …) or tables of a pipeline file, as for
    `Pipeline`, null being absent; or it is a prompt, as the rows of `ray.data.from_items(["a", "b"])` and `ray.data.read_text` are. A
    column `line` is the number of the row for the manifest, from 1. `keep` names further columns, which are passed on.

    The result has a row for each image of each request: the request's columns, and `key`, `file` (below `out`), `seed` (the image's),
    `index` (in its request), `seconds` (null for an image that existed) and `error`. A request that is wrong or fails is a row with an
    `error` and a line in the manifest; the others are made.

    - `pipeline`, a pipeline file or a model directory, and `out`, a folder or `s3://bucket/prefix`, are the same for all nodes.
    - `concurrency`: the number of actors, or the least and the most. Each opens the pipeline once.
    - `num_cpus`, `num_gpus`: an actor's share of a node, which it holds to the end; its threads are `num_cpus`, rounded down.
    - `batch_size`: the number of rows that an actor takes at once.
    - `retries`: the number of times that the rows of an actor that died are run again; then the execution ends with Ray's error.
      -1, Ray Data's default, is without a limit. Stored images are not made again. Dead actors are always started again.
    - `format`, `quality`: "png", "jpeg" or "webp"; 1 to 100 for JPEG.
    - `engine`, `settings`: as for `Pipeline`, but that `engine` is a dict and `threads` is `num_cpus`.
    """
    known("generate()", settings, (name for name in Settings.__annotations__ if name != "threads"))
    _check_numbers(num_cpus, batch_size, retries)
    out = _absolute(os.fspath(out))
    _native.check_store(out)
    reserved = sorted({*keep} & {*RESULTS, *REQUEST, LINE})
    if reserved:
        raise ValueError(f"keep: {reserved[0]!r} is a column of requests or of results\n  hint: rename the dataset's column")
    schema = dataset.schema(fetch_if_missing=False)
    if schema is not None:
        _request_columns(schema.names, keep)
    least, most = concurrency if isinstance(concurrency, tuple) else (concurrency, concurrency)
    if not isinstance(dataset, ray.data.dataset.MaterializedDataset):
        _warn_without_cpus(least * num_cpus)
    arguments = {
        "pipeline": os.path.abspath(os.path.expanduser(pipeline)),
        "out": out,
        "keep": tuple(keep),
        "format": format,
        "quality": quality,
        "engine": engine,
        "settings": {**settings, "threads": max(1, int(num_cpus))},
    }
    # Ray Data itself restarts actors and runs their rows again without a limit.
    limit = {} if retries < 0 else {"max_restarts": -1, "max_task_retries": retries}
    with warnings.catch_warnings():
        # Ray 2.60 has no other parameter for the limit of retries.
        warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
        return dataset.map_batches(
            _Actor,
            fn_constructor_kwargs=arguments,
            batch_format="pyarrow",
            batch_size=batch_size,
            # Rows that wait for an actor are not charged for its death.
            compute=ray.data.ActorPoolStrategy(min_size=least, max_size=most, max_tasks_in_flight_per_actor=1),
            num_cpus=num_cpus,
            num_gpus=num_gpus,
            **limit,
        )


class _Actor:
    """The open batch of an actor. Its manifest has the actor's name, which it keeps when it is started again."""

    def __init__(
        self,
        pipeline: str,
        out: str,
        keep: Collection[str],
        format: Literal["png", "jpeg", "webp"],
        quality: int | None,
        engine: EngineSettings | None,
        settings: Settings,
    ) -> None:
        self._keep = keep
        manifest = f"ray-{ray.get_runtime_context().get_actor_id()}"
        self._batch = Batch(
            pipeline, out, format=format, quality=quality, manifest=manifest, engine=engine, **settings
        )

    def __call__(self, table: "pyarrow.Table") -> "pyarrow.Table":
        columns = _request_columns(table.column_names, self._keep)
        requests = [_request(row, columns) for row in table.select(list(columns)).to_pylist()]
        lines = [_line(line) for line in table.column(LINE).to_pylist()] if LINE in table.column_names else None
        rows = self._batch.run(requests, lines=lines)
        # Arrow's `take` refuses the columns that Ray has for arrays.
        result = pyarrow.concat_tables([table.slice(row["request"], 1) for row in rows]) if rows else table.slice(0, 0)
        for name, kind in RESULTS.items():
            values = [row[name] for row in rows]  # type: ignore[literal-required]
            if name == "seed":
                values = [_seed(requests[row["request"]]) if row["key"] is None else row["seed"] for row in rows]
            array = pyarrow.array(values, kind)
            at = result.column_names.index(name) if name in result.column_names else None
            result = result.append_column(name, array) if at is None else result.set_column(at, name, array)
        return result


def _check_numbers(num_cpus: float, batch_size: int, retries: int) -> None:
    for name, value, least in (("num_cpus", num_cpus, 0), ("batch_size", batch_size, 1), ("retries", retries, -1)):
        if value < least:
            raise ValueError(f"{name}: expected {least} or more, found {value}")


def _request_columns(names: Collection[str], keep: Collection[str]) -> dict[str, str]:
    """The fields of requests by their columns. Raises TypeError for a column that is none."""
    own = [name for name in names if name != LINE and name not in keep]
    columns = {name: name for name in own}
    if "prompt" not in own:
        columns |= {name: "prompt" for name in own if name in PROMPT_COLUMNS}
    for column, field in columns.items():
        if field not in REQUEST:
            near = difflib.get_close_matches(column, REQUEST, 1)
            hint = f"did you mean {near[0]!r}?" if near else f"keep=[{column!r}] passes it on, and dataset.drop_columns removes it"
            raise TypeError(f"column {column!r} is not a field of requests; valid: {', '.join(REQUEST)}\n  hint: {hint}")
    return columns


def _request(row: Mapping[str, Any], columns: Mapping[str, str]) -> dict[str, Any]:
    request = {}
    for name, value in row.items():
        field = columns[name]
        is_whole = isinstance(value, float) and value.is_integer() and abs(value) < EXACT
        request[field] = int(value) if field in INTEGERS and is_whole else _without_nulls(value)
    return {field: value for field, value in request.items() if not _is_null(value)}


def _line(value: Any) -> int | None:
    return None if _is_null(value) else int(value)


def _seed(request: Mapping[str, Any]) -> int | None:
    """The seed of a request that failed, if it is one."""
    seed = request.get("seed")
    return seed if isinstance(seed, int) and abs(seed) < 2**63 else None


def _is_null(value: Any) -> bool:
    """True for None, and for NaN, which some of Ray's readers write for it."""
    return value is None or isinstance(value, float) and math.isnan(value)


def _without_nulls(value: Any) -> Any:
    """Removes the keys that Arrow adds to a dict because other rows have them."""
    if isinstance(value, Mapping):
        return {name: _without_nulls(inner) for name, inner in value.items() if not _is_null(inner)}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _absolute(out: str) -> str:
    return out if "://" in out else os.path.abspath(os.path.expanduser(out))


def _warn_without_cpus(held: float) -> None:
    """Warns of actors that hold the CPUs which the reading of the dataset waits for."""
    if not ray.is_initialized():
        ray.init()
    total = ray.cluster_resources().get("CPU", 0)
    if held > total - 1:
        warnings.warn(
            f"the actors hold {held:g} of {total:g} CPUs, and reading the dataset waits for one\n"
            "  hint: lower concurrency or num_cpus, or give the dataset as dataset.materialize()",
            stacklevel=3,
        )
