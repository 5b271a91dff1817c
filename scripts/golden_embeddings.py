#!/usr/bin/env python3
"""Makes those cases of tests/golden/pipelines that have words of a user's own (textual inversion).

Run from the root of the repository, after scripts/make_fixtures.py and with the same packages as
scripts/golden_pipelines.py, whose cases these stand beside and whose form they have:

    python scripts/golden_embeddings.py [NAME...]

The reference is diffusers' StableDiffusionPipeline after load_textual_inversion of the same files.
"""

import copy
import json
import os
import shutil
import sys
import warnings

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from safetensors.torch import save_file
from transformers import CLIPTokenizerFast

from golden_pipelines import ROOT, scheduler_of, toml_value
from make_fixtures import ROOT as MODELS
from make_fixtures import models

# Each file: name, the name of its tensor, how many vectors, element type, and the word where the pipeline gives one.
CAT = ("cat.safetensors", "<cat-toy>", 1, torch.float32, None)
STYLE = ("moody-style.safetensors", "emb_params", 3, torch.float16, None)
NAMED = ("third.safetensors", "emb_params", 2, torch.float32, "zwx")

CASES = {
    "embedding": ("a <cat-toy> above a <CAT-TOY>", "", [CAT], 160),
    "embedding-vectors": ("a red circle, moody-style", "zwx", [STYLE, NAMED], 161),
    "embedding-beside-text": ("a <cat-toy>, moody-style blue square zwx", "blurry", [CAT, STYLE, NAMED], 162),
    "embedding-cut": ("a red circle above a blue square, a small moody-style " * 2, "", [STYLE], 163),
}


def write_files(folder, files):
    for name, tensor, count, dtype, _ in files:
        generator = torch.Generator().manual_seed(sum(name.encode()))
        vectors = (torch.randn(count, 16, generator=generator) * 0.4).to(dtype)
        save_file({tensor: vectors}, f"{folder}/{name}")


def pipeline_toml(prompt, negative, files, seed):
    tables = [("[model]", {"path": "../../../fixtures/models/sd1"})]
    tables.append(("[task.text-to-image]", {"prompt": prompt, "negative_prompt": negative}))
    for name, _, _, _, token in files:
        tables.append(("[[embedding]]", {"path": name} | ({"token": token} if token else {})))
    tables.append(("[run]", {"steps": 4, "seed": seed, "width": 64, "height": 64}))
    return "\n".join(h + "\n" + "".join(f"{k} = {toml_value(v)}\n" for k, v in t.items()) for h, t in tables)


def draw(parts, folder, prompt, negative, files, seed):
    scheduler, _ = scheduler_of({"model": "sd1", "scheduler": None})
    pipe = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=copy.deepcopy(parts["text_encoder"]),
        tokenizer=CLIPTokenizerFast.from_pretrained(f"{MODELS}/sd1/tokenizer"),
        unet=parts["unet"],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    for name, tensor, _, _, token in files:
        word = token or (tensor if tensor != "emb_params" else name.removesuffix(".safetensors"))
        pipe.load_textual_inversion(folder, weight_name=name, token=word, local_files_only=True)
    latents = pipe(
        prompt=prompt,
        negative_prompt=negative,
        num_inference_steps=4,
        generator=torch.Generator("cpu").manual_seed(seed),
        width=64,
        height=64,
        output_type="latent",
    ).images
    decoded = parts["vae"].decode(latents / parts["vae"].config.scaling_factor, return_dict=False)[0]
    return latents.numpy(), (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def main(only):
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    parts = models()["sd1"]
    for name, (prompt, negative, files, seed) in CASES.items():
        if only and name not in only:
            continue
        folder = f"{ROOT}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        write_files(folder, files)
        with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
            f.write(pipeline_toml(prompt, negative, files, seed))
        with torch.no_grad():
            latents, pictures = draw(parts, folder, prompt, negative, files, seed)
        with open(f"{folder}/case.json", "w") as f:
            json.dump({"rel": 1e-5, "levels": 1}, f, sort_keys=True)
            f.write("\n")
        np.save(f"{folder}/latents.npy", latents.astype(np.float32))
        for i, p in enumerate(pictures):
            Image.fromarray((p * 255).round().astype(np.uint8)).save(f"{folder}/image-{i}.png", optimize=True)
        print(f"{name:26} latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
