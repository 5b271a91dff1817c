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

Engines: ours (float32), ours-bf16 and ours-int8 where the build and the CPU have them, and of the peers (scripts/bench/bench_peers.py) those
that are installed: ort, openvino (in its default precision), openvino-float32, optimum, diffusers.
Their models (random weights, scripts/bench/bench_model.py) are built in --work when they are not there: 8.5 GB for sd15. shapes is
models/shapes, with ours and optimum only.

All that use ONNX Runtime use the library of the onnxruntime package: ours is told by ORT_DYLIB_PATH, unless
--own-runtime. ours is started once with an empty LDM_ORT_CACHE_DIR ("first start"); all other runs find what that left.
All start from the same noise; final latents and images are compared. Linux only.

Raw samples go to --json after every round, so that a benchmark that is broken off leaves those it had. A sample holds wall,
cpu (seconds), peak_rss, peak_anon, peak_file, foreign (share of CPU time), precision, first_step_at (seconds since the process
began), import (ours: finding ONNX Runtime), load, prompt, steps_taken, steps_cpu, decode_s.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np

import bench_model
import bench_process
import bench_report
from bench_engines import Engines, seconds, write_json
from bench_process import Failed, cpu_between, page_cache

SIZES = {"sd15": 512, "tiny": 128, "shapes": 64}
# Pixels a side for one latent.
FACTOR = {"sd15": 8, "tiny": 8, "shapes": 4}


def say(text):
    print(text, file=sys.stderr, flush=True)


class Bench:
    def __init__(self, args):
        self.args, self.work = args, os.path.abspath(args.work)
        self.size = args.size or SIZES[args.model]
        model, files = os.path.join(self.work, "models", args.model), os.path.join(self.work, "runs")
        os.makedirs(files, exist_ok=True)
        try:
            bench_model.build(args.model, model)
        except subprocess.CalledProcessError as e:
            sys.exit(f"bench.py: the model {args.model} could not be built ({e}): are scripts/requirements.txt installed?")
        noise, side = os.path.join(files, f"noise-{self.size}.npy"), self.size // FACTOR[args.model]
        np.save(noise, np.random.default_rng(0).standard_normal((1, 4, side, side)).astype(np.float32))
        self.runs = Engines(args, self.work, model, self.size, noise)
        self.ours = self.runs.ours
        self.engines, absent = self.runs.there()
        if not self.engines:
            sys.exit("bench.py: none of the engines is there: " + "; ".join(f"{k}: {v}" for k, v in absent.items()))
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

    def heading(self):
        with open("/proc/cpuinfo", encoding="utf-8") as f:
            cpu = next((line.split(":")[1].strip() for line in f if line.startswith("model name")), platform.machine())
        limits = {k: v for k, v in os.environ.items() if k in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA")}
        return {
            "cpu": cpu,
            "cpus": bench_process.CPUS,
            "instruction_sets": bench_process.instruction_sets(),
            "limits": limits,
            "memory_gib": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
            "kernel": f"{platform.system()} {platform.release()}",
            "versions": {k: v for k, v in self.runs.versions.items() if k not in ("end", "python")},
            "date": datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
            "ours": "its own runtime" if self.args.own_runtime or not self.runs.library else "onnxruntime's library",
        }

    def prepare_files(self, name):
        os.sync()  # what an earlier run left to be written is not to disturb this one
        page_cache(self.runs.paths(name), keep=not self.args.cold)

    def turn(self, name, steps, round_, first=False):
        self.prepare_files(name)
        try:
            sample = self.runs.run(name, steps)
            trace, spans = sample.pop("cpu_samples"), sample.pop("steps")
            del sample["decode"]
            sample["steps_taken"] = [seconds(s) for s in spans]
            sample["steps_cpu"] = [cpu_between(trace, s) for s in spans]
            sample.update(engine=name, steps=steps, round=round_, first=first, result=self.result(sample))
        except (Failed, ValueError, KeyError, IndexError, OSError) as e:
            return self.failed(name, e)
        others = "" if self.runs.slices else f", foreign {100 * sample['foreign']:.0f} %"
        say(f"  {name}: {sample['wall']:.1f} s{others}")
        return sample

    def at_once(self, steps, round_):
        """A turn of every engine, all begun together and run in slices. What they tell of their own time holds the others'."""
        self.runs.slices = bench_process.Slices(self.args.slices, len(self.engines))
        self.runs.slices.start()
        foreign = bench_process.Foreign()
        with ThreadPoolExecutor(len(self.engines)) as pool:
            turns = list(pool.map(lambda name: self.turn(name, steps, round_), self.engines))
        self.runs.slices = None
        told = [turn for turn in turns if turn]
        share = foreign.share(sum(turn["cpu"] for turn in told))
        for turn in told:
            turn.update(foreign=share, load=None, prompt=None, first_step_at=None, decode_s=None, steps_taken=[], steps_cpu=[])
        return turns

    def failed(self, name, error):
        say(f"  {name} failed: {error!r}")
        self.raw["failures"].append({"engine": name, "why": str(error) or repr(error)})
        return None

    @staticmethod
    def result(sample):
        from PIL import Image

        return np.load(sample.pop("latents")), np.asarray(Image.open(sample.pop("image")).convert("RGB")).astype(int)

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
                shutil.rmtree(self.runs.cache(name), ignore_errors=True)
                os.makedirs(self.runs.cache(name))
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
        job = os.path.join(self.runs.files, "flops.json")
        write_json(job, {"model": self.runs.model, "size": self.size})
        try:
            self.raw["flops"] = self.runs.peer(["flops", job])
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
                    block = self.part(name)
                except (Failed, ValueError, KeyError, IndexError) as e:
                    self.failed(name, e)
                    continue
                self.raw["parts"].append({**block, "engine": name, "round": round_, "sgemm": rates})
                times = {key: [round(t, 2) for t in block[key]] for key in ("unet", "decode")}
                say(f"  {name}: {times['unet']} {times['decode']} foreign {100 * block['foreign']:.0f} %")
                self.keep()

    def part(self, name):
        block = self.runs.parts(name, self.args.samples)
        trace = block.pop("cpu_samples")
        for key in ("unet", "decode"):
            first, *spans = block[key]
            block[key + "_first"] = seconds(first)
            block[key], block[key + "_cpu"] = [seconds(s) for s in spans], [cpu_between(trace, s) for s in spans]
        return block


def sgemm(n):
    """GFLOP/s of three products of square matrices."""
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
    p.add_argument("--work", default=os.path.join(cache, "ldm-ort-bench"), help="models, images and caches (default %(default)s)")
    p.add_argument("--model", choices=bench_model.MODELS, default="sd15")
    p.add_argument("--steps", type=int, nargs="+", default=[4, 20])
    p.add_argument("--size", type=int, help="width and height in pixels (default 512, tiny 128)")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--only", type=lambda t: t.split(","), help="engines, with commas: ours,ours-bf16,ours-int8,ort,openvino,openvino-float32,optimum,diffusers")
    p.add_argument("--base", help="the engine that others are compared with (default ours)")
    p.add_argument("--ldm-ort", action="append", metavar="[NAME=]PROGRAM [FLAGS]", help="default target/release/ldm-ort, and the same with --precision bf16 as ours-bf16, with int8 as ours-int8; several times: several forms of ours, each of a name")
    p.add_argument("--own-runtime", action="store_true", help="ours takes the ONNX Runtime that it finds itself")
    p.add_argument("--first-starts", type=int, default=1, help="how many starts of ours with nothing cached (default 1); 0 takes the cache as the last benchmark left it")
    p.add_argument("--slices", type=float, metavar="SECONDS", help="all engines at once, one of them running at a time, in turns of so many seconds: for machines whose speed changes. Whole processes only; takes the memory of all")
    p.add_argument("--cold", action="store_true", help="drops the model's files from the page cache before every run")
    p.add_argument("--nice", type=int, default=0, help="priority of this session and of the processes measured, such as -10 (needs root)")
    p.add_argument("--limit", type=float, default=3600, help="seconds after which a run is ended")
    p.add_argument("--parts", action="store_true", help="single evaluations and decodings instead of whole images")
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
    if args.nice:
        bench_process.set_priority(os.getpid(), args.nice)
    bench = Bench(args)
    bench.parts() if args.parts else bench.images()
    print(bench_report.report(bench.raw))
    if bench.raw["failures"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
