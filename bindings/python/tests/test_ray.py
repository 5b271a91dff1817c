"""Batches on Ray Data. `LDM_ORT_RAY=1 scripts/bindings/python.sh` installs Ray for them."""

import json
import logging
import os
import signal
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy
import PIL.Image
import pytest

pytest.importorskip("ray.data", reason="Ray is not installed: LDM_ORT_RAY=1 scripts/bindings/python.sh installs it")

import ldm_ort.ray  # noqa: E402
import ray  # noqa: E402
import ray.data  # noqa: E402
from conftest import images_of  # noqa: E402

def killing(kills: str) -> Callable[[], None]:
    """Makes the function that a process of Ray runs first. The first runs of batches kill it, as many as the file says."""

    # A function of this module itself would be one to import, which Ray's processes cannot.
    def setup() -> None:
        import ldm_ort

        run = ldm_ort.Batch.run

        def killed_run(self, requests, **keywords):
            path = Path(kills)
            left = int(path.read_text())
            if left > 0:
                path.write_text(str(left - 1))
                os.kill(os.getpid(), signal.SIGKILL)
            return run(self, requests, **keywords)

        ldm_ort.Batch.run = killed_run

    return setup


@pytest.fixture(scope="module")
def kills(tmp_path_factory) -> Iterator[Path]:
    """Ray on two CPUs, and the file with the number of kills."""
    path = tmp_path_factory.mktemp("ray") / "kills"
    path.write_text("0")
    environment = {"worker_process_setup_hook": killing(str(path))}
    ray.init(num_cpus=2, runtime_env=environment, include_dashboard=False, log_to_driver=False, logging_level=logging.FATAL)
    ray.data.DataContext.get_current().enable_progress_bars = False
    yield path
    ray.shutdown()


@pytest.fixture
def generate(kills, model, tmp_path):
    def call(items, out: Path = tmp_path / "out", **keywords):
        dataset = items if isinstance(items, ray.data.Dataset) else ray.data.from_items(items)
        images = ldm_ort.ray.generate(dataset, model, out, **{"run": {"steps": 2}, **keywords})
        return sorted(images.take_all(), key=lambda row: (row.get("line") or 0, row["index"] or 0))

    return call


def test_the_command_and_ray_go_on_with_each_others_batches(generate, batch_command, tmp_path):
    requests = [{"prompt": f"a red circle, number {at}", "images": 1 + at % 2, "line": at + 1} for at in range(10)]
    plain = [{name: value for name, value in request.items() if name != "line"} for request in requests]
    rows = generate(requests[:8], concurrency=2, batch_size=2)
    assert len(rows) == 12 and all(row["error"] is None and row["seconds"] > 0 for row in rows)
    assert [row["prompt"] for row in rows[:2]] == ["a red circle, number 0", "a red circle, number 1"]
    assert rows[2]["seed"] == rows[1]["seed"] + 1 and (rows[1]["index"], rows[2]["index"]) == (0, 1)

    batch_command(plain, tmp_path / "command")
    summary = batch_command(plain, tmp_path / "out")
    assert (summary["made"], summary["existing"]) == (3, 12)
    assert images_of(tmp_path / "out") == images_of(tmp_path / "command")
    assert all(row["seconds"] is None for row in generate(requests, tmp_path / "command"))

    manifests = sorted((tmp_path / "out" / "manifest").glob("ray-*.jsonl"))
    entries = [json.loads(line) for path in manifests for line in path.read_text().splitlines()]
    assert {entry["file"]: entry["line"] for entry in entries} == {row["file"]: row["line"] for row in rows}


def test_an_actor_has_as_many_threads_as_cpus(generate, tmp_path):
    for cpus, threads in ((1, 1), (2, 2), (0.5, 1)):
        row = generate([{"prompt": f"on {cpus} CPUs"}], num_cpus=cpus)[0]
        record = json.loads(PIL.Image.open(tmp_path / "out" / row["file"]).text["ldm-ort"])
        assert tomllib.loads(record["pipeline"])["device"]["threads"] == threads


def test_wrong_rows_are_recorded_and_passed_over(generate, tmp_path):
    rows = generate([{"prompt": "a", "line": 1, "seed": 3, "steps": 0}, {"prompt": "b", "line": 2}])
    assert (rows[0]["key"], rows[0]["seed"], rows[1]["error"]) == (None, 3, None) and "steps" in rows[0]["error"]
    text = "".join(path.read_text() for path in (tmp_path / "out" / "manifest").glob("ray-*.jsonl"))
    assert [json.loads(line)["line"] for line in text.splitlines()] == [1, 2]


def test_rows_are_prompts_or_columns(generate, tmp_path):
    strings = generate(["a red circle", "a blue star"])
    columns = generate([{"prompt": "a red circle", "id": "x"}, {"prompt": "a blue star", "id": "y"}], keep=["id"])
    assert {row["item"]: row["file"] for row in strings} == {row["prompt"]: row["file"] for row in columns}
    assert {row["id"] for row in columns} == {"x", "y"} and all(row["seconds"] is None for row in columns)

    # Pandas, which reads these lines, makes floats of the seeds and NaN of what is missing.
    lines = [{"prompt": "a", "seed": 7}, {"prompt": "b"}, {"prompt": "c", "run": {"steps": 3}}]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    read = generate(ray.data.read_json(str(tmp_path / "p.jsonl"), lines=True))
    assert [row["error"] for row in read] == [None] * 3 and 7 in [row["seed"] for row in read]

    array = numpy.full((64, 64, 3), 99, numpy.uint8)
    shown = generate([{"prompt": "a", "image": array, "strength": strength} for strength in (0.5, 0.7)])
    assert all(row["seconds"] > 0 and (row["image"] == array).all() for row in shown) and len(shown) == 2


def test_wrong_calls_are_refused(generate, model, tmp_path):
    for wrong, says in [
        (lambda: generate([{"promt": "a"}]), "column 'promt' .*\n  hint: did you mean 'prompt'"),
        (lambda: generate([{"prompt": "a", "number": 1}]), "column 'number' .*\n  hint: keep="),
        (lambda: generate(["a"], threads=1), "'threads'"),
    ]:
        with pytest.raises(TypeError, match=says):
            wrong()
    for arguments, says in [({"keep": ["key"]}, "keep: 'key'"), ({"retries": -2}, "retries: "), ({"batch_size": 0}, "batch_size: ")]:
        with pytest.raises(ValueError, match=says):
            generate(["a"], **arguments)
    with pytest.raises(ValueError, match="without the feature s3"):
        ldm_ort.ray.generate(ray.data.from_items(["a"]), model, "s3://bucket/prefix")
    with pytest.warns(UserWarning, match="the actors hold 2 of 2 CPUs"):
        ldm_ort.ray.generate(ray.data.range(3).map(lambda row: {"prompt": "a"}), model, tmp_path, concurrency=2)


def test_the_rows_of_a_dead_actor_are_run_again_and_no_more_often_than_told(generate, kills):
    for deaths, limit in ((5, {}), (2, {"retries": 2})):
        kills.write_text(str(deaths))
        rows = generate([f"a red circle after {deaths} deaths", f"a blue star after {deaths} deaths"], **limit)
        assert [row["error"] for row in rows] == [None, None] and kills.read_text() == "0"
    kills.write_text("1000")
    try:
        with pytest.raises(ray.exceptions.RayError):
            generate(["a green square"], retries=1)
        assert kills.read_text() == "998"
    finally:
        kills.write_text("0")
