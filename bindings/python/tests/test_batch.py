"""Batches have the keys, the bytes and the layout of the command's."""

import base64
import io
import json
import pickle
import subprocess
import sys
from pathlib import Path

import ldm_ort
import numpy
import PIL.Image
import pytest
from conftest import images_of

REQUESTS = ["a red circle", {"prompt": "a blue star", "images": 2}, {"prompt": "a green square", "seed": 7, "steps": 3}]


def entries(folder: Path, manifest: str = "1-of-1") -> list[dict]:
    return [json.loads(line) for line in (folder / "manifest" / f"{manifest}.jsonl").read_text().splitlines()]


def test_the_command_and_python_go_on_with_each_others_batches(batch_command, model, tmp_path):
    batch_command(REQUESTS, tmp_path / "command")
    with ldm_ort.Batch(model, tmp_path / "python", threads=1, run={"steps": 2}) as batch:
        rows = batch.run(REQUESTS[:1], lines=[1]) + batch.run(REQUESTS[1:], lines=[2, 3])
    assert images_of(tmp_path / "python") == images_of(tmp_path / "command")
    assert [(row["request"], row["index"]) for row in rows] == [(0, 0), (0, 0), (0, 1), (1, 0)]
    assert all(row["seconds"] > 0 and row["error"] is None for row in rows)
    assert [row["file"] for row in rows] == [f"{row['key'][:2]}/{row['key']}.png" for row in rows]
    without_seconds = [[{**entry, "seconds": None} for entry in entries(tmp_path / name)] for name in ("command", "python")]
    assert without_seconds[0] == without_seconds[1]

    before = entries(tmp_path / "python")
    summary = batch_command([*REQUESTS, "one more"], tmp_path / "python")
    assert (summary["made"], summary["existing"]) == (1, 4)
    assert entries(tmp_path / "python")[:4] == before
    with ldm_ort.Batch(model, tmp_path / "command", threads=1, run={"steps": 2}) as batch:
        again = batch.run(REQUESTS)
    assert [{**row, "seconds": None} for row in again] == [
        {**row, "seconds": None, "request": at} for row, at in zip(rows, (0, 1, 1, 2))
    ]
    assert all(row["seconds"] is None for row in again)


def test_what_is_wrong_is_recorded_and_passed_over(model, tmp_path):
    wrong = [{"prompt": "a", "stps": 3}, {"prompt": "a", "steps": 0}, 5, {"prompt": "a", "image": b"no image"}]
    wrong += [{"prompt": "a", "steps": 2, "num_inference_steps": 3}, {"prompt": "a", "guidance_scale": float("inf")}]
    with ldm_ort.Batch(model, tmp_path, run={"steps": 2}) as batch:
        rows = batch.run([*wrong, "a red circle"], lines=[None, *range(2, 8)])
    assert [row["request"] for row in rows] == list(range(7))
    assert rows[-1]["error"] is None and rows[-1]["seconds"] > 0
    said = ["stps: unknown field", "steps", "expected a prompt or a dict of fields, found int", "image: ", "the same field", "float"]
    for row, says in zip(rows, said):
        assert says in row["error"] and "hint: " in row["error"] and row["key"] is None, row
    failed = [entry for entry in entries(tmp_path) if "error" in entry]
    assert [entry.get("line") for entry in failed] == [None, 2, 3, 4, 5, 6]
    assert json.loads(failed[0]["request"]) == wrong[0] and "request" not in failed[1]


def test_images_in_memory_have_the_key_of_their_data_uri(batch_command, model, tmp_path):
    array = numpy.arange(64 * 64 * 3, dtype=numpy.uint8).reshape(64, 64, 3)
    encoded = io.BytesIO()
    PIL.Image.fromarray(array).save(encoded, "png")
    request = {"prompt": "a green star", "strength": 0.6, "seed": 3}
    with ldm_ort.Batch(model, tmp_path / "out", threads=1, run={"steps": 2}) as batch:
        rows = batch.run([{**request, "image": image} for image in (array, encoded.getvalue(), PIL.Image.fromarray(array))])
    assert len({row["key"] for row in rows}) == 1
    uri = "data:image/png;base64," + base64.b64encode(encoded.getvalue()).decode()
    summary = batch_command([{**request, "image": uri}], tmp_path / "out")
    assert (summary["made"], summary["existing"]) == (0, 1)


def test_formats_and_manifests(model, tmp_path):
    with ldm_ort.Batch(model, tmp_path, format="jpeg", quality=80, manifest="mine", run={"steps": 1}) as batch:
        file = batch.run(["a red circle"])[0]["file"]
    assert PIL.Image.open(tmp_path / file).format == "JPEG"
    assert [entry["file"] for entry in entries(tmp_path, "mine")] == [file]
    for arguments, says in [
        ({"manifest": "../x"}, "manifest: expected letters"),
        ({"format": "gif"}, "format: expected"),
        ({"quality": 80}, "lossless"),
        ({"threads": 0}, "threads"),
    ]:
        with pytest.raises(ValueError, match=says):
            ldm_ort.Batch(model, tmp_path, **arguments)
    with pytest.raises(ldm_ort.ModelError, match="nowhere.toml"):
        ldm_ort.Batch("nowhere.toml", tmp_path)
    with pytest.raises(TypeError, match="did you mean 'threads'"):
        ldm_ort.Batch(model, tmp_path, thread=1)
    with pytest.raises(ValueError, match="there is no store for gs://"):
        ldm_ort.Batch(model, "gs://bucket")


def test_a_bucket_needs_a_wheel_with_s3(model):
    with pytest.raises(ValueError, match="without the feature s3\n  hint: .*maturin build --features s3"):
        ldm_ort.Batch(model, "s3://bucket/prefix")


def test_a_batch_can_be_stopped_and_goes_on(model, tmp_path):
    cancel = ldm_ort.Cancel()
    began: list[dict] = []

    def callback(event: dict) -> None:
        began.append(event)
        if sum(event["event"] == "preparing" for event in began) == 3:
            cancel.cancel()

    prompts = [f"a red circle, number {at}" for at in range(5)]
    with ldm_ort.Batch(model, tmp_path, run={"steps": 2}) as batch:
        with pytest.raises(ldm_ort.Cancelled):
            batch.run(prompts, callback=callback, cancel=cancel)
        assert len(images_of(tmp_path)) == 2
        rows = batch.run(prompts)
    assert [row["seconds"] is None for row in rows] == [True, True, False, False, False]
    assert any(event["event"] == "opening" for event in began)


def test_closed_and_not_picklable(model, tmp_path):
    batch = ldm_ort.Batch(model, tmp_path)
    assert batch.run([]) == []
    with pytest.raises(ValueError, match="lines: expected 1 numbers"):
        batch.run(["a"], lines=[])
    with pytest.raises(TypeError, match="cannot pickle 'Batch' object\n  hint: "):
        pickle.dumps(batch)
    batch.close()
    batch.close()
    with pytest.raises(ValueError, match="the batch is closed"):
        batch.run(["a"])


def test_without_ray_the_module_for_it_says_what_to_install():
    code = "import sys; sys.modules['ray'] = None\nimport ldm_ort.ray"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "ImportError: ldm_ort.ray needs Ray Data" in answer.stderr, answer
    assert "hint: pip install 'ray[data]<2.64'" in answer.stderr
