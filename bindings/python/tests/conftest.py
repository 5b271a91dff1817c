"""The demo model, in pipelines that the tests share."""

import os
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
