"""The Python of the pages runs as written."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import PIL.Image
import pytest


def snippets(page: Path) -> list[str]:
    """The page's blocks of Python."""
    blocks = page.read_text(encoding="utf-8").split("```python\n")[1:]
    return [block.split("```")[0] for block in blocks]


@pytest.fixture
def world(root: Path, model: Path, tmp_path: Path) -> Path:
    """A folder with the files that the pages name."""
    (tmp_path / "models").mkdir()
    for name in ("shapes", "sd15"):
        (tmp_path / "models" / name).symlink_to(model)
    (tmp_path / "pipeline.toml").write_bytes((root / "pipeline.toml").read_bytes())
    PIL.Image.radial_gradient("L").resize((64, 64)).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path


@pytest.mark.parametrize(("page", "count"), [("docs/python.md", 9), ("bindings/python/README.md", 1), ("README.md", 1)])
def test_snippets_run(root, world, page, count):
    """Blocks that begin with a file's name are programs of their own; the others of a page are one program."""
    blocks = snippets(root / page)
    assert len(blocks) >= count
    programs = {"page.py": "".join(block for block in blocks if not block.startswith("# "))}
    programs |= {block[2:].split("\n")[0]: block for block in blocks if block.startswith("# ")}
    for name, text in programs.items():
        (world / name).write_text(text, encoding="utf-8")
        answer = subprocess.run([sys.executable, name], cwd=world, capture_output=True, text=True, timeout=120)
        assert (answer.returncode, answer.stderr) == (0, ""), answer
    assert (world / "lighthouse.png").exists()
    assert page != "docs/python.md" or (world / "image-1.png").exists()


@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed, see test_ray.py")
def test_the_snippet_for_ray_runs(root, world):
    blocks = snippets(root / "docs/scale.md")
    assert len(blocks) == 1
    (world / "page.py").write_text(blocks[0], encoding="utf-8")
    answer = subprocess.run([sys.executable, "page.py"], cwd=world, capture_output=True, text=True, timeout=120)
    assert answer.returncode == 0 and answer.stdout.count(".png None") == 3, answer
