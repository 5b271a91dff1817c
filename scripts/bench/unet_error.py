"""Measures the numerical error of a model in each precision, against ONNX Runtime in float32 or torch in float64: of one
guided evaluation of the UNet, of the latents at every step, and of a decoding.

    cargo build --release
    python scripts/bench/unet_error.py                        # sd15 at 512x512, 20 guided Euler steps: half an hour
    python scripts/bench/unet_error.py --steps 0              # one evaluation only
    python scripts/bench/unet_error.py --reference float64 --every 20   # whose rounding it is: ONNX Runtime is a row too
    python scripts/bench/unet_error.py --model tiny --json errors.json

Engines are those of scripts/bench/bench.py that have a precision of their own: ours, ours-bf16, ours-int8, openvino, openvino-float32. ort is the
reference, or with `--reference float64` torch; what it computes stays in --work and is used again. The models are those of bench.py too.

Every engine starts from the same noise. The evaluation is at timestep 501. A program of ours gives latents only, so both rows of
its evaluation are computed from two runs of one step, of guidance 2 and 3; the row "ort, from latents" is the reference through
the same arithmetic, which is the least error that can be seen. The latents at every step are those of runs that go from
`denoising_start` to `denoising_end`, each from the latents of the one before, which changes no bit of them. A decoding of ours
gives 8-bit pixels; each is compared with the reference's decoding of the same latents.

Relative L2: the norm of the difference by that of the reference. Largest: the largest difference by the largest value.
"""

import argparse
import gc
import os
import sys

import numpy as np

import bench_engines
import bench_model
import bench_peers
import bench_process
from bench_engines import Engines, write_json
from bench_report import table

TIMESTEP = 501
VAE_SCALE = np.float32(0.18215)


def say(text):
    print(text, file=sys.stderr, flush=True)


def error(found, reference):
    """Relative L2 and the largest difference by the largest value."""
    apart = found.astype(np.float64) - reference
    return {
        "l2": float(np.linalg.norm(apart) / np.linalg.norm(reference)),
        "largest": float(abs(apart).max() / abs(reference).max()),
    }


def pixels(decoded):
    return (np.clip(decoded / 2 + 0.5, 0, 1) * 255).round()


def psnr(found, reference):
    noise = float(((found - reference) ** 2).mean())
    return 10 * np.log10(255**2 / noise) if noise else None


class Peer:
    """ONNX Runtime, OpenVINO or torch, a graph at a time."""

    def __init__(self, name, job):
        engines = {**bench_peers.BARE, "float64": bench_peers.TorchFloat64}
        self.engine, self.job, self.shapes = engines[name], job, bench_peers.sizes(job)

    def call(self, part, given):
        """The output for each of the inputs in `given`."""
        graphs = self.engine(self.job["model"])
        run = graphs.open(part, self.shapes[part])
        out = [run(inputs) for inputs in given]
        self.precision = graphs.precision
        del run
        gc.collect()
        return out

    def denoise(self, states, noise):
        """Both rows of the evaluation, and the latents after each step."""
        graphs = self.engine(self.job["model"])
        run = graphs.open("unet", self.shapes["unet"])
        self.precision = graphs.precision

        def rows(sample, t):
            return run({"sample": np.concatenate([sample] * 2), "timestep": np.array(t, np.float32), "encoder_hidden_states": states})

        evaluation, trajectory = rows(noise, TIMESTEP), []
        if self.job["steps"]:
            scheduler = bench_peers.Euler(self.job["model"], self.job["steps"])
            x = noise * scheduler.initial
            for i, t in enumerate(scheduler.timesteps):
                without, told = np.split(rows(scheduler.scaled(i, x), t), 2)
                x = scheduler.step(i, without + np.float32(self.job["guidance"]) * (told - without), x)
                trajectory.append(x)
        del run
        gc.collect()
        return evaluation, trajectory


def sigma(model):
    """The noise level at TIMESTEP, by which the first sample is scaled too."""
    scheduler = bench_peers.Euler(model, 1000)
    return float(scheduler.sigmas[list(scheduler.timesteps).index(TIMESTEP)])


def rows_of(guided, noise, level):
    """Both rows of an evaluation from the latents after one step to sigma 0 of guidance 2 and 3."""
    start = noise.astype(np.float64) * np.sqrt(level**2 + 1)
    two, three = ((start - latents) / level for latents in guided)
    apart = three - two
    return np.concatenate([two - 2 * apart, two - apart])


def through_latents(rows, noise, level):
    """The rows as they come out of float32 latents."""
    without, told = np.split(rows, 2)
    start = (noise * np.sqrt(level**2 + 1)).astype(np.float32)
    guided = [start - np.float32(level) * (without + np.float32(g) * (told - without)) for g in (2, 3)]
    return rows_of(guided, noise, level)


class Ours:
    """A program of ours with its flags."""

    def __init__(self, runs, name, steps, every):
        self.runs, self.name, self.steps, self.every = runs, name, steps, every

    def run(self, steps, begin=None, extra=()):
        measured, images = self.runs.run_ours(self.name, steps, begin=begin, extra=extra)
        self.precision, self.image, self.calls = measured["precision"], images[0]["image"], len(images[0]["steps"])
        return np.load(images[0]["latents"])

    def guided(self, scale):
        extra = ["--set", f"run.timesteps=[{TIMESTEP}]", "--set", f"task.text-to-image.guidance_scale={scale}", "--scheduler", "euler"]
        return self.run(1, extra=extra)

    def trajectory(self):
        """The latents after every `every` steps, by step."""
        found, begin = {}, None
        for at in range(0, self.steps, self.every):
            end = min(at + self.every, self.steps)
            extra = ["--set", f"run.denoising_start={at / self.steps}"] if at else []
            extra += ["--set", f"run.denoising_end={end / self.steps}"] if end < self.steps else []
            latents = self.run(self.steps, begin=begin, extra=extra)
            if self.calls != end - at:
                sys.exit(f"unet_error.py: expected {end - at} evaluations from step {at} to {end}, found {self.calls}")
            begin = os.path.join(self.runs.files, "begin.npy")
            np.save(begin, latents)
            found[end] = latents
        return found


class Errors:
    def __init__(self, args):
        self.args, work = args, os.path.abspath(args.work)
        size = args.size or {"sd15": 512, "tiny": 128}[args.model]
        self.model, self.files = os.path.join(work, "models", args.model), os.path.join(work, "runs")
        os.makedirs(self.files, exist_ok=True)
        bench_model.build(args.model, self.model)
        self.job = {"model": self.model, "size": size, "steps": args.steps, "prompt": bench_engines.PROMPT, "guidance": 7.5}
        self.noise = np.random.default_rng(0).standard_normal((1, 4, size // 8, size // 8)).astype(np.float32)
        path = os.path.join(self.files, f"noise-{size}.npy")
        np.save(path, self.noise)
        self.runs = Engines(args, work, self.model, size, path)
        self.level = sigma(self.model)
        self.kept = os.path.join(self.files, f"reference-{args.reference}-{args.model}-{size}-{args.steps}.npz")

    def reference(self):
        if not os.path.exists(self.kept):
            say("reference")
            states = Peer("ort", self.job).call("text_encoder", [{"input_ids": bench_peers.tokens(self.job)}])[0]
            peer = Peer(self.args.reference, self.job)
            evaluation, steps = peer.denoise(states, self.noise)
            latents = steps[-1] if steps else self.noise * VAE_SCALE
            decoded = peer.call("vae_decoder", [{"latent_sample": latents / VAE_SCALE}])[0]
            np.savez(self.kept, states=states, evaluation=evaluation, steps=np.array(steps), latents=latents, decoded=decoded)
        return np.load(self.kept)

    def peer(self, name, known):
        peer = Peer(name, self.job)
        evaluation, steps = peer.denoise(known["states"], self.noise)
        latents = known["latents"].astype(np.float32) / VAE_SCALE
        decoded = peer.call("vae_decoder", [{"latent_sample": latents}])[0]
        return {
            "precision": peer.precision,
            "evaluation": error(evaluation, known["evaluation"]),
            "steps": {i + 1: error(x, known["steps"][i]) for i, x in enumerate(steps)},
            "decoded": error(decoded, known["decoded"]),
            "pixels": error(pixels(decoded) - 127.5, pixels(known["decoded"]) - 127.5),
            "psnr": psnr(pixels(decoded), pixels(known["decoded"])),
        }

    def ours(self, name, known):
        from PIL import Image

        ours = Ours(self.runs, name, self.args.steps, self.args.every)
        guided = [ours.guided(2), ours.guided(3)]
        rows, latents = rows_of(guided, self.noise, self.level), guided[1]
        found = {"precision": ours.precision, "evaluation": error(rows, known["evaluation"]), "steps": {}}
        if self.args.steps:
            steps = ours.trajectory()
            found["steps"] = {end: error(x, known["steps"][end - 1]) for end, x in steps.items()}
            latents = steps[self.args.steps]
        image = np.asarray(Image.open(ours.image).convert("RGB")).astype(float).transpose(2, 0, 1)[None]
        wanted = pixels(Peer("ort", self.job).call("vae_decoder", [{"latent_sample": latents / VAE_SCALE}])[0])
        return {**found, "pixels": error(image - 127.5, wanted - 127.5), "psnr": psnr(image, wanted)}

    def measure(self):
        known, out = self.reference(), {}
        floor = through_latents(known["evaluation"], self.noise, self.level)
        out[f"{self.args.reference}, from latents"] = {"precision": "float32", "evaluation": error(floor, known["evaluation"]), "steps": {}}
        present, absent = self.runs.there()
        for name in present:
            if name != self.args.reference and (name in self.runs.ours or name in bench_peers.BARE):
                say(name)
                try:
                    out[name] = self.ours(name, known) if name in self.runs.ours else self.peer(name, known)
                except bench_process.Failed as e:
                    absent[name] = str(e)
        return {"heading": bench_process.instruction_sets(), "job": self.job, "reference": self.args.reference, "engines": out, "absent": absent}


def report(raw):
    def cells(found):
        return [f"{found['l2']:.1e}", f"{found['largest']:.1e}"] if found else ["–", "–"]

    steps, rows = raw["job"]["steps"], []
    for name, e in raw["engines"].items():
        last = e["steps"].get(steps)
        decoded = [f"{e['psnr']:.1f}" if e.get("psnr") else "–"]
        rows.append([name, e["precision"], *cells(e["evaluation"]), *cells(last), *cells(e.get("decoded")), *cells(e.get("pixels")), *decoded])
    head = ["engine", "precision", "evaluation, relative L2", "largest", f"latents after {steps} steps, relative L2", "largest"]
    head += ["decoding, relative L2", "largest", "its 8-bit pixels, relative L2", "largest", "PSNR, dB"]
    size = raw["job"]["size"]
    reference = {"ort": "ONNX Runtime in float32", "float64": "torch in float64"}[raw["reference"]]
    text = f"Against {reference}, {size}×{size}. Instruction sets: {' '.join(raw['heading'])}.\n\n" + table(head, rows)
    engines = [n for n, e in raw["engines"].items() if e["steps"]]
    if engines:
        told = sorted({at for n in engines for at in raw["engines"][n]["steps"]})
        rows = [[str(at), *[f"{raw['engines'][n]['steps'][at]['l2']:.1e}" if at in raw["engines"][n]["steps"] else "–" for n in engines]] for at in told]
        text += "\nLatents after each step, relative L2:\n\n" + table(["step", *engines], rows)
    return text + "".join(f"\nNot measured: {name} ({why})." for name, why in raw["absent"].items())


def main():
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default=os.path.join(cache, "ldm-ort-bench"), help="models and results (default %(default)s)")
    p.add_argument("--model", choices=["sd15", "tiny"], default="sd15")
    p.add_argument("--size", type=int, help="width and height in pixels (default 512, tiny 128)")
    p.add_argument("--steps", type=int, default=20, help="guided Euler steps, a divisor of 1000; 0 for the evaluation alone")
    p.add_argument("--every", type=int, default=1, help="ours: the latents after every so many steps (default 1)")
    p.add_argument("--reference", choices=["ort", "float64"], default="ort", help="what errors are measured against (default ort)")
    p.add_argument("--only", type=lambda t: t.split(","), help="engines, with commas: ours,ours-bf16,ours-int8,openvino,openvino-float32")
    p.add_argument("--ldm-ort", action="append", metavar="[NAME=]PROGRAM [FLAGS]", help="as for bench.py")
    p.add_argument("--own-runtime", action="store_true", help="ours takes the ONNX Runtime that it finds itself")
    p.add_argument("--nice", type=int, default=0, help="priority of our programs")
    p.add_argument("--limit", type=float, default=3600, help="seconds after which a run is ended")
    p.add_argument("--json", metavar="FILE", help="raw figures go here")
    args = p.parse_args()
    if args.steps < 0 or args.steps and 1000 % args.steps or args.every < 1:
        p.error("--steps is 0 or a divisor of 1000, --every 1 or more")
    raw = Errors(args).measure()
    if args.json:
        write_json(args.json, raw)
    print(report(raw))


if __name__ == "__main__":
    main()
