"""A kind of error a test: the exception, its text, and the pipeline's use afterwards."""

import errno
import shutil
import subprocess
import sys

import ldm_ort
import pytest


def refused(pipe, kind, says, **fields):
    with pytest.raises(kind, match=says) as caught:
        pipe(**fields)
    assert "hint: " in str(caught.value)
    assert len(pipe(steps=1)) == 1


def test_requests(pipe):
    refused(pipe, ValueError, "run.steps: expected", steps=0)
    refused(pipe, ValueError, "unknown scheduler", scheduler="eulr")
    refused(pipe, ValueError, "nowhere.png", image="nowhere.png")


def test_pipeline_files_and_models(tmp_path, model):
    with pytest.raises(ldm_ort.ModelError, match="cannot be read.*\n  hint: "):
        ldm_ort.Pipeline(tmp_path / "nowhere.toml")
    with pytest.raises(ldm_ort.ModelError, match="hint: "):
        ldm_ort.Pipeline(tmp_path)
    file = tmp_path / "pipeline.toml"
    file.write_text(f"[model]\npath = '{model}'\n[task.text-to-image]\nprompt = 'a star'\n[run]\nstps = 3\n")
    with pytest.raises(ldm_ort.ModelError, match="stps"):
        ldm_ort.Pipeline(file)
    broken = tmp_path / "broken"
    shutil.copytree(model, broken)
    (broken / "unet" / "model.onnx").write_bytes(b"no graph")
    with pytest.raises(ldm_ort.ModelError, match="unet"):
        with ldm_ort.Pipeline(broken) as pipe:
            pipe("a star", steps=1)
    assert issubclass(ldm_ort.ModelError, ldm_ort.Error)


def test_providers_and_runtimes(model, tmp_path):
    with pytest.raises(ldm_ort.ProviderError, match="provider cuda.*\n  hint: "):
        ldm_ort.Pipeline(model, provider="cuda", engine={"offline": True})
    with pytest.raises(ValueError, match="unknown provider"):
        ldm_ort.Pipeline(model, provider="cpus")
    with pytest.raises(ldm_ort.ProviderError, match="ONNX Runtime: "):
        ldm_ort.Pipeline(model, engine={"runtime": tmp_path})


def test_files(pipe, tmp_path):
    with pytest.raises(OSError, match="hint: ") as caught:
        pipe()[0].save(tmp_path / "no" / "where.png")
    assert caught.value.errno == errno.ENOENT and type(caught.value) is FileNotFoundError


def test_memory(pipeline_file):
    # In a process that cannot take the machine's memory, should the run start.
    code = f"""
import resource, ldm_ort
resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
try:
    ldm_ort.Pipeline({str(pipeline_file)!r}, run={{"width": 16384, "height": 16384}})
except MemoryError as error:
    assert str(error).startswith("memory: ") and "hint: " in str(error), error
    print("MemoryError", len(ldm_ort.Pipeline({str(pipeline_file)!r})(steps=1)))
"""
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert answer.stdout == "MemoryError 1\n", answer


def test_values_that_are_not_finite(model, tmp_path):
    broken = tmp_path / "model"
    shutil.copytree(model, broken)
    graph = broken / "unet" / "model.onnx"
    weights = bytearray(graph.read_bytes())
    middle = len(weights) // 2
    weights[middle : middle + 64] = b"\xff" * 64
    graph.write_bytes(weights)
    with ldm_ort.Pipeline(broken) as pipe:
        with pytest.raises(ldm_ort.NonFiniteError, match="step 1 of 2 holds .* non-finite"):
            pipe("a star", steps=2)


def test_a_value_error_is_no_error_of_ours(pipe):
    for kind in (ldm_ort.ModelError, ldm_ort.ProviderError, ldm_ort.NonFiniteError, ldm_ort.Cancelled):
        assert issubclass(kind, ldm_ort.Error) and kind.__module__ == "ldm_ort"
    with pytest.raises(ValueError):
        pipe(run={"sigmas": [float("nan")]})
