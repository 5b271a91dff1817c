"""Compares a call of a pipeline from Python with the same call from Rust, on the demo model, in turns: the shortest call of each
process, since other load only adds to it. Load that is there throughout makes the comparison worthless.

usage, with a Python that has the wheel of the same build (scripts/bindings/python.sh release):
  cargo build --release -p ldm-ort-python --example overhead
  target/python/venv/bin/python scripts/bindings/python_overhead.py [ROUNDS] [CALLS]
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PIPELINE = f"""[model]
path = '{ROOT}/models/shapes'
[task.text-to-image]
prompt = "a small yellow star to the left of a blue circle on a white background"
guidance_scale = 3.0
[run]
steps = 20
[device]
threads = 1
"""


def call_from_python(pipeline: str, calls: int, with_callback: bool) -> None:
    import ldm_ort

    pipe = ldm_ort.Pipeline(pipeline)
    pipe()
    for seed in range(calls):
        started = time.perf_counter()
        images = pipe(seed=seed, callback=(lambda event: None) if with_callback else None)
        print(time.perf_counter() - started, images[0].seed)


def measured(command: list[str]) -> list[float]:
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [float(line.split()[0]) for line in lines]


def main() -> None:
    rounds, calls = (int(value) for value in (sys.argv[1:] + ["5", "20"][len(sys.argv) - 1 :]))
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(PIPELINE)
        file.flush()
        rust = [str(ROOT / "target/release/examples/overhead"), file.name, str(calls)]
        python = [sys.executable, __file__, "--call", file.name, str(calls)]
        ways = {"Rust": rust, "Python": [*python, "no"], "Python with a callback": [*python, "yes"]}
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, command in ways.items():
                seconds[name].append(min(measured(command)))
                print(f"{name}: {1e3 * seconds[name][-1]:.2f} ms", flush=True)
    base = statistics.median(seconds["Rust"])
    for name, least in seconds.items():
        spread = f"{1e3 * min(least):.2f} to {1e3 * max(least):.2f}"
        median = statistics.median(least)
        best = min(least) / min(seconds["Rust"]) - 1
        print(f"{name}: {1e3 * median:.2f} ms ({spread}), {100 * (median / base - 1):+.1f} %, of the shortest call {100 * best:+.1f} %")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--call"]:
        call_from_python(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "yes")
    else:
        main()
