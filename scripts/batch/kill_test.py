"""Kills the workers of a batch again and again, and counts what was lost, what is wrong, and what was made twice.

    python scripts/batch/kill_test.py --jobs 200 --workers 2 --every 2

A first batch that nothing disturbs makes the reference. Then workers on one folder make the same images, and every few
seconds one of them gets SIGKILL and is started again, until all is made. Needs the program and models/shapes; the exit code
is 1 if an image is lost or wrong, or if more were made twice than workers were killed.
"""

import argparse
import json
import pathlib
import random
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/ldm-ort"), help="the program ldm-ort")
    parser.add_argument("--model", default=str(ROOT / "models/shapes"), help="the model directory")
    parser.add_argument("--jobs", type=int, default=200, help="the number of images")
    parser.add_argument("--steps", type=int, default=4, help="steps of an image")
    parser.add_argument("--workers", type=int, default=2, help="the number of processes at once")
    parser.add_argument("--shards", action="store_true", help="give each worker a shard, not all of them the whole batch")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one kill to the next")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the choice of workers")
    return parser.parse_args()


class Worker:
    """A process of the batch, started again when it was killed."""

    def __init__(self, command, log):
        self.command, self.log = command, log
        self.start()

    def start(self):
        self.output = open(self.log, "a")
        self.process = subprocess.Popen(self.command, stdout=self.output, stderr=subprocess.DEVNULL)

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.output.close()


def images_of(folder):
    """The bytes of all images below a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("??/*.png")}


def stored(log):
    """The keys that a worker has told of, one for each time."""
    keys = []
    for line in log.read_text().splitlines():
        try:
            keys.append(json.loads(line)["key"])
        except (json.JSONDecodeError, KeyError):
            pass  # A line that a kill has cut off, or the summary.
    return keys


def main():
    arguments = read_arguments()
    choice = random.Random(arguments.seed)
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        prompts = folder / "prompts.jsonl"
        colors = ["red", "green", "blue", "yellow"]
        lines = [json.dumps(f"a {colors[at % 4]} circle, number {at}") for at in range(arguments.jobs)]
        prompts.write_text("\n".join(lines) + "\n")

        def command(out, action=()):
            request = [arguments.model, str(prompts), "--out", str(out), "--steps", str(arguments.steps)]
            return [arguments.program, "batch", *action, *request, "--set", "device.threads=1", "--json"]

        began = time.monotonic()
        subprocess.run(command(folder / "whole"), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        alone = time.monotonic() - began
        whole = images_of(folder / "whole")

        began = time.monotonic()
        workers = []
        for number in range(arguments.workers):
            shard = ["--shard", f"{number + 1}/{arguments.workers}"] if arguments.shards else []
            parts = command(folder / "out") + shard
            workers.append(Worker(parts, folder / f"worker-{number}.log"))
        kills = 0
        while True:
            time.sleep(arguments.every)
            running = [worker for worker in workers if worker.process.poll() is None]
            if not running:
                break
            worker = choice.choice(running)
            worker.kill()
            kills += 1
            worker.start()
        seconds = time.monotonic() - began

        made = images_of(folder / "out")
        told = [key for number in range(arguments.workers) for key in stored(folder / f"worker-{number}.log")]
        lost = len(set(whole) - set(made))
        wrong = sum(whole.get(name) != data for name, data in made.items())
        extra = len(told) - len(set(told))
        verify = subprocess.run(command(folder / "out", ["verify"]), capture_output=True, text=True)
        codes = sorted(worker.process.returncode for worker in workers)
        print(f"{arguments.jobs} images of {arguments.steps} steps: undisturbed {alone:.1f} s with one worker")
        share = "with a shard each" if arguments.shards else "with all of the batch"
        print(f"{arguments.workers} workers {share}: {seconds:.1f} s, {kills} killed")
        print(f"lost {lost}, wrong {wrong}, made twice {extra}; exit codes of the last workers {codes}")
        print(f"verify: exit {verify.returncode}, {verify.stdout.strip().splitlines()[-1]}")
        failed = lost or wrong or extra > kills or verify.returncode or len(whole) != arguments.jobs or any(codes)
        return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
