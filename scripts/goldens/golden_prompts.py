#!/usr/bin/env python3
"""Makes those cases of tests/golden/pipelines in which prompts are read otherwise than diffusers reads them.

Run from the root of the repository, after scripts/fixtures/make_fixtures.py and with the same packages as
scripts/goldens/golden_pipelines.py, whose cases these stand beside and whose form they have:

    python scripts/goldens/golden_prompts.py [NAME...]

Weights and chunks are read here by a reader of this file's own and handed to diffusers' StableDiffusionPipeline as
`prompt_embeds` and `negative_prompt_embeds`; `clip_skip` without them is that pipeline's own argument, which leaves the
negative prompt alone.
"""

import re
import sys

import numpy as np
import torch

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_case import decoded, folders, stable_diffusion, toml, write, write_toml
from golden_pipelines import CIRCLE, FISHERMAN, ROOT
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
    def __init__(self, tokenizer, encoder, weights=None, long_prompts=None, clip_skip=0, penultimate=False):
        """`penultimate` takes the states before the last layer as they are, which Stable Diffusion XL was trained on."""
        self.penultimate = penultimate
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

    def encode(self, row):
        end = self.tokenizer.eos_token_id
        fill = self.room - len(row)
        ids = [self.tokenizer.bos_token_id] + [t for t, _ in row] + [end] + [self.tokenizer.pad_token_id] * fill
        weights = torch.tensor([1.0] + [w for _, w in row] + [1.0] * (fill + 1))
        return self.encoder(torch.tensor([ids]), output_hidden_states=True), weights

    def pooled(self, text):
        """The text as one vector, that of its first chunk."""
        return self.encode((self.chunks(text) or [[]])[0])[0].text_embeds

    def embed(self, text, count, skip=0):
        rows = self.chunks(text)
        rows += [[]] * (count - len(rows))
        states = []
        for row in rows:
            out, weights = self.encode(row)
            z = out.last_hidden_state
            if self.penultimate:
                z = out.hidden_states[-2 - skip]
            elif skip:
                z = self.encoder.text_model.final_layer_norm(out.hidden_states[-1 - skip])
            heavy = z * weights[None, :, None]
            states.append(heavy * (z.mean() / heavy.mean()) if (weights != 1).any() else z)
        return torch.cat(states, 1)


def pipeline_toml(spec):
    tables = [("[model]", {"path": "../../../fixtures/models/sd1"})]
    if spec["variant"]:
        tables.append(("[model.text_encoder]", {"graph": f"../../../fixtures/models/variants/{spec['variant']}.onnx"}))
    task = {"prompt": spec["prompt"], "negative_prompt": spec["negative_prompt"]} | spec["keys"]
    run = {"steps": 4, "seed": spec["seed"], "width": 64, "height": 64, "images": spec["images"]}
    return toml([*tables, ("[task.text-to-image]", task), ("[run]", run)])


def draw(spec, parts):
    pipe = stable_diffusion(parts)
    tokenizer = pipe.tokenizer
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
    return latents.numpy(), decoded(parts["vae"], latents)


def main(only):
    made = models()
    for name, spec, folder in folders(ROOT, CASES, only):
        write_toml(folder, pipeline_toml(spec))
        latents, pictures = draw(spec, made[spec["variant"] or "sd1"])
        write(folder, latents, pictures, rel=1e-5, levels=1)
        print(f"{name:26} {len(pictures)} pictures, latents up to {np.abs(latents).max():.1f}")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
