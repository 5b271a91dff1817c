"""Requests: fields, tables, diffusers' names; settings; opening."""

import json
import subprocess

import ldm_ort
import numpy
import pytest
from ldm_ort import _fields


def test_fields_and_tables_and_whole_requests_mean_the_same(pipe):
    expected = pipe("a green star", seed=7, steps=2, guidance_scale=2.0, scheduler="euler")[0].tobytes()
    tables = {
        "task": {"text-to-image": {"prompt": "a green star", "guidance_scale": 2.0}},
        "run": {"seed": 7, "steps": 2},
        "scheduler": {"euler": {}},
    }
    assert pipe(request=tables)[0].tobytes() == expected
    assert pipe(**tables)[0].tobytes() == expected
    assert pipe("a green star", run=tables["run"], request={"guidance_scale": 2, "scheduler": "euler"})[0].tobytes() == expected
    # Numbers of NumPy, and None for what the file says.
    again = pipe("a green star", seed=numpy.int64(7), steps=numpy.uint8(2), guidance_scale=numpy.float32(2), scheduler="euler",
                 width=None, image=None)
    assert again[0].tobytes() == expected
    assert pipe("a green star", seed=8, steps=2, guidance_scale=2.0, scheduler="euler")[0].tobytes() != expected


def test_sizes_and_counts(pipe):
    images = pipe(["a green star", "a red circle"], images=2, width=80, height=48, steps=1)
    assert [(image.width, image.height, image.index) for image in images] == [(80, 48, at) for at in range(4)]


def test_names_of_diffusers(pipe):
    class Generator:
        """As much of torch's as is used."""

        def initial_seed(self) -> int:
            return 7

    ours = [image.tobytes() for image in pipe("a green star", seed=7, steps=2, images=2)]
    for generator in (7, Generator()):
        theirs = pipe("a green star", num_inference_steps=2, num_images_per_prompt=2, generator=generator)
        assert [image.tobytes() for image in theirs] == ours
    with pytest.raises(TypeError, match="num_inference_steps and steps are the same field"):
        pipe(steps=2, num_inference_steps=2)
    with pytest.raises(TypeError, match="generator: .*list\n  hint: image i is drawn from seed"):
        pipe(generator=[1, 2])


def test_unknown_keywords_name_the_valid_ones(pipe, model):
    with pytest.raises(TypeError, match=r"'stps'; valid: prompt, .*steps.*\n  hint: did you mean 'steps'\?"):
        pipe(stps=3)
    with pytest.raises(TypeError, match="'provder'; valid: provider, threads.*\n  hint: did you mean 'provider'"):
        ldm_ort.Pipeline(model, provder="cpu")
    with pytest.raises(TypeError, match="'ofline'; valid: runtime, offline.*\n  hint: did you mean 'offline'"):
        ldm_ort.Engine(ofline=True)
    with pytest.raises(TypeError, match="seed is in request= and a keyword"):
        pipe(seed=1, request={"seed": 2})
    with pytest.raises(TypeError, match="run.sigmas: expected a number"):
        pipe(run={"sigmas": object()})
    with pytest.raises(ValueError, match="unknown field; expected one of"):
        pipe(request={"prmpt": "a star"})


def test_the_keywords_are_the_librarys(pipe, command):
    """Every field that the library knows is a keyword, and no keyword is unknown to it."""
    with pytest.raises(ValueError) as caught:
        pipe(request={"zzz": 1})
    text = str(caught.value)
    names = text.split("expected one of ")[1].split("\n")[0].split(", ")
    fields = set(_fields.RequestFields.__annotations__) - set(_fields.ALIASES)
    assert fields | {"prompt"} == set(names)
    keys = json.loads(subprocess.run([*command, "list", "keys", "--json"], check=True, capture_output=True).stdout)
    tables = {name for name, table in keys["properties"].items() if not table.get("deprecated")}
    device = keys["properties"]["device"]
    for name in device.get("$ref", "#").split("/")[1:]:
        keys = device = keys[name]
    known = set(_fields.Settings.__annotations__)
    assert tables <= known
    assert known - tables <= set(device["properties"])


def test_requests_are_checked_without_running(pipe):
    pipe.check("a green star", steps=4)
    with pytest.raises(ValueError, match="run.steps"):
        pipe.check(steps=0)


def test_settings_are_over_the_file(pipeline_file, model):
    with ldm_ort.Pipeline(pipeline_file, run={"steps": 1}, device={"threads": 1}, provider=["cpu"]) as pipe:
        assert pipe()[0].record["steps"] == 1
    with ldm_ort.Pipeline(str(model), threads=1) as pipe:
        assert pipe("a green star", steps=1)[0].width == 64
        assert ldm_ort.runtime_version(pipe).startswith("1.")
    with pytest.raises(ValueError, match="threads"):
        ldm_ort.Pipeline(model, threads="two")
    with pytest.raises(ValueError, match="steps"):
        ldm_ort.Pipeline(model, run={"steps": "two"})


def test_a_pipeline_from_text(pipeline_file, pipe):
    expected = pipe()[0].tobytes()
    with ldm_ort.Pipeline.from_toml(pipeline_file.read_text()) as other:
        assert other()[0].tobytes() == expected
        assert repr(other).startswith("<ldm_ort.Pipeline 'TOML', ONNX Runtime 1.")
    assert "closed" in repr(other)
    with pytest.raises(ValueError, match="closed"):
        other()
    other.close()


def test_engines(pipeline_file, tmp_path):
    engine = ldm_ort.Engine(offline=True, cache_dir=tmp_path, graph_cache=True, graph_cache_size="1 GB")
    events = []
    with ldm_ort.Pipeline(pipeline_file, engine=engine, callback=events.append) as pipe:
        pipe(steps=1, callback=events.append)
    assert {"optimizing", "loading"} <= {event["event"] for event in events}
    assert list((tmp_path / "graphs").iterdir())
    with ldm_ort.Pipeline(pipeline_file, engine={"offline": True, "graph_cache": False}) as pipe:
        assert pipe(steps=1)
    with pytest.raises(ValueError, match="graph_cache_size"):
        ldm_ort.Engine(graph_cache_size="big")
    with pytest.raises(ldm_ort.ProviderError, match="nowhere.so"):
        ldm_ort.Pipeline(pipeline_file, engine={"runtime": tmp_path / "nowhere.so"})
