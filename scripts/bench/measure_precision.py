#!/usr/bin/env python3
"""Measures what a precision changes in images of models/shapes: PSNR and SSIM against float32, and the judge's scores.

Run from the root of the repository, after `cargo build --release`:

    python scripts/bench/measure_precision.py                             # target/release/ldm-ort, bf16
    python scripts/bench/measure_precision.py --precision bf16 --program target/debug/ldm-ort
    python scripts/bench/measure_precision.py --count 8                   # fewer prompts a test, for a quick look

Both precisions make the images of scripts/train/judge_shapes.py (200 prompts of one object, 200 of two, seeds of its own, 20 steps,
guidance 3). Images are compared over 64 prompts, the first 32 of each test, as 8-bit RGB; the judge scores all of them. OpenVINO
is measured the same way where it is installed, in its default precision against its own float32, with diffusers' scheduler and the
same noise.
"""

import argparse
import json
import os
import pathlib
import sys
from statistics import median

import numpy as np
from PIL import Image

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "train"))

import judge_shapes
from bench_process import instruction_sets
from measure_caching import likeness, mean

SHAPES = pathlib.Path(__file__).resolve().parents[2] / "models" / "shapes"
COMPARED = 32  # of each test
SCORES = {"one": ["colours", "right"], "two": ["right", "right and background"]}


class OpenVino:
    """Draws with OpenVINO's graphs and diffusers' scheduler. `settings` are those of its compiler."""

    def __init__(self, guidance, steps, settings):
        import openvino

        core, self.guidance, self.steps = openvino.Core(), guidance, steps
        self.precision, self.requests = None, {}
        self.tokens = self.config("text_encoder")["max_position_embeddings"]
        for part, shapes in {
            "text_encoder": {"input_ids": [2, self.tokens]},
            "unet": {"sample": [2, 4, 16, 16], "timestep": [2], "encoder_hidden_states": [2, self.tokens, 128]},
            "vae_decoder": {"latent_sample": [1, 4, 16, 16]},
        }.items():
            graph = core.read_model(SHAPES / part / "model.onnx")
            graph.reshape(shapes)
            compiled = core.compile_model(graph, "CPU", settings)
            self.precision = compiled.get_property("INFERENCE_PRECISION_HINT").to_string().replace("f32", "float32")
            self.requests[part] = compiled.create_infer_request()

    @staticmethod
    def config(part):
        return json.loads((SHAPES / part / "config.json").read_text())

    def call(self, part, inputs):
        self.requests[part].infer(inputs)
        return self.requests[part].get_output_tensor(0).data.copy()

    def text(self, prompts, seed):
        import torch
        from diffusers import DDIMScheduler
        from transformers import CLIPTokenizerFast

        tokenizer = CLIPTokenizerFast.from_pretrained(SHAPES / "tokenizer")
        factor = self.config("vae_decoder")["scaling_factor"]
        images = []
        for i, prompt in enumerate(prompts):
            tokens = tokenizer(["", prompt], padding="max_length", max_length=self.tokens, truncation=True, return_tensors="np")
            states = self.call("text_encoder", {"input_ids": tokens["input_ids"].astype(np.int64)})
            scheduler = DDIMScheduler.from_pretrained(SHAPES / "scheduler")
            scheduler.set_timesteps(self.steps)
            x = torch.randn((1, 4, 16, 16), generator=torch.Generator().manual_seed(seed + i)) * scheduler.init_noise_sigma
            for t in scheduler.timesteps:
                both = np.concatenate([x.numpy()] * 2)
                rows = self.call("unet", {"sample": both, "timestep": np.full(2, float(t), np.float32), "encoder_hidden_states": states})
                without, told = torch.from_numpy(rows).chunk(2)
                x = scheduler.step(without + self.guidance * (told - without), t, x).prev_sample
            decoded = self.call("vae_decoder", {"latent_sample": x.numpy() / np.float32(factor)})[0]
            pixels = (np.clip(decoded / 2 + 0.5, 0, 1) * 255).round().astype(np.uint8)
            images.append(Image.fromarray(pixels.transpose(1, 2, 0)))
        return images


def draw(maker, count):
    """The images of both tests, and the judge's scores in percent."""
    images, scores = [], {}
    for test, keys in SCORES.items():
        made, verdicts, _ = judge_shapes.run_test(test, maker, count, judge_shapes.TESTS[test][1])
        images.append(made[:COMPARED])
        scores |= {f"{test}: {key}": judge_shapes.percent(verdicts, key) for key in keys}
    return [np.asarray(image) for made in images for image in made], scores


def line(name, precision, scores, pairs):
    cells = ["–"] * 5
    if pairs:
        psnr, ssim = zip(*pairs)
        cells = [str(len(pairs)), f"{median(psnr):.1f}", f"{min(psnr):.1f}", f"{mean(ssim):.4f}", f"{min(ssim):.4f}"]
    print("| " + " | ".join([name, precision, *(f"{v:.1f}" for v in scores.values()), *cells]) + " |", flush=True)


def compare(name, makers, count):
    """A line for float32, and one for the other precision, held against it. `makers` are pairs of a precision and its maker."""
    reference = None
    for precision, maker in makers:
        images, scores = draw(maker, count)
        pairs = [likeness({"pixels": a}, {"pixels": b}) for a, b in zip(images, reference)] if reference else None
        line(name, precision, scores, pairs)
        reference = reference or images


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--program", default="target/release/ldm-ort", help="default %(default)s")
    p.add_argument("--precision", default="bf16", help="the program's --precision that is held against float32 (default %(default)s)")
    p.add_argument("--count", type=int, default=200, help="prompts a test (default %(default)s)")
    p.add_argument("--guidance", type=float, default=3.0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--only", choices=["ours", "openvino"])
    args = p.parse_args()
    print(f"models/shapes, {args.steps} steps, guidance {args.guidance}. Instruction sets: {' '.join(instruction_sets())}.\n")
    head = ["", "precision", *(f"{test}: {key}, %" for test, keys in SCORES.items() for key in keys)]
    head += ["images compared", "PSNR, dB: median", "least", "SSIM: mean", "least"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    if args.only != "ours":
        try:
            forms = [OpenVino(args.guidance, args.steps, s) for s in ({"INFERENCE_PRECISION_HINT": "f32"}, {})]
            compare("OpenVINO", [(form.precision, form) for form in forms], args.count)
        except ImportError as e:
            print(f"OpenVINO is not measured: {e}", file=sys.stderr)
    if args.only != "openvino":
        program = os.path.abspath(args.program)
        forms = [("float32", []), (args.precision, ["--precision", args.precision])]
        makers = [(name, judge_shapes.Engine(program, SHAPES, args.guidance, 0.0, args.steps, flags)) for name, flags in forms]
        compare("ldm-ort", makers, args.count)


if __name__ == "__main__":
    main()
