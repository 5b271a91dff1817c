"""The bytes of the command for the requests in tests/parity, which hold the other front ends too."""

import json
import subprocess
from pathlib import Path

import ldm_ort
import numpy
import PIL.Image
import pytest

PARITY = Path(__file__).resolve().parents[3] / "tests" / "parity"
ROOT = PARITY.parents[1]


def text(name: str) -> str:
    return (PARITY / name).read_text(encoding="utf-8").replace("@ROOT@", str(ROOT))


@pytest.mark.parametrize("case", json.loads(text("requests.json")), ids=lambda case: case["name"])
def test_bytes_are_those_of_the_command(case, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # A record names the model as seen from the current folder.
    for name in {"text.toml", case["pipeline"]}:
        (tmp_path / name).write_text(text(name), encoding="utf-8")
    encoding = ["--format", case["format"]] + (["--quality", str(case["quality"])] if "quality" in case else [])
    run = [*command, "run", case["pipeline"], *case["flags"], *encoding, "-q", "-o", "out"]
    lines = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True).stdout.splitlines()
    expected = [(tmp_path / line).read_bytes() for line in lines]
    quality = {"quality": case["quality"]} if "quality" in case else {}
    inputs = case.get("inputs", {})
    with ldm_ort.Pipeline(tmp_path / "text.toml") as pipe:
        images = pipe(**case["request"], **inputs)
        assert [image.encode(case["format"], **quality) for image in images] == expected
        whole = pipe(request={**case["request"], **inputs})
        assert [image.encode(case["format"], **quality) for image in whole] == expected
        # In memory: as the bytes of files, and as pixels. Their records have no path.
        for read in (lambda path: Path(path).read_bytes(), lambda path: numpy.asarray(PIL.Image.open(path))):
            again = pipe(**case["request"], **{key: read(path) for key, path in inputs.items()})
            assert [image.tobytes() for image in again] == [image.tobytes() for image in images]
