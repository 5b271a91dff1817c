"""The command that comes with the wheel behaves as the one that Cargo builds."""

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
import time

import ldm_ort
import pytest


def answer(command: list[str], *arguments: str, **keywords) -> tuple[int, str, str]:
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=60, **keywords)
    # Times differ.
    return run.returncode, re.sub(r"\d+\.\d+( s|/s| steps/s)", "", run.stdout), re.sub(r"\d+\.\d+( s|/s| steps/s)", "", run.stderr)


def test_answers_are_the_same(command, wheel_command, pipeline_file, tmp_path):
    calls = [
        ["list", "schedulers"],
        ["--help"],
        ["help", "run"],
        [],
        ["check", str(pipeline_file)],
        ["check", "nowhere.toml"],
        ["rnu"],
        ["run", str(pipeline_file), "--steps", "x"],
        ["run", str(pipeline_file), "--provider", "cuda", "--offline"],
        ["run", str(pipeline_file), "--steps", "1", "-o", str(tmp_path / "images")],
        ["completions", "bash"],
    ]
    for arguments in calls:
        expected = answer(command, *arguments)
        assert answer(wheel_command, *arguments) == expected, arguments
        assert answer([sys.executable, "-m", "ldm_ort"], *arguments) == expected, arguments
    codes = [answer(wheel_command, *arguments)[0] for arguments in calls]
    assert codes[:5] == [0, 0, 0, 2, 0] and codes[5:9] == [2, 2, 2, 2] and codes[9:] == [0, 0]


@pytest.mark.skipif(os.name != "posix", reason="signals are sent otherwise there")
def test_control_c_stops_the_command(wheel_command, pipeline_file, tmp_path):
    run = [*wheel_command, "run", str(pipeline_file), "--steps", "1000", "-o", str(tmp_path)]
    process = subprocess.Popen(run, stderr=subprocess.PIPE, text=True)
    time.sleep(1.5)
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, text = process.communicate(timeout=10)
    assert process.returncode == 130 and "interrupted" in text and "Traceback" not in text
    assert time.monotonic() - started < 2.5


def test_versions(wheel_command):
    assert ldm_ort.__version__ == importlib.metadata.version("ldm-ort")
    code, text, _ = answer(wheel_command, "--version")
    assert code == 0 and text.startswith(f"ldm-ort {ldm_ort.__version__}\nONNX Runtime 1.")


def test_the_wheel_has_the_demo(wheel_command, tmp_path):
    code, written, problem = answer(wheel_command, "demo", str(tmp_path))
    assert (code, problem) == (0, ""), problem
    pipeline = written.strip()
    code, image, problem = answer(wheel_command, "run", pipeline, "--steps", "1", "-o", str(tmp_path / "images"), "--quiet")
    assert code == 0, problem
    assert image.strip().endswith(".png")
