"""Shared code of the golden_*.py scripts for pipelines: one folder per case, and its contents.

A case's folder has pipeline.toml, what that takes, case.json (the tolerances), latents.npy (the final latents in float32,
before the division by the scaling factor) and, where pictures are compared too, image-N.png (of four pixels one, see `quarter`).
"""

import json
import os
import shutil

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPTokenizerFast

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_pipelines import quarter, scheduler_of, toml_value
from make_fixtures import ROOT as MODELS


def folders(root, cases, only):
    """Each case that is asked for, with an empty folder: (name, case, folder)."""
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    for name, spec in cases.items():
        if only and name not in only:
            continue
        folder = f"{root}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        yield name, spec, folder


def toml(tables):
    """The text of a pipeline file: pairs of a header such as "[run]" and the keys below it."""
    return "\n".join(h + "\n" + "".join(f"{k} = {toml_value(v)}\n" for k, v in keys.items()) for h, keys in tables)


def write_toml(folder, text):
    with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
        f.write(text)


def write(folder, latents, pictures=(), **limits):
    """Writes what was drawn: latents [n, c, h, w], pictures [n, h, w, 3] in [0, 1], and how far off others may be."""
    with open(f"{folder}/case.json", "w") as f:
        json.dump(limits, f, sort_keys=True)
        f.write("\n")
    np.save(f"{folder}/latents.npy", latents.astype(np.float32))
    for i, p in enumerate(pictures):
        Image.fromarray(quarter((p * 255).round().astype(np.uint8))).save(f"{folder}/image-{i}.png", optimize=True)


def decoded(vae, latents):
    """Pictures [n, h, w, 3] in [0, 1] of latents [n, c, h, w]."""
    pictures = vae.decode(latents / vae.config.scaling_factor, return_dict=False)[0]
    return (pictures / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def stable_diffusion(parts, model="sd1", scheduler=None):
    """diffusers' pipeline of one of the tiny models of make_fixtures.py."""
    pipe = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=CLIPTokenizerFast.from_pretrained(f"{MODELS}/{model}/tokenizer"),
        unet=parts["unet"],
        scheduler=scheduler_of({"model": model, "scheduler": scheduler})[0],
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe
