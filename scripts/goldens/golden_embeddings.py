#!/usr/bin/env python3
"""Makes those cases of tests/golden/pipelines that have words of a user's own (textual inversion).

Run from the root of the repository, after scripts/fixtures/make_fixtures.py and with the same packages as
scripts/goldens/golden_pipelines.py, whose cases these stand beside and whose form they have:

    python scripts/goldens/golden_embeddings.py [NAME...]

The reference is diffusers' StableDiffusionPipeline after load_textual_inversion of the same files.
"""

import copy
import sys
import warnings

import numpy as np
import torch
from safetensors.torch import save_file

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_case import decoded, folders, stable_diffusion, toml, write, write_toml
from golden_pipelines import ROOT
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
        tables.append(("[[textual_inversion]]", {"path": name} | ({"token": token} if token else {})))
    tables.append(("[run]", {"steps": 4, "seed": seed, "width": 64, "height": 64}))
    return toml(tables)


def draw(parts, folder, prompt, negative, files, seed):
    pipe = stable_diffusion(parts | {"text_encoder": copy.deepcopy(parts["text_encoder"])})
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
    return latents.numpy(), decoded(parts["vae"], latents)


def main(only):
    warnings.filterwarnings("ignore")
    parts = models()["sd1"]
    for name, (prompt, negative, files, seed), folder in folders(ROOT, CASES, only):
        write_files(folder, files)
        write_toml(folder, pipeline_toml(prompt, negative, files, seed))
        latents, pictures = draw(parts, folder, prompt, negative, files, seed)
        write(folder, latents, pictures, rel=1e-5, levels=1)
        print(f"{name:26} latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
