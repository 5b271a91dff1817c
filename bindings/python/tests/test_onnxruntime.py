"""The package `onnxruntime` in the same environment and process."""

import os
from pathlib import Path

import ldm_ort
import numpy
import onnxruntime


def mapped() -> set[str]:
    lines = Path("/proc/self/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "onnxruntime" in line and ".so" in line}


def test_sessions_and_pipelines_in_turns(model, pipeline_file):
    graph = str(model / "vae_decoder" / "model.onnx")
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    latents = session.get_inputs()[0]
    shape = [side if isinstance(side, int) else {0: 1, 1: 4}.get(at, 8) for at, side in enumerate(latents.shape)]
    values = {latents.name: numpy.random.default_rng(0).normal(size=shape).astype(numpy.float32)}
    expected = session.run(None, values)[0]
    with ldm_ort.Pipeline(pipeline_file) as pipe:
        image = pipe()[0].tobytes()
        for _ in range(3):
            assert (session.run(None, values)[0] == expected).all()
            assert pipe()[0].tobytes() == image
        # A new session next to an open pipeline.
        other = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
        assert (other.run(None, values)[0] == expected).all()
        version = ldm_ort.runtime_version(pipe)
    assert (session.run(None, values)[0] == expected).all()
    if "ORT_DYLIB_PATH" not in os.environ:
        assert version == onnxruntime.__version__
        capi = str(Path(onnxruntime.__file__).parent / "capi")
        assert any(path.startswith(f"{capi}/libonnxruntime.so") for path in mapped()), mapped()


def test_the_command_takes_the_packages_library(wheel_command):
    import subprocess

    environment = {name: value for name, value in os.environ.items() if name != "ORT_DYLIB_PATH"}
    text = subprocess.run([*wheel_command, "runtime"], check=True, capture_output=True, text=True, env=environment).stdout
    assert f"* Python's package onnxruntime: {Path(onnxruntime.__file__).parent / 'capi'}" in text
