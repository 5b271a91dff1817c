"""The benchmark: ldm-ort beside other programs that run the same model on the same machine, as Markdown tables.

    python -m pip install -r scripts/requirements.txt
    cargo build --release
    python scripts/bench/bench.py                                    # 4 and 20 steps, 512x512, three rounds: hours on two cores
    python scripts/bench/bench.py --steps 4 --rounds 2 --json raw.json
    python scripts/bench/bench.py --parts --rounds 3                 # single evaluations: seconds, GFLOP/s
    python scripts/bench/bench.py --model tiny --rounds 1            # does it work?
    python scripts/bench/bench.py --model shapes --steps 20 --ldm-ort ours=target/release/ldm-ort \\
        --ldm-ort "cached=target/release/ldm-ort --set cache.spectrum.warmup=3 --set cache.spectrum.flex=2.0"
    python scripts/bench/bench.py --report raw.json                  # the tables of an earlier run

Engines: ours, and of the peers (scripts/bench/bench_peers.py) those that are installed: ort, openvino, optimum, diffusers.
Their models (random weights, scripts/bench/bench_model.py) are built in --work when they are not there: 8.5 GB for sd15. shapes is
models/shapes, with ours and optimum only.

All that use ONNX Runtime use the library of the onnxruntime package: ours is told by ORT_DYLIB_PATH, unless
--own-runtime. ours is started once with an empty LDM_ORT_CACHE_DIR ("first start"); all other runs find what that left.
All start from the same noise; final latents and pictures are compared. Linux only.

Raw samples go to --json after every round, so that a benchmark that is broken off leaves those it had. A sample holds wall,
cpu, peak_rss, peak_anon, peak_file, foreign (share of processor time), first_step_at (seconds since the process began),
import (ours: finding ONNX Runtime), load, prompt, steps_taken, decode.
"""

import argparse
import datetime
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import bench_model
import bench_process
import bench_report
from bench_process import Failed, files_of, page_cache

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = {
    "ort": "import onnxruntime, tokenizers, PIL",
    "openvino": "import openvino, tokenizers, PIL",
    "optimum": "from optimum.onnxruntime import ORTStableDiffusionPipeline",
    "diffusers": "from diffusers import StableDiffusionPipeline",
}
SIZES = {"sd15": 512, "tiny": 128, "shapes": 64}
PROMPT = "a red circle to the left of a blue square on a white background"
GUIDANCE = {"sd15": 7.5, "tiny": 7.5, "shapes": 3.0}
# Pixels a side for one latent.
FACTOR = {"sd15": 8, "tiny": 8, "shapes": 4}
SUMMARY = re.compile(
    r"runtime ([\d.]+) s · model ([\d.]+) s · prompts ([\d.]+) s · denoising ([\d.]+) s \((\d+) steps.*?decoding ([\d.]+) s"
)


def say(text):
    print(text, file=sys.stderr, flush=True)


def write_json(path, value):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
    os.replace(path + ".new", path)


class Bench:
    def __init__(self, args):
        self.args, self.work, self.slices = args, os.path.abspath(args.work), None
        self.size = args.size or SIZES[args.model]
        self.model = os.path.join(self.work, "models", args.model)
        self.files = os.path.join(self.work, "runs")
        os.makedirs(self.files, exist_ok=True)
        try:
            bench_model.build(args.model, self.model)
        except subprocess.CalledProcessError as e:
            sys.exit(f"bench.py: the model {args.model} could not be built ({e}): are scripts/requirements.txt installed?")
        self.noise = os.path.join(self.files, f"noise-{self.size}.npy")
        side = self.size // FACTOR[args.model]
        np.save(self.noise, np.random.default_rng(0).standard_normal((1, 4, side, side)).astype(np.float32))
        self.versions = self.peer(["versions"])
        self.library = self.versions.pop("onnxruntime library", None)
        self.ours = dict(self.binary(text) for text in args.ldm_ort or ["target/release/ldm-ort"])
        self.engines, absent = [], []
        peers = ["optimum"] if args.model == "shapes" else PEERS
        for name in [*self.ours, *peers]:
            if args.only and name not in args.only:
                continue
            (self.engines if self.there(name) else absent).append(name)
        if not self.engines:
            sys.exit("bench.py: none of the engines is there: " + ", ".join(absent))
        base = args.base or next((n for n in self.ours if n in self.engines), self.engines[0])
        if base not in self.engines:
            sys.exit(f"bench.py: --base {base} is not among the engines that run: {', '.join(self.engines)}")
        self.raw = {
            "heading": self.heading(),
            "model": args.model,
            "size": self.size,
            "base": base,
            "cold": args.cold,
            "absent": absent,
            "samples": [],
            "parts": [],
            "failures": [],
        }

    def binary(self, text):
        """`[NAME=]PROGRAM [FLAGS]`; the flags go behind those of every run."""
        name, sep, command = text.partition("=")
        if not sep or not re.fullmatch(r"[\w.-]+", name):
            name, command = "ours", text
        program, *flags = shlex.split(command)
        return name, (os.path.abspath(program), flags)

    def there(self, name):
        if name in self.ours:
            return os.access(self.ours[name][0], os.X_OK)
        # Also reads the packages into the page cache, and leaves their compiled form.
        done = subprocess.run([sys.executable, "-c", PEERS[name]], capture_output=True, env=self.environment())
        return done.returncode == 0

    def environment(self):
        return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

    def peer(self, words):
        command = [sys.executable, os.path.join(HERE, "bench_peers.py"), *words]
        out, _, _ = bench_process.run(command, self.environment())
        return json.loads(out.splitlines()[-1])

    def heading(self):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
        versions = {k: v for k, v in self.versions.items() if k not in ("end", "python")}
        for name, (program, _) in self.ours.items():
            if name in self.engines:
                out = subprocess.run([program, "--version"], capture_output=True, text=True).stdout.split()
                versions[name] = out[-1] if out else "?"
        return {
            "cpu": cpu,
            "cpus": bench_process.CPUS,
            "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            "kernel": f"{platform.system()} {platform.release()}",
            "versions": versions,
            "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
            "ours": "its own runtime" if self.args.own_runtime or not self.library else "onnxruntime's library",
        }

    # One run each

    def cache(self, name):
        return os.path.join(self.work, "cache", name)

    def run_ours(self, name, steps):
        program, flags = self.ours[name]
        where = os.path.join(self.files, name)
        shutil.rmtree(where, ignore_errors=True)
        os.makedirs(where)
        latents, pipeline = os.path.join(where, "latents.npy"), os.path.join(where, "pipeline.toml")
        with open(pipeline, "w", encoding="utf-8") as f:
            f.write(
                f"[model]\npath = {json.dumps(os.path.join(self.model, 'onnx'))}\n\n"
                f"[task.text-to-image]\nprompt = {json.dumps(PROMPT)}\nguidance_scale = {GUIDANCE[self.args.model]}\n\n"
                f"[run]\nsteps = {steps}\nwidth = {self.size}\nheight = {self.size}\nlatents = {json.dumps(self.noise)}\n\n"
                f"[output]\ndir = {json.dumps(where)}\n"
            )
        environment = {**self.environment(), "LDM_ORT_CACHE_DIR": self.cache(name)}
        if self.library and not self.args.own_runtime:
            environment["ORT_DYLIB_PATH"] = self.library
        command = [program, "run", pipeline, "--json", "--save-latents", latents, *flags]
        out, err, measured = bench_process.run(command, environment, self.args.nice, self.args.limit, self.slices)
        picture = json.loads(out.splitlines()[0])
        return {**measured, **self.ours_phases(picture, err), "latents": latents, "picture": picture["path"]}

    @staticmethod
    def ours_phases(picture, err):
        """The fields of `timings` in --json and of the line on stderr. In `timings`: until_denoising (since the process began),
        calls (a duration each), until_decoded (from the last call until the picture was written). Without it, the steps are
        the mean of the denoising loop."""
        found = SUMMARY.search(err)
        timings = picture.get("timings") or {}
        runtime, load, prompt, denoise, calls, decode = map(float, found.groups()) if found else (None,) * 6
        return {
            "import": runtime or 0.0,
            "load": load,
            "prompt": prompt,
            "steps_taken": timings.get("calls") or ([denoise / calls] * int(calls) if calls else []),
            "mean_step": "calls" not in timings,
            "decode": timings.get("until_decoded") if decode is None else decode,
            "until_decoded": timings.get("until_decoded"),
            "first_step_at": timings.get("until_denoising", runtime + load + prompt if found else None),
        }

    def run_peer(self, name, steps):
        job = os.path.join(self.files, f"{name}.json")
        given = {
            "model": self.model,
            "size": self.size,
            "steps": steps,
            "prompt": PROMPT,
            "guidance": GUIDANCE[self.args.model],
            "noise": self.noise,
            "latents": os.path.join(self.files, f"{name}.npy"),
            "picture": os.path.join(self.files, f"{name}.png"),
        }
        write_json(job, given)
        out, measured = self.child(name, job)
        phases = {"steps_taken": out.pop("steps"), **out}
        return {**measured, **phases, "latents": given["latents"], "picture": given["picture"]}

    def child(self, name, job):
        command = [sys.executable, os.path.join(HERE, "bench_peers.py"), name, job]
        out, _, measured = bench_process.run(command, self.environment(), self.args.nice, self.args.limit, self.slices)
        return json.loads(out.splitlines()[-1]), measured

    def prepare_files(self, name):
        folder = "torch" if name == "diffusers" else "onnx"
        paths = files_of(os.path.join(self.model, folder))
        if name in self.ours and os.path.isdir(self.cache(name)):
            paths += files_of(self.cache(name))
        os.sync()  # what an earlier run left to be written is not to disturb this one
        page_cache(paths, keep=not self.args.cold)

    def turn(self, name, steps, round_, first=False):
        self.prepare_files(name)
        try:
            run = self.run_ours if name in self.ours else self.run_peer
            sample = run(name, steps)
        except (Failed, ValueError, KeyError, IndexError) as e:
            return self.failed(name, e)
        sample.update(engine=name, steps=steps, round=round_, first=first, result=self.result(sample))
        others = "" if self.slices else f", foreign {100 * sample['foreign']:.0f} %"
        say(f"  {name}: {sample['wall']:.1f} s{others}")
        return sample

    def at_once(self, steps, round_):
        """A turn of every engine, all begun together and run in slices. What they tell of their own time holds the others'."""
        self.slices = bench_process.Slices(self.args.slices, len(self.engines))
        self.slices.start()
        foreign = bench_process.Foreign()
        with ThreadPoolExecutor(len(self.engines)) as pool:
            turns = list(pool.map(lambda name: self.turn(name, steps, round_), self.engines))
        self.slices = None
        told = [turn for turn in turns if turn]
        share = foreign.share(sum(turn["cpu"] for turn in told))
        for turn in told:
            turn.update(foreign=share, load=None, prompt=None, first_step_at=None, decode=None, steps_taken=[])
        return turns

    def failed(self, name, error):
        say(f"  {name} failed: {error!r}")
        self.raw["failures"].append({"engine": name, "why": str(error) or repr(error)})
        return None

    @staticmethod
    def result(sample):
        from PIL import Image

        return np.load(sample.pop("latents")), np.asarray(Image.open(sample.pop("picture")).convert("RGB")).astype(int)

    def compare(self, samples):
        """Puts each sample's difference from the base's of the round in the place of its results."""
        base = next((s["result"] for s in samples if s["engine"] == self.raw["base"] and not s["first"]), None)
        for s in samples:
            latents, pixels = s.pop("result")
            s["finite"] = bool(np.isfinite(latents).all())
            if base is None or s["engine"] == self.raw["base"] and not s["first"]:
                continue
            apart = abs(pixels - base[1])
            noise = float((apart**2).mean())
            s["against"] = {
                "latents": float(abs(latents - base[0]).max() / abs(base[0]).max()),
                "pixels": int(apart.max()),
                "pixels_share": float((apart > 0).mean()),
                "psnr": 10 * np.log10(255**2 / noise) if noise else None,
            }
        self.raw["samples"] += samples
        self.keep()

    def keep(self):
        if self.args.json:
            write_json(self.args.json, self.raw)

    # All runs

    def first_starts(self, steps, rounds):
        """Starts of ours that find nothing of an earlier one's; the last one's leavings stay."""
        samples = []
        for name in (n for n in self.engines if n in self.ours):
            for round_ in range(rounds):
                shutil.rmtree(self.cache(name), ignore_errors=True)
                os.makedirs(self.cache(name))
                sample = self.turn(name, steps, round_, first=True)
                samples += [sample] if sample else []
        return samples

    def images(self):
        say("first starts")
        pending = self.first_starts(self.args.steps[0], self.args.first_starts)
        for steps in self.args.steps:
            for round_ in range(self.args.rounds):
                say(f"{steps} steps, round {round_ + 1}")
                turns = self.at_once(steps, round_) if self.args.slices else [self.turn(name, steps, round_) for name in self.engines]
                self.compare(pending + [t for t in turns if t])
                pending = []

    def parts(self):
        engines = [n for n in self.engines if n != "optimum"]  # its sessions are ort's
        job = os.path.join(self.files, "parts.json")
        write_json(job, {"model": self.model, "size": self.size, "samples": self.args.samples})
        try:
            self.raw["flops"] = self.peer(["flops", job])
        except Failed as e:
            self.failed("flops", e)
        for sample in self.first_starts(1, min(1, self.args.first_starts)):
            del sample["result"]
        for round_ in range(self.args.rounds):
            say(f"parts, round {round_ + 1}")
            for name in engines:
                self.prepare_files(name)
                rates = sgemm(4096 if self.args.model == "sd15" else 1024)
                try:
                    block = self.part(name, job)
                except (Failed, ValueError, KeyError, IndexError) as e:
                    self.failed(name, e)
                    continue
                self.raw["parts"].append({**block, "engine": name, "round": round_, "sgemm": rates})
                say(f"  {name}: {block['unet']} {block['decode']} foreign {100 * block['foreign']:.0f} %")
                self.keep()

    def part(self, name, job):
        if name not in self.ours:
            out, measured = self.child(name, job)
            return {**measured, **out}
        run = self.run_ours(name, self.args.samples + 1)
        steps = run["steps_taken"]
        return {**run, "unet": steps[1:], "unet_first": steps[0], "unet_load": run["load"], "decode": [run["decode"]] if run["decode"] else []}


def sgemm(n):
    """GFLOP/s of three products of square matrices."""
    import time

    a, b = (np.random.default_rng(i).standard_normal((n, n), dtype=np.float32) for i in (0, 1))
    a @ b
    rates = []
    for _ in range(3):
        start = time.monotonic()
        a @ b
        rates.append(2 * n**3 / (time.monotonic() - start) / 1e9)
    return rates


def arguments():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default=os.path.join(cache, "ldm-ort-bench"), help="models, pictures and caches (default %(default)s)")
    p.add_argument("--model", choices=bench_model.MODELS, default="sd15")
    p.add_argument("--steps", type=int, nargs="+", default=[4, 20])
    p.add_argument("--size", type=int, help="width and height in pixels (default 512, tiny 128)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", type=lambda t: t.split(","), help="engines, with commas: ours,ort,openvino,optimum,diffusers")
    p.add_argument("--base", help="the engine that others are compared with (default ours)")
    p.add_argument("--ldm-ort", action="append", metavar="[NAME=]PROGRAM [FLAGS]", help="default target/release/ldm-ort; several times: several forms of ours, each of a name")
    p.add_argument("--own-runtime", action="store_true", help="ours takes the ONNX Runtime that it finds itself")
    p.add_argument("--first-starts", type=int, default=1, help="how many starts of ours with nothing cached (default 1); 0 takes the cache as the last benchmark left it")
    p.add_argument("--slices", type=float, metavar="SECONDS", help="all engines at once, one of them running at a time, in turns of so many seconds: for machines whose speed changes. Whole processes only; takes the memory of all")
    p.add_argument("--cold", action="store_true", help="drops the model's files from the page cache before every run")
    p.add_argument("--nice", type=int, default=0, help="priority of the processes measured, such as -10 (needs root)")
    p.add_argument("--limit", type=float, default=3600, help="seconds after which a run is ended")
    p.add_argument("--parts", action="store_true", help="single evaluations and decodings instead of whole pictures")
    p.add_argument("--samples", type=int, default=3, help="evaluations a block with --parts")
    p.add_argument("--json", metavar="FILE", help="raw samples go here")
    p.add_argument("--report", metavar="FILE", help="prints the tables of an earlier run's --json, and runs nothing")
    args = p.parse_args()
    if args.parts and args.model == "shapes":
        p.error("--parts needs a model whose weights torch has, too: sd15 or tiny")
    if args.slices is not None and (args.slices < 0.1 or args.parts or args.cold):
        p.error("--slices is 0.1 or more, and goes neither with --parts nor with --cold")
    if args.size is not None and (args.size < 64 or args.size % 64):
        p.error("--size is a multiple of 64")
    if min([*args.steps, args.rounds, args.samples]) < 1 or args.first_starts < 0:
        p.error("--steps, --rounds and --samples are 1 or more")
    return args


def main():
    args = arguments()
    if args.report:
        with open(args.report, encoding="utf-8") as f:
            return print(bench_report.report(json.load(f)))
    bench = Bench(args)
    bench.parts() if args.parts else bench.images()
    print(bench_report.report(bench.raw))
    if bench.raw["failures"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
