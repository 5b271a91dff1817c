"""Kills the actors of a batch on Ray again and again, and counts what was lost, what is wrong, and what was made twice.

    pip install 'ray[data]<2.64' WHEEL
    python scripts/batch/ray_kill_test.py --jobs 2000 --actors 2 --every 2

`ldm-ort batch` makes the reference, undisturbed. Then `ldm_ort.ray.generate` makes the same images, and every few seconds one of
its actors' processes gets SIGKILL, until all is made. Needs Linux, models/shapes and the wheel with its command.

An execution is counted when it begins, by a line that the actor writes before the image's first step; it is an extra one if it
is not the first of its image. The exit code is 1 if an image is lost or wrong, or if there were more extra executions than kills.
"""

import argparse
import json
import logging
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time

# Graphs are opened as stored: nothing is left in the user's cache.
os.environ.setdefault("LDM_ORT_OPTIMIZE", "0")

import ray  # noqa: E402
import ray.data  # noqa: E402

import ldm_ort.ray  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
ACTOR = b"ray::MapWorker"


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(pathlib.Path(sys.executable).with_name("ldm-ort")), help="the program ldm-ort")
    parser.add_argument("--model", default=str(ROOT / "models/shapes"), help="the model directory")
    parser.add_argument("--jobs", type=int, default=2000, help="the number of images")
    parser.add_argument("--steps", type=int, default=4, help="steps of an image")
    parser.add_argument("--actors", type=int, default=2, help="the number of actors, each with one CPU")
    parser.add_argument("--batch-size", type=int, default=16, help="the number of rows that an actor takes at once")
    parser.add_argument("--every", type=float, default=2.0, help="seconds from one kill to the next")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the choice of actors")
    return parser.parse_args()


def count_executions(log):
    """Makes the function that a process of Ray runs first. It writes a line for each request of a batch that begins to run."""

    def setup():
        import ldm_ort

        run = ldm_ort.Batch.run
        file = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

        def notice(event):
            if event["event"] == "preparing":
                os.write(file, b"%d\n" % os.getpid())

        ldm_ort.Batch.run = lambda self, requests, **keywords: run(self, requests, callback=notice, **keywords)

    return setup


def parents():
    """The processes with their parents' numbers and their names."""
    processes = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            processes[int(folder.name)] = parent, (folder / "cmdline").read_bytes()
        except (OSError, ValueError):
            pass  # It has ended.
    return processes


def actors():
    """The processes of actors below this one."""
    processes = parents()

    def is_ours(process):
        while process in processes:
            if process == os.getpid():
                return True
            process = processes[process][0]
        return False

    return [process for process, (_, name) in processes.items() if name.startswith(ACTOR) and is_ours(process)]


class Killer(threading.Thread):
    """Kills an actor's process every so many seconds, until it is stopped."""

    def __init__(self, every, seed):
        super().__init__(daemon=True)
        self.every, self.choice, self.kills, self.ended = every, random.Random(seed), 0, threading.Event()

    def run(self):
        while not self.ended.wait(self.every):
            running = sorted(actors())
            if running:
                try:
                    os.kill(self.choice.choice(running), signal.SIGKILL)
                    self.kills += 1
                except ProcessLookupError:
                    pass


def images_of(folder):
    """The bytes of all images below a folder, by name."""
    return {path.name: path.read_bytes() for path in folder.glob("??/*.png")}


def made_twice(folder):
    """The images that the manifests list more than once as made, and the number of lines that cannot be read."""
    made, cut = [], 0
    for manifest in (folder / "manifest").glob("ray-*.jsonl"):
        for line in manifest.read_text().splitlines():
            try:
                entry = json.loads(line)
            except json.JSONDecodeError:
                cut += 1
                continue
            made += [entry["key"]] * ("seconds" in entry)
    return len(made) - len(set(made)), cut


def generate(arguments, prompts, out, killer):
    """Makes the images on Ray, and returns the result's rows and the seconds."""
    dataset = ray.data.from_items([{"line": at + 1, "prompt": prompt} for at, prompt in enumerate(prompts)])
    images = ldm_ort.ray.generate(
        dataset, arguments.model, out, concurrency=arguments.actors, batch_size=arguments.batch_size,
        run={"steps": arguments.steps},
    )
    began = time.monotonic()
    killer.start()
    rows = images.take_all()
    seconds = time.monotonic() - began
    killer.ended.set()
    killer.join()
    return rows, seconds


def main():
    arguments = read_arguments()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        colors = ["red", "green", "blue", "yellow"]
        prompts = [f"a {colors[at % 4]} circle, number {at}" for at in range(arguments.jobs)]
        (folder / "prompts.jsonl").write_text("".join(json.dumps(prompt) + "\n" for prompt in prompts))

        def batch(out, *action):
            request = [arguments.model, str(folder / "prompts.jsonl"), "--out", str(out), "--steps", str(arguments.steps)]
            command = [arguments.program, "batch", *action, *request, "--set", "device.threads=1", "--json"]
            answer = subprocess.run(command, capture_output=True, text=True)
            return answer.returncode, json.loads(answer.stdout.splitlines()[-1])["summary"]

        began = time.monotonic()
        code, summary = batch(folder / "whole")
        alone = time.monotonic() - began
        whole = images_of(folder / "whole")

        log = folder / "executions"
        hook = {"worker_process_setup_hook": count_executions(str(log))}
        ray.init(num_cpus=arguments.actors, runtime_env=hook, include_dashboard=False, log_to_driver=False,
                 logging_level=logging.FATAL)
        ray.data.DataContext.get_current().enable_progress_bars = False
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        killer = Killer(arguments.every, arguments.seed)
        rows, seconds = generate(arguments, prompts, folder / "out", killer)
        ray.shutdown()

        made = images_of(folder / "out")
        lost = len(set(whole) - set(made))
        wrong = sum(whole.get(name) != data for name, data in made.items())
        begun = len(log.read_text().splitlines())
        extra = begun - len(made)
        twice, cut = made_twice(folder / "out")
        errors = sum(row["error"] is not None for row in rows)
        lines = sorted(row["line"] for row in rows)
        missing = lines != list(range(1, arguments.jobs + 1))
        verified, verification = batch(folder / "out", "verify")
        resumed, again = batch(folder / "out")
        print(f"{arguments.jobs} images of {arguments.steps} steps: `ldm-ort batch` undisturbed {alone:.1f} s, one thread")
        print(f"{arguments.actors} actors of one CPU, {arguments.batch_size} rows at once: {seconds:.1f} s, {killer.kills} killed")
        print(f"lost {lost}, wrong {wrong}; {len(rows)} rows, {errors} with an error")
        print(f"executions begun {begun}, extra {extra}; stored twice {twice}; lines of manifests cut off {cut}")
        print(f"verify: exit {verified}, {verification}")
        print(f"`ldm-ort batch` on the same folder: {again['made']} made, {again['existing']} existed")
        checks = [code, lost, wrong, errors, missing, extra > killer.kills, verified, resumed, again["made"]]
        return 1 if any(checks) or len(whole) != arguments.jobs else 0


if __name__ == "__main__":
    sys.exit(main())
