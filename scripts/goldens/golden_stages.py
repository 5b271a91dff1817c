#!/usr/bin/env python3
"""Makes tests/golden/stages: pipelines of several models in a row, and what diffusers draws with them.

Run from the root of the repository, after scripts/fixtures/make_families.py and with the same packages:

    python scripts/goldens/golden_stages.py [NAME...]

A case is a folder like those of scripts/goldens/golden_families.py. The reference is one PyTorch pipeline of diffusers after the
other, in float32 on the CPU: what one gives is handed to the next, as latents or as an 8-bit picture, and each is called
with a fresh torch.Generator("cpu").manual_seed(seed + i). latents.npy and the pictures are those of the last.
"""

import os
import sys
import tempfile

import numpy as np
import torch
from PIL import Image

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_case import decoded, folders, toml, write, write_toml
from golden_families import ASTRONAUT, CIRCLE
from golden_systems import hole
from make_families import pipelines, tiny_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "stages")


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
    "refine-image": (
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


def pipeline_toml(seed, images, stages):
    tables = []
    for at, s in enumerate(stages):
        within = "stage." if at else ""
        # Of what could be handed on in both forms the plan takes latents by itself.
        told = {"hand": "image"} if s["hand"] == "image" and s["task"] == "image-to-image" else {}
        tables += [("[[stage]]", told)] if at else []
        tables += [(f"[{within}model]", {"path": f"../../../fixtures/families/{s['family']}"})]
        tables += [(f"[{within}task.{s['task']}]", s["keys"])]
        tables += [(f"[{within}run]", s["run"] | ({} if at else {"seed": seed, "images": images}))]
    return toml(tables)


def draw(pipe, s, inherited, handed, seed, folder):
    """One picture's latents and pixels, [1, c, h, w] and [1, h, w, 3] in [0, 1]."""
    keys = inherited | s["keys"]
    if "mask" in keys:
        keys["mask_image"] = Image.open(f"{folder}/{keys.pop('mask')}")
    if handed is not None:
        keys["image"] = handed
    run = {k: v for k, v in s["run"].items() if k != "steps"}
    generator = torch.Generator("cpu").manual_seed(seed)
    steps = s["run"]["steps"]
    latents = pipe(num_inference_steps=steps, generator=generator, output_type="latent", **keys, **run).images
    return latents, decoded(pipe.vae, latents)


def main(only):
    with tempfile.TemporaryDirectory() as temp:
        built = pipelines(tiny_tokenizer(temp))
        for name, (seed, images, *stages), folder in folders(ROOT, CASES, only):
            write_toml(folder, pipeline_toml(seed, images, stages))
            if any("mask" in s["keys"] for s in stages):
                hole(32, 32).save(f"{folder}/mask.png")
            pipes = [built[s["family"]]() for s in stages]
            for pipe in pipes:
                pipe.set_progress_bar_config(disable=True)
            inherited = {k: v for k, v in stages[0]["keys"].items() if k in ("prompt", "negative_prompt")}
            drawn = []
            for i in range(images):
                handed = None
                for pipe, s, after in zip(pipes, stages, [*stages[1:], {"hand": None}]):
                    latents, picture = draw(pipe, s, inherited, handed, seed + i, folder)
                    as_picture = Image.fromarray((picture[0] * 255).round().astype(np.uint8))
                    handed = latents if after["hand"] == "latents" else as_picture
                drawn.append((latents.numpy(), picture))
            latents, pictures = (np.concatenate(part) for part in zip(*drawn))
            write(folder, latents, pictures, rel=1e-5, levels=1)
            print(f"{name:18} {images} of {as_picture.size}, latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
