#!/usr/bin/env python3
"""Makes tests/golden/stages: pipelines of several models in a row, and what diffusers draws with them.

Run from the root of the repository, after scripts/make_families.py and with the same packages:

    python scripts/golden_stages.py [NAME...]

A case is a folder like those of scripts/golden_families.py. The reference is one PyTorch pipeline of diffusers after the
other, in float32 on the CPU: what one gives is handed to the next, as latents or as an 8-bit picture, and each is called
with a fresh torch.Generator("cpu").manual_seed(seed + i). latents.npy and the pictures are those of the last.
"""

import json
import os
import shutil
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

from golden_families import ASTRONAUT, CIRCLE
from golden_pipelines import toml_value
from golden_systems import hole
from make_families import pipelines, tiny_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "golden", "stages")


def stage(family, task, keys, run, hand=None):
    """`keys` are those of the task's table and `run` those of [run]; `hand` is how the stage is handed what the one before
    made."""
    return locals()


CASES = {
    "refine": (
        400,
        2,
        stage(
            "xl",
            "text-to-image",
            {"prompt": ASTRONAUT, "negative_prompt": "blurry", "guidance_scale": 5.0},
            {"steps": 10, "denoising_end": 0.8},
        ),
        stage("refiner", "image-to-image", {"guidance_scale": 4.0}, {"steps": 10, "denoising_start": 0.8}, "latents"),
    ),
    "refine-picture": (
        410,
        1,
        stage("xl", "text-to-image", {"prompt": CIRCLE, "guidance_scale": 5.0}, {"steps": 4}),
        stage("refiner", "image-to-image", {"guidance_scale": 5.0, "strength": 0.5}, {"steps": 6}, "image"),
    ),
    "upscale": (
        420,
        2,
        stage(
            "xl",
            "text-to-image",
            {"prompt": CIRCLE, "guidance_scale": 5.0},
            {"steps": 4, "width": 24, "height": 16},
        ),
        stage("upscale", "super-resolution", {"guidance_scale": 4.0, "noise_level": 20}, {"steps": 5}, "image"),
    ),
    "three": (
        430,
        1,
        stage("lcm", "text-to-image", {"prompt": CIRCLE, "guidance_scale": 8.5}, {"steps": 3}),
        stage("instruct", "instruct", {"prompt": "turn the circle blue", "guidance_scale": 6.0}, {"steps": 4}, "image"),
        stage("inpaint", "inpaint", {"mask": "mask.png", "strength": 1.0}, {"steps": 4}, "image"),
    ),
}


def table(header, keys):
    return [f"[{header}]"] + [f"{k} = {toml_value(v)}" for k, v in keys.items()] + [""]


def pipeline_toml(seed, images, stages):
    lines = []
    for at, s in enumerate(stages):
        within = "stage." if at else ""
        # What is handed to "refine-picture" could be latents too, and the others say nothing that the plan does not choose.
        told = s["hand"] == "image" and s["task"] == "image-to-image"
        lines += ["[[stage]]"] + ['hand = "image"'] * told + [""] if at else []
        lines += table(within + "model", {"path": f"../../../fixtures/families/{s['family']}"})
        lines += table(f"{within}task.{s['task']}", s["keys"])
        lines += table(within + "run", s["run"] | ({} if at else {"seed": seed, "images": images}))
    return "\n".join(lines[:-1]) + "\n"


def draw(pipe, s, inherited, handed, seed, folder):
    """One picture's latents and pixels, [1, c, h, w] and an 8-bit picture."""
    keys = inherited | s["keys"]
    if "mask" in keys:
        keys["mask_image"] = Image.open(f"{folder}/{keys.pop('mask')}")
    if handed is not None:
        keys["image"] = handed
    run = {k: v for k, v in s["run"].items() if k != "steps"}
    generator = torch.Generator("cpu").manual_seed(seed)
    steps = s["run"]["steps"]
    latents = pipe(num_inference_steps=steps, generator=generator, output_type="latent", **keys, **run).images
    decoded = pipe.vae.decode(latents / pipe.vae.config.scaling_factor, return_dict=False)[0]
    picture = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()[0]
    return latents, Image.fromarray((picture * 255).round().astype(np.uint8))


def main(only):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as temp:
        built = pipelines(tiny_tokenizer(temp))
        for name, (seed, images, *stages) in CASES.items():
            if only and name not in only:
                continue
            folder = f"{ROOT}/{name}"
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
                f.write(pipeline_toml(seed, images, stages))
            if any("mask" in s["keys"] for s in stages):
                hole(32, 32).save(f"{folder}/mask.png")
            pipes = [built[s["family"]]() for s in stages]
            for pipe in pipes:
                pipe.set_progress_bar_config(disable=True)
            inherited = {k: v for k, v in stages[0]["keys"].items() if k in ("prompt", "negative_prompt")}
            all_latents = []
            for i in range(images):
                handed = None
                for pipe, s, after in zip(pipes, stages, [*stages[1:], None]):
                    latents, picture = draw(pipe, s, inherited, handed, seed + i, folder)
                    handed = latents if after and after["hand"] == "latents" else picture
                all_latents.append(latents)
                picture.save(f"{folder}/image-{i}.png", optimize=True)
            latents = torch.cat(all_latents).numpy().astype(np.float32)
            np.save(f"{folder}/latents.npy", latents)
            with open(f"{folder}/case.json", "w") as f:
                json.dump({"levels": 1, "rel": 1e-5}, f, sort_keys=True)
                f.write("\n")
            print(f"{name:18} {images} of {picture.size}, latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
