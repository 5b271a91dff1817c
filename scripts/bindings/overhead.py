"""Compares a call of a pipeline from C and from Python with the same call from Rust, on the demo model and one thread.

usage, with a Python that has the wheel of a release build (scripts/bindings/python.sh release):
  scripts/bindings/install_c.sh PREFIX
  cargo build --release -p ldm-ort-python --example overhead
  target/python/venv/bin/python scripts/bindings/overhead.py PREFIX [ROUNDS] [CALLS] [STEPS]

Each round starts a process for each way, in turns and in another order each round. The time of a process is the median of its
calls, in seconds and in CPU seconds, which other load changes less. The overhead of a way is the median over rounds of its
time's difference from Rust's in the same round; half of the rounds are between the two numbers in brackets. It is also given as
a share of the run in Rust.
"""

import random
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
steps = STEPS
[device]
threads = 1
"""


def call_from_python(pipeline: str, calls: int, with_callback: bool) -> None:
    import ldm_ort

    pipe = ldm_ort.Pipeline(pipeline)
    pipe()
    for seed in range(calls):
        started, cpu = time.perf_counter(), time.process_time()
        images = pipe(seed=seed, callback=(lambda event: None) if with_callback else None)
        pixel = memoryview(images[0].tobytes())[-1]
        print(time.perf_counter() - started, time.process_time() - cpu, pixel)


def measured(command: list[str]) -> tuple[float, float, list[str]]:
    """The medians of a process's seconds and CPU seconds, and a pixel of each image."""
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    columns = list(zip(*(line.split() for line in lines), strict=True))
    seconds, cpu = (statistics.median(float(value) for value in column) for column in columns[:2])
    return seconds, cpu, list(columns[2])


def compile_c(prefix: Path, program: Path) -> None:
    flags = ["-O2", f"-I{prefix}/include", f"-L{prefix}/lib", "-lldm_ort", f"-Wl,-rpath,{prefix}/lib"]
    subprocess.run(["cc", str(ROOT / "bindings/c/examples/overhead.c"), "-o", str(program), *flags], check=True)


def main() -> None:
    prefix = Path(sys.argv[1]).resolve()
    rounds, calls, steps = (int(value) for value in (sys.argv[2:] + ["20", "20", "20"][len(sys.argv) - 2 :]))
    with tempfile.TemporaryDirectory() as folder:
        pipeline, program = Path(folder) / "pipeline.toml", Path(folder) / "overhead"
        pipeline.write_text(PIPELINE.replace("STEPS", str(steps)))
        compile_c(prefix, program)
        python = [sys.executable, __file__, "--call", str(pipeline), str(calls)]
        ways = {
            "Rust": [str(ROOT / "target/release/examples/overhead"), str(pipeline), str(calls)],
            "C": [str(program), str(pipeline), str(calls)],
            "Python": [*python, "no"],
            "Python with a callback": [*python, "yes"],
        }
        times: list[dict[str, tuple[float, float, list[str]]]] = []
        for _ in range(rounds):
            order = random.sample(list(ways), len(ways))
            times.append({name: measured(ways[name]) for name in order})
            assert len({tuple(time[2]) for time in times[-1].values()}) == 1, "other images"
    print(f"{rounds} rounds of {calls} calls of {steps} steps")
    for at, what in enumerate(["seconds", "CPU seconds"]):
        base = statistics.median(time["Rust"][at] for time in times)
        print(f"{what}: Rust {1e3 * base:.2f} ms")
        for name in list(ways)[1:]:
            low, middle, high = statistics.quantiles([time[name][at] - time["Rust"][at] for time in times])
            print(f"  {name}: {1e3 * middle:+.3f} ms [{1e3 * low:+.3f}, {1e3 * high:+.3f}], {100 * middle / base:+.2f} %")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--call"]:
        call_from_python(sys.argv[2], int(sys.argv[3]), sys.argv[4] == "yes")
    else:
        main()
