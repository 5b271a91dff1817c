"""The demo model, in pipelines that the tests share."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# Graphs are opened as stored, here and in the processes that tests start: nothing is left in the user's cache.
os.environ["LDM_ORT_OPTIMIZE"] = "0"

import ldm_ort  # noqa: E402

ROOT = Path(__file__).resolve().parents[3]
MODEL = ROOT / "models" / "shapes"
PROMPT = "a red circle on a white background"


def images_of(folder: Path) -> dict[str, bytes]:
    """The images of a batch's folder, by their names below it."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.glob("??/*")}


@pytest.fixture(scope="session")
def root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def model() -> Path:
    return MODEL


@pytest.fixture(scope="session")
def prompt() -> str:
    return PROMPT


@pytest.fixture(scope="session")
def pipeline_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pipeline") / "pipeline.toml"
    path.write_text(
        f"[model]\npath = '{MODEL}'\n[task.text-to-image]\nprompt = '{PROMPT}'\nguidance_scale = 3.0\n"
        "[run]\nsteps = 3\nseed = 42\n[device]\nthreads = 2\n"
    )
    return path


@pytest.fixture(scope="session")
def pipe(pipeline_file: Path) -> Iterator[ldm_ort.Pipeline]:
    with ldm_ort.Pipeline(pipeline_file) as pipe:
        yield pipe


@pytest.fixture(scope="session")
def command() -> list[str]:
    """The command as Cargo builds it, or where that is not at hand the wheel's."""
    built = os.environ.get("LDM_ORT_COMMAND")
    return [built] if built else [str(Path(sys.executable).with_name("ldm-ort"))]


@pytest.fixture(scope="session")
def wheel_command() -> list[str]:
    return [str(Path(sys.executable).with_name("ldm-ort"))]


@pytest.fixture
def batch_command(command, model, tmp_path):
    """Runs the command over requests, and returns its summary."""

    def run(requests: list, out: Path, code: int = 0) -> dict:
        path = tmp_path / "requests.jsonl"
        path.write_text("".join(json.dumps(request) + "\n" for request in requests))
        arguments = ["batch", str(model), str(path), "--out", str(out), "--steps", "2", "--set", "device.threads=1", "--json"]
        answer = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60)
        assert answer.returncode == code, answer
        return json.loads(answer.stdout.splitlines()[-1])["summary"]

    return run
