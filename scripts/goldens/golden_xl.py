#!/usr/bin/env python3
"""Makes those cases of tests/golden/families in which Stable Diffusion XL's two text encoders are told in other ways than
plain prompts: LoRAs, weights and long prompts, skipped layers, and words of a user's own.

Run from the root of the repository, after scripts/fixtures/make_families.py and with the packages of scripts/goldens/golden_lora.py:

    python scripts/goldens/golden_xl.py [NAME...]

The reference is diffusers' StableDiffusionXLPipeline on the tiny model of that family, after load_lora_weights and
set_adapters, or load_textual_inversion for each encoder. Weights and chunks are read by the reader of
scripts/goldens/golden_prompts.py, once for each encoder, side by side, with the pooled text of the first chunk.
"""

import copy
import os
import sys
import tempfile
import warnings

import numpy as np
import torch
from safetensors.torch import load_file, save_file

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_case import decoded, folders, toml, write, write_toml
from golden_lora import ATTENTIONS, CONVOLUTIONS, TEXT, make_file
from golden_prompts import LONG, Reader
from make_families import pipelines, tiny_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "families")
CIRCLE = "a red circle above a blue square"

KOHYA = dict(naming="kohya", unet=ATTENTIONS + CONVOLUTIONS[:6], text=TEXT, text_2=TEXT, seed=21)
SGM = dict(naming="sgm", unet=CONVOLUTIONS + ATTENTIONS[:1], text_2=TEXT[:1], rank=1, seed=22)
PEFT = dict(naming="peft", unet=("mid_block.attentions.0",), text=TEXT[:1], text_2=TEXT, rank=3, seed=23)

# Each word: the file, the word, how many vectors.
MOODY = ("moody.safetensors", "<moody>", 2)
CAT = ("cat.safetensors", "<cat-toy>", 1)


def case(seed, prompt=CIRCLE, negative=None, lora=None, keys=None, embeddings=(), images=1, **reading):
    """`lora` is a file's recipe with `keys` beside its path, `reading` are keys of the task on how prompts are read."""
    return locals()


CASES = {
    "xl-lora-kohya": case(500, lora=KOHYA, keys={"scale": 0.8}),
    "xl-lora-sgm": case(501, negative="blurry", lora=SGM, keys={}),
    "xl-lora-peft": case(502, lora=PEFT, keys={"unet_scale": 0.5, "text_encoder_scale": 1.5}),
    "xl-weights": case(510, "a (red:1.4) circle above a [blue] ((square))", "(blurry:0.7)", weights="a1111"),
    "xl-long-prompt": case(511, LONG, "blurry", long_prompts="chunk"),
    "xl-long-weights": case(
        512, f"a (red circle:1.3) BREAK {LONG}", LONG[:40], images=2, weights="a1111", long_prompts="chunk"
    ),
    "xl-clip-skip": case(513, CIRCLE, "blurry", clip_skip=1),
    "xl-embedding": case(520, "a <cat-toy>, <moody>", "<moody>", embeddings=[MOODY, CAT]),
}


def pipeline_toml(spec):
    task = {"prompt": spec["prompt"]} | ({"negative_prompt": spec["negative"]} if spec["negative"] is not None else {})
    tables = [("[model]", {"path": "../../../fixtures/families/xl"})]
    tables.append(("[task.text-to-image]", task | {"guidance_scale": 5.0} | spec["reading"]))
    if spec["lora"]:
        tables.append(("[[lora]]", {"path": "lora.safetensors"} | spec["keys"]))
    tables += [("[[textual_inversion]]", {"path": file, "token": token}) for file, token, _ in spec["embeddings"]]
    return toml([*tables, ("[run]", {"steps": 4, "seed": spec["seed"], "images": spec["images"]})])


def write_embedding(path, count):
    generator = torch.Generator().manual_seed(sum(os.path.basename(path).encode()))
    vectors = {n: (torch.randn(count, 16, generator=generator) * 0.4).half() for n in ("clip_l", "clip_g")}
    save_file(vectors, path)


def load_lora(pipe, path, keys):
    pipe.load_lora_weights(path, adapter_name="lora")
    parts = {"unet": keys.get("unet_scale", keys.get("scale", 1.0))}
    text = keys.get("text_encoder_scale", keys.get("scale", 1.0))
    for name in ("text_encoder", "text_encoder_2"):
        if getattr(getattr(pipe, name), "peft_config", None):
            parts[name] = text
    pipe.set_adapters(["lora"], [parts])


def read(pipe, prompt, negative, reading):
    """The prompt embeddings that the pipeline receives instead of prompts."""
    readers = [
        Reader(tokenizer, encoder, penultimate=True, **reading)
        for tokenizer, encoder in ((pipe.tokenizer, pipe.text_encoder), (pipe.tokenizer_2, pipe.text_encoder_2))
    ]
    count = max(len(readers[0].chunks(t)) for t in (prompt, negative)) if readers[0].chunked else 1
    beside = lambda text: torch.cat([reader.embed(text, count) for reader in readers], -1)
    return {
        "prompt_embeds": beside(prompt),
        "negative_prompt_embeds": beside(negative),
        "pooled_prompt_embeds": readers[1].pooled(prompt),
        "negative_pooled_prompt_embeds": readers[1].pooled(negative),
    }


def draw(pipe, spec, folder):
    if spec["lora"]:
        load_lora(pipe, f"{folder}/lora.safetensors", spec["keys"])
    for file, token, _ in spec["embeddings"]:
        vectors = load_file(f"{folder}/{file}")
        pipe.load_textual_inversion(vectors["clip_l"].float(), token=token, text_encoder=pipe.text_encoder, tokenizer=pipe.tokenizer)
        pipe.load_textual_inversion(vectors["clip_g"].float(), token=token, text_encoder=pipe.text_encoder_2, tokenizer=pipe.tokenizer_2)
    if set(spec["reading"]) <= {"clip_skip"}:
        told = {"prompt": spec["prompt"], "negative_prompt": spec["negative"]} | spec["reading"]
    else:
        told = read(pipe, spec["prompt"], spec["negative"], spec["reading"])
    latents = []
    for i in range(spec["images"]):
        generator = torch.Generator("cpu").manual_seed(spec["seed"] + i)
        keys = {"num_inference_steps": 4, "guidance_scale": 5.0, "output_type": "latent"}
        latents.append(pipe(generator=generator, **keys, **told).images)
    latents = torch.cat(latents)
    return latents.numpy(), decoded(pipe.vae, latents)


def main(only):
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as temp:
        build = pipelines(tiny_tokenizer(temp))["xl"]
        for name, spec, folder in folders(ROOT, CASES, only):
            write_toml(folder, pipeline_toml(spec))
            pipe = build()
            pipe.set_progress_bar_config(disable=True)
            pipe.tokenizer, pipe.tokenizer_2 = copy.deepcopy(pipe.tokenizer), copy.deepcopy(pipe.tokenizer)
            if spec["lora"]:
                parts = {n: getattr(pipe, n) for n in ("unet", "text_encoder", "text_encoder_2")}
                save_file(make_file(parts, **spec["lora"])[0], f"{folder}/lora.safetensors")
            for file, _, count in spec["embeddings"]:
                write_embedding(f"{folder}/{file}", count)
            latents, pictures = draw(pipe, spec, folder)
            write(folder, latents, pictures, rel=1e-5, levels=1)
            print(f"{name:18} {len(pictures)} pictures, latents up to {np.abs(latents).max():.1f}", flush=True)


if __name__ == "__main__":
    main(set(sys.argv[1:]))
