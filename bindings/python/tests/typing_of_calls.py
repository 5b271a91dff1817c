"""Calls that mypy checks; nothing runs them."""

from pathlib import Path
from typing import Any

import ldm_ort
import ldm_ort.ray
import numpy
import PIL.Image


def callback(event: dict[str, Any]) -> None:
    print(event["event"])


def calls(array: numpy.ndarray[Any, numpy.dtype[numpy.uint8]]) -> PIL.Image.Image:
    engine = ldm_ort.Engine(offline=True, cache_dir=Path("cache"))
    with ldm_ort.Pipeline("pipeline.toml", provider=["cuda", "cpu"], threads=2, engine=engine, run={"steps": 4}) as pipe:
        images = pipe("a lighthouse", seed=7, steps=20, callback=callback, cancel=ldm_ort.Cancel())
        pipe(["a", "b"], image=array, mask=PIL.Image.open("mask.png"), scheduler={"ddim": {"eta": 1.0}})
        pipe(request={"prompt": "a"}, num_inference_steps=4, generator=7)
        pipe("a", stps=3)  # type: ignore[call-arg]
        pipe("a", steps="many")  # type: ignore[arg-type]
        version: str = ldm_ort.runtime_version(pipe)
    ldm_ort.Pipeline.from_toml("", provder="cpu")  # type: ignore[call-arg]
    data: bytes = images[0].encode("jpeg", quality=90)
    numpy.asarray(images[0])
    print(version, data, images[0].record["seed"], images[0].width + 1)
    return images[0].to_pil()


def batches() -> None:
    with ldm_ort.Batch("pipeline.toml", Path("images"), format="jpeg", quality=80, threads=1, run={"steps": 4}) as batch:
        rows = batch.run(["a lighthouse", {"prompt": "a star", "seed": 7}], lines=[1, None], callback=callback)
        batch.run(7)  # type: ignore[arg-type]
        file: str | None = rows[0]["file"]
    ldm_ort.ray.generate(None, "pipeline.toml", "images", concurrency=(1, 4), num_cpus=2, keep=["id"], provider="cpu")
    ldm_ort.ray.generate(None, "pipeline.toml", "images", concurency=2)  # type: ignore[call-arg]
    print(file)
