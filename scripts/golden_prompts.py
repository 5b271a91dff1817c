#!/usr/bin/env python3
"""Makes those cases of tests/golden/pipelines in which prompts are read otherwise than diffusers reads them.

Run from the root of the repository, after scripts/make_fixtures.py and with the same packages as
scripts/golden_pipelines.py, whose cases these stand beside and whose form they have:

    python scripts/golden_prompts.py [NAME...]

Weights and chunks are read here by a reader of this file's own and handed to diffusers' StableDiffusionPipeline as
`prompt_embeds` and `negative_prompt_embeds`; `clip_skip` without them is that pipeline's own argument, which leaves the
negative prompt alone.
"""

import json
import os
import re
import shutil
import sys

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from transformers import CLIPTokenizerFast

from golden_pipelines import CIRCLE, FISHERMAN, ROOT, scheduler_of, toml_value
from make_fixtures import ROOT as MODELS
from make_fixtures import CONTEXT, models

# A text encoder with a last norm of its own. That of the others leaves states of mean zero, and what is brought back to
# a mean of zero is brought back to rounding errors.
HIDDEN = "text-encoder-hidden"
LONG = "a red circle above a blue square, a small yellow star, to the left of a large green triangle, highly detailed"


def case(prompt, seed, negative="", variant=None, images=1, **keys):
    return {"prompt": prompt, "negative_prompt": negative, "seed": seed, "variant": variant, "images": images} | {"keys": keys}


CASES = {
    "weights": case("a (red:1.4) circle above a [blue] ((square))", 140, "(blurry:0.7", HIDDEN, weights="a1111"),
    "weights-literal": case(r"a \(red\) circle:1.2) above] a (blue square", 141, weights="a1111"),
    "weights-as-text": case("a (red:1.4) circle", 142),
    "weights-below-zero": case("a (red:-0.6) [[circle:0.2]", 143, "", HIDDEN, 2, weights="a1111"),
    "long-prompt-chunks": case(FISHERMAN, 144, "blurry", long_prompts="chunk"),
    "long-prompt-commas": case(LONG, 145, long_prompts="chunk"),
    "long-negative-prompt": case(CIRCLE, 146, LONG, long_prompts="chunk", weights="a1111"),
    "long-prompt-break": case(
        f"a (red circle:1.3) BREAK {LONG} BREAK [a cat]", 147, "blurry", HIDDEN, long_prompts="chunk", weights="a1111"
    ),
    "two-long-prompts": case([LONG, "a cat"], 148, "low quality", long_prompts="chunk"),
    "clip-skip-1": case(CIRCLE, 149, "blurry", variant=HIDDEN, clip_skip=1),
    "clip-skip-3": case(CIRCLE, 150, variant=HIDDEN, clip_skip=3),
    "clip-skip-weights": case(
        f"(a cat:1.5), {LONG}", 151, variant=HIDDEN, clip_skip=2, weights="a1111", long_prompts="chunk"
    ),
}


def spans(text):
    """Pairs of a stretch of text and its weight; None for BREAK.

    Each character carries the list of the factors of the brackets around it, so that closing a bracket has only to
    set that bracket's factor."""
    characters, round_open, square_open, factors = [], [], [], {}
    i = 0

    def put(c):
        characters.append((c, [*round_open, *square_open]))

    while i < len(text):
        c = text[i]
        weight = re.match(r":\s*([+-]?[.\d]+)\s*\)", text[i:])
        if c == "\\":
            if i + 1 < len(text) and text[i + 1] in "()[]\\":
                put(text[i + 1])
                i += 1
        elif c == "(":
            round_open.append(i)
            factors[i] = 1.1
        elif c == "[":
            square_open.append(i)
            factors[i] = 1 / 1.1
        elif c == ")" and round_open:
            round_open.pop()
        elif c == "]" and square_open:
            square_open.pop()
        elif weight and round_open:
            factors[round_open.pop()] = float(weight[1])
            i += weight.end() - 1
        else:
            put(c)
        i += 1
    weighed = [(c, float(np.prod([factors[b] for b in around], initial=1.0))) for c, around in characters]
    found = []
    for c, w in weighed:
        if found and found[-1][1] == w:
            found[-1][0] += c
        else:
            found.append([c, w])
    out = []
    for text, w in found:
        for n, piece in enumerate(re.split(r"\s*\bBREAK\b\s*", text)):
            out += ([None] if n else []) + [(piece, w)]
    return out


class Reader:
    def __init__(self, tokenizer, encoder, weights=None, long_prompts=None, clip_skip=0):
        self.tokenizer, self.encoder, self.weighted = tokenizer, encoder, weights == "a1111"
        self.chunked, self.skip = long_prompts == "chunk", clip_skip
        self.room = CONTEXT - 2
        self.comma = tokenizer.convert_tokens_to_ids(",</w>")

    def chunks(self, text):
        """Lists of (id, weight), each as long as there is room for."""
        if self.weighted:
            parts = spans(text)
        else:
            parts = [p for n, s in enumerate(re.split(r"\s*\bBREAK\b\s*", text)) for p in ([None] if n else []) + [(s, 1.0)]]
        done, row = [], []
        for part in parts:
            if part is None:
                done, row = done + [row], []
                continue
            for token in self.tokenizer(part[0], add_special_tokens=False)["input_ids"]:
                if len(row) == self.room and not self.chunked:
                    continue
                if len(row) == self.room:
                    commas = [i for i, (t, _) in enumerate(row) if t == self.comma]
                    cut = commas[-1] + 1 if commas and token != self.comma and self.room - commas[-1] <= 20 else self.room
                    done, row = done + [row[:cut]], row[cut:]
                row.append((token, part[1]))
        return done + [row] if row or not done else done

    def embed(self, text, count, skip=0):
        rows = self.chunks(text)
        rows += [[]] * (count - len(rows))
        states = []
        for row in rows:
            end = self.tokenizer.eos_token_id
            fill = self.room - len(row)
            ids = [self.tokenizer.bos_token_id] + [t for t, _ in row] + [end] + [self.tokenizer.pad_token_id] * fill
            weights = torch.tensor([1.0] + [w for _, w in row] + [1.0] * (fill + 1))
            out = self.encoder(torch.tensor([ids]), output_hidden_states=True)
            z = out.last_hidden_state
            if skip:
                z = self.encoder.text_model.final_layer_norm(out.hidden_states[-1 - skip])
            heavy = z * weights[None, :, None]
            states.append(heavy * (z.mean() / heavy.mean()) if (weights != 1).any() else z)
        return torch.cat(states, 1)


def pipeline_toml(spec):
    lines = ["[model]", 'path = "../../../fixtures/models/sd1"']
    if spec["variant"]:
        lines += ["", "[model.text_encoder]", f'graph = "../../../fixtures/models/variants/{spec["variant"]}.onnx"']
    task = {"prompt": spec["prompt"], "negative_prompt": spec["negative_prompt"]} | spec["keys"]
    run = {"steps": 4, "seed": spec["seed"], "width": 64, "height": 64, "images": spec["images"]}
    for name, keys in (("task.text-to-image", task), ("run", run)):
        lines += ["", f"[{name}]"] + [f"{k} = {toml_value(v)}" for k, v in keys.items()]
    return "\n".join(lines) + "\n"


def draw(spec, parts):
    tokenizer = CLIPTokenizerFast.from_pretrained(f"{MODELS}/sd1/tokenizer")
    scheduler, _ = scheduler_of({"model": "sd1", "scheduler": None})
    pipe = StableDiffusionPipeline(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=tokenizer,
        unet=parts["unet"],
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    prompts = [spec["prompt"]] if isinstance(spec["prompt"], str) else spec["prompt"]
    drawn, seed = [], spec["seed"]
    for prompt in prompts:
        generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(spec["images"])]
        seed += spec["images"]
        keys = spec["keys"]
        if set(keys) <= {"clip_skip"}:
            told = {"prompt": prompt, "negative_prompt": spec["negative_prompt"], "clip_skip": keys.get("clip_skip")}
        else:
            reader = Reader(tokenizer, parts["text_encoder"], **keys)
            count = 1
            if reader.chunked:
                count = max(len(reader.chunks(t)) for t in (prompt, spec["negative_prompt"]))
            told = {
                "prompt_embeds": reader.embed(prompt, count, reader.skip),
                "negative_prompt_embeds": reader.embed(spec["negative_prompt"], count),
            }
        drawn.append(
            pipe(
                **told,
                num_inference_steps=4,
                num_images_per_prompt=spec["images"],
                generator=generators,
                width=64,
                height=64,
                output_type="latent",
            ).images
        )
    latents = torch.cat(drawn)
    decoded = parts["vae"].decode(latents / parts["vae"].config.scaling_factor, return_dict=False)[0]
    return latents.numpy(), (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def main(only):
    torch.set_num_threads(1)
    made = models()
    for name, spec in CASES.items():
        if only and name not in only:
            continue
        folder = f"{ROOT}/{name}"
        shutil.rmtree(folder, ignore_errors=True)
        os.makedirs(folder)
        with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
            f.write(pipeline_toml(spec))
        with torch.no_grad():
            latents, pictures = draw(spec, made[spec["variant"] or "sd1"])
        with open(f"{folder}/case.json", "w") as f:
            json.dump({"rel": 1e-5, "levels": 1}, f, sort_keys=True)
            f.write("\n")
        np.save(f"{folder}/latents.npy", latents.astype(np.float32))
        for i, p in enumerate(pictures):
            Image.fromarray((p * 255).round().astype(np.uint8)).save(f"{folder}/image-{i}.png", optimize=True)
        print(f"{name:26} {len(pictures)} pictures, latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
