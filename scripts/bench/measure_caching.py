#!/usr/bin/env python3
"""Measures what fewer evaluations of the model cost and save, on models/shapes: the table of docs/fewer-evaluations.md.

Run from the root of the repository, after `cargo build --release`, with nothing else running:

    python scripts/bench/measure_caching.py [ldm-ort]

Each setting draws the same eight images, 20 steps of the model's own scheduler under guidance 3. A line of the table: the
mean of the evaluations made of a full run's; the mean seconds of a image, from its prompt to its pixels without opening the
model, and as a share of a full run's, which is timed before and after; the mean and the least PSNR against the images
of the full run, and the mean SSIM, as `ldm-ort run --compare` has them.
"""

import json
import os
import subprocess
import sys
import tempfile

import numpy as np
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

PROMPTS = [
    "a small yellow star to the left of a blue circle on a white background",
    "a red circle on a white background",
    "a large green square above a small red triangle on a black background",
    "a purple triangle on a yellow background",
    "a blue square to the left of a green triangle on a white background",
    "a white star below an orange circle on a blue background",
    "a large black circle on a green background",
    "a small orange square to the right of a purple star on a black background",
]
SETTINGS = [
    {"guidance_interval": [0.0, 0.5]},
    {"guidance_interval": [0.0, 0.3]},
    {"guidance_interval": [0.1, 0.6]},
    {"easycache": {}},
    {"easycache": {"threshold": 0.1}},
    {"easycache": {"threshold": 0.2}},
    {"easycache": {"threshold": 0.4}},
    {"ucache": {"threshold": 0.5}},
    {"ucache": {}},
    {"ucache": {"threshold": 2.0}},
    {"spectrum": {}},
    {"spectrum": {"w": 0.0}},
    {"spectrum": {"w": 1.0}},
    {"spectrum": {"warmup": 8}},
    {"guidance_interval": [0.0, 0.5], "easycache": {"threshold": 0.2}},
    {"guidance_interval": [0.0, 0.5], "ucache": {}},
    {"guidance_interval": [0.0, 0.5], "spectrum": {}},
    {"guidance_interval": [0.0, 0.3], "easycache": {"threshold": 0.2}},
    {"guidance_interval": [0.0, 0.3], "ucache": {}},
    {"guidance_interval": [0.0, 0.3], "spectrum": {}},
    {"spectrum": {"warmup": 4, "flex": 2.0}},
    {"guidance_interval": [0.0, 0.5], "spectrum": {"warmup": 4, "flex": 2.0}},
    {"guidance_interval": [0.0, 0.5], "easycache": {"threshold": 0.4}},
    {"ucache": {"threshold": 4.0}},
    {"guidance_interval": [0.0, 0.6], "spectrum": {"warmup": 4, "flex": 2.0}},
    {"guidance_interval": [0.0, 0.6], "ucache": {"threshold": 4.0}},
    {"spectrum": {"warmup": 3, "flex": 2.0}},
    {"guidance_interval": [0.0, 0.6], "spectrum": {"warmup": 4, "flex": 1.5, "stop": 1.0}},
    {"guidance_interval": [0.0, 0.7], "spectrum": {"warmup": 4, "flex": 3.0, "stop": 1.0}},
    {"guidance_interval": [0.0, 0.6], "spectrum": {"warmup": 3, "flex": 3.0, "stop": 1.0}},
    {"deepcache": {"interval": 2}},
    {"deepcache": {}},
    {"deepcache": {"branch": 1}},
    {"deepcache": {"branch": 2}},
    {"deepcache": {"interval": 2, "start": 0.3}},
    {"deepcache": {"start": 0.4}},
    {"deepcache": {"interval": 4, "start": 0.3}},
    {"deepcache": {"interval": 4, "start": 0.4}},
    {"deepcache": {"interval": 4, "branch": 1, "start": 0.4}},
    {"deepcache": {"interval": 8, "branch": 1, "start": 0.4}},
    {"guidance_interval": [0.0, 0.7], "deepcache": {}},
    {"guidance_interval": [0.0, 0.7], "deepcache": {"interval": 4, "start": 0.4}},
    {"guidance_interval": [0.0, 0.6], "deepcache": {"interval": 4, "branch": 1, "start": 0.3}},
]


def toml(value):
    return json.dumps(value)


def pipeline(setting):
    text = f'[model]\npath = "{os.path.abspath("models/shapes")}"\n\n[task.text-to-image]\nprompt = {toml(PROMPTS)}\n'
    text += "guidance_scale = 3.0\n"
    text += "".join(f"{k} = {toml(v)}\n" for k, v in setting.items() if k == "guidance_interval")
    for name in setting.keys() - {"guidance_interval"}:
        text += f"\n[cache.{name}]\n" + "".join(f"{k} = {toml(v)}\n" for k, v in setting[name].items())
    return text + "\n[run]\nsteps = 20\nseed = 1000\nimages = 1\n"


def named(setting):
    """The setting in words; a key alone stands for its defaults."""
    words = []
    for name, value in setting.items():
        if name == "guidance_interval":
            words.append(f"interval {value}")
        else:
            words.append(" ".join([name] + [f"{k} {v}" for k, v in value.items()]))
    return ", ".join(words)


def draw(program, setting, folder):
    """The objects of `--json` of the images, which are in `folder`."""
    with open(f"{folder}/pipeline.toml", "w") as file:
        file.write(pipeline(setting))
    command = [program, "run", "--json", "--quiet", f"{folder}/pipeline.toml", "--output", folder]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    rows = [json.loads(line) for line in lines]
    for row in rows:
        row["pixels"] = np.asarray(Image.open(row["path"]).convert("RGB"))
    return rows


def likeness(row, other):
    one, two = row["pixels"], other["pixels"]
    ssim = structural_similarity(
        one, two, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
    )
    return (peak_signal_noise_ratio(one, two, data_range=255) if (one != two).any() else 100.0), ssim


def mean(values):
    return sum(values) / len(values)


def main(program):
    print("| setting | evaluations | seconds | of the full run's | PSNR, dB | least | SSIM |")
    print("|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        full = draw(program, {}, folder)
        before = mean([row["seconds"] for row in full])
        print(f"| all | 40 of 40 | {before:.2f} | 1 | | | |")
        for setting in SETTINGS:
            rows = draw(program, setting, folder)
            # The machine's load changes; the full run is timed before and after.
            after = mean([row["seconds"] for row in draw(program, {}, folder)])
            told = lambda key: mean([row["fewer_evaluations"].get(key, 0) for row in rows])
            made, outer, of = told("made"), told("outer"), told("of")
            beside = f" and {outer:.4g} outer" if outer else ""
            seconds, of_full = mean([row["seconds"] for row in rows]), mean([before, after])
            psnr, ssim = zip(*(likeness(row, other) for row, other in zip(rows, full)))
            before = after
            print(
                f"| {named(setting)} | {made:.4g} of {of:.0f}{beside} | {seconds:.2f} | {seconds / of_full:.2f} "
                f"| {mean(psnr):.1f} | {min(psnr):.1f} | {mean(ssim):.3f} |",
                flush=True,
            )


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "target/release/ldm-ort")
