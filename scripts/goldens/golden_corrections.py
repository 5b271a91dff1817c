#!/usr/bin/env python3
"""Makes tests/golden/corrections: what diffusers' pipelines draw from scheduler configurations that they correct.

Run from the root of the repository, after scripts/fixtures/make_fixtures.py and scripts/fixtures/make_families.py and with the same packages:

    python scripts/goldens/golden_corrections.py

The constructors of some pipeline classes overwrite keys of their scheduler's configuration (`steps_offset`, `clip_sample`,
`skip_prk_steps`) if the file lacks them or has other values. Each case is a tiny model, a scheduler_config.json and a task.
cases.json has them all, each with the text of its pipeline file; latents.f32 has the final latents of one image each, in the
same order, before the division by the scaling factor. in.png, mask.png and control.png are the images they take.
"""

import json
import os
import tempfile

import diffusers
import numpy as np
import torch
from PIL import Image
from transformers import CLIPTokenizerFast

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_families import edges
from golden_pipelines import CIRCLE, CLASSES, picture, toml_value
from make_families import pipelines, tiny_tokenizer
from make_fixtures import models

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "corrections")
FIXTURES = os.path.join(ROOT, "..", "..", "fixtures")
CLASSES = CLASSES | {"heun": "HeunDiscreteScheduler"}

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
LEADING = {"timestep_spacing": "leading"}
# A file for each class: what it has beside the keys in question, and those keys with values that are corrected.
FILES = {
    "ddim": (BETAS, {"steps_offset": 0, "clip_sample": True}),
    "ddpm": (BETAS, {"steps_offset": 0, "clip_sample": True}),
    "pndm": (BETAS, {"steps_offset": 0, "clip_sample": True, "skip_prk_steps": False}),
    "heun": (BETAS | LEADING, {"steps_offset": 3, "clip_sample": True}),
    "euler-ancestral": (BETAS | LEADING, {"steps_offset": 0}),
}
PLAIN = {
    "text-to-image": "StableDiffusionPipeline",
    "image-to-image": "StableDiffusionImg2ImgPipeline",
    "inpaint": "StableDiffusionInpaintPipeline",
}
IMAGES = {"text-to-image": {}, "image-to-image": {"image": "in.png"}, "inpaint": {"image": "in.png", "mask": "mask.png"}}


def case(fixture, task, pipeline, scheduler, keys, table=None, steps=4, control=False, run=None, **task_keys):
    """`pipeline` is the class for the task, `scheduler` the file's class and `keys` its keys, `table` the scheduler of the
    pipeline file: a name and its keys. `task_keys` go into the task's table."""
    return locals()


def cases():
    made = []
    # Inpainting in the image's own size, which is the engine's default and an argument in diffusers.
    for name, (plain, wrong) in FILES.items():
        for task, pipeline in PLAIN.items():
            strength = {"text-to-image": {}, "image-to-image": {"strength": 0.8}, "inpaint": {"strength": 1.0}}[task]
            for keys in (plain, plain | wrong):
                made.append(case("models/sd1", task, pipeline, name, keys, **IMAGES[task], **strength))
    ddim, wrong_ddim = FILES["ddim"]
    pndm, wrong_pndm = FILES["pndm"]
    # Another class is from_config: what is wrong is carried corrected, what is missing is not carried.
    for keys in (pndm, pndm | wrong_pndm):
        for other in ("ddim", "heun"):
            more = LEADING if other == "heun" else {}
            made.append(case("models/sd1", "text-to-image", PLAIN["text-to-image"], "pndm", keys, (other, more)))
        made.append(case("models/sd1", "inpaint", PLAIN["inpaint"], "pndm", keys, ("heun", LEADING), **IMAGES["inpaint"], strength=1.0))
    # The model's own class in the pipeline file keeps the corrections, and a key of the table wins.
    own = "text-to-image", PLAIN["text-to-image"], "ddim"
    made.append(case("models/sd1", *own, ddim, ("ddim", {"eta": 0.7})))
    made.append(case("models/sd1", *own, ddim | wrong_ddim, ("ddim", {"steps_offset": 3})))
    # Classes that correct nothing.
    for name in ("ddim", "pndm"):
        for keys in (FILES[name][0], FILES[name][0] | FILES[name][1]):
            xl = {"run": {"width": 32, "height": 32}}
            made.append(case("families/xl", "text-to-image", "StableDiffusionXLPipeline", name, keys, **xl))
            made.append(
                case("families/control", "text-to-image", "StableDiffusionControlNetPipeline", name, keys, control=True)
            )
    instruct = {"image": "in.png", "image_guidance_scale": 1.5}
    of_instruct = "instruct", "StableDiffusionInstructPix2PixPipeline", "euler-ancestral", FILES["euler-ancestral"][0]
    made.append(case("families/instruct", *of_instruct, **instruct))
    return made


def file_of(spec):
    return {"_class_name": CLASSES[spec["scheduler"]], "_diffusers_version": "0.39.0"} | spec["keys"]


def pipeline_toml(spec):
    keys = {"prompt": CIRCLE, "guidance_scale": 2.0} | spec["task_keys"]
    tables = [("[model]", {"path": "model"}), (f"[task.{spec['task']}]", keys)]
    if spec["control"]:
        tables.append(("[[control]]", {"image": "control.png"}))
    if spec["table"]:
        tables.append((f"[scheduler.{spec['table'][0]}]", spec["table"][1]))
    size = {"width": 64, "height": 64} if spec["task"] == "text-to-image" and spec["fixture"] == "models/sd1" else {}
    tables.append(("[run]", {"steps": spec["steps"], "seed": 900} | size | (spec["run"] or {})))
    return "\n".join("\n".join([head] + [f"{k} = {toml_value(v)}" for k, v in keys.items()]) + "\n" for head, keys in tables)


def draw(spec, parts):
    """The final latents."""
    made = getattr(diffusers, spec["pipeline"])
    own = getattr(diffusers, CLASSES[spec["scheduler"]])
    pipe = made(scheduler=own.from_config(file_of(spec)), **parts)
    table = dict(spec["table"][1]) if spec["table"] else {}
    eta = table.pop("eta", 0.0)
    if spec["table"] and (spec["table"][0] != spec["scheduler"] or table):
        pipe.scheduler = getattr(diffusers, CLASSES[spec["table"][0]]).from_config(pipe.scheduler.config, **table)
    pipe.set_progress_bar_config(disable=True)
    keys = {"prompt": CIRCLE, "guidance_scale": 2.0} | spec["task_keys"]
    if "image" in keys:
        keys["image"] = Image.open(f"{ROOT}/{keys['image']}")
    if "mask" in keys:
        keys["mask_image"] = Image.open(f"{ROOT}/{keys.pop('mask')}")
        keys |= {"width": 64, "height": 64}
    if spec["control"]:
        keys["image"] = Image.open(f"{ROOT}/control.png")
    if spec["task"] == "text-to-image" and spec["fixture"] == "models/sd1":
        keys |= {"width": 64, "height": 64}
    generator = torch.Generator("cpu").manual_seed(900)
    call = keys | (spec["run"] or {})
    return pipe(num_inference_steps=spec["steps"], generator=generator, eta=eta, output_type="latent", **call).images


def parts_of(fixture, built):
    if fixture != "models/sd1":
        pipe = built[fixture.split("/")[1]]()
        parts = {k: v for k, v in pipe.components.items() if k not in ("scheduler", "image_encoder")}
        if "controlnet" in parts:
            parts["controlnet"] = parts["controlnet"].nets[0]
    else:
        parts = dict(models()["sd1"])
        parts["tokenizer"] = CLIPTokenizerFast.from_pretrained(f"{FIXTURES}/models/sd1/tokenizer")
    if "text_encoder_2" in parts:
        return {k: v for k, v in parts.items() if k != "feature_extractor"}
    return parts | {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}


def main():
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    os.makedirs(ROOT, exist_ok=True)
    picture(64, 64).save(f"{ROOT}/in.png", optimize=True)
    # All of it is repainted: what is kept shows the VAE's rounding and nothing of the scheduler.
    Image.new("L", (64, 64), 255).save(f"{ROOT}/mask.png", optimize=True)
    edges(32, 32, 0.4).save(f"{ROOT}/control.png", optimize=True)
    rows, values = [], []
    with tempfile.TemporaryDirectory() as temp:
        built = pipelines(tiny_tokenizer(temp))
        parts = {}
        for spec in cases():
            fixture = spec["fixture"]
            if fixture not in parts:
                parts[fixture] = parts_of(fixture, built)
            latents = draw(spec, parts[fixture]).numpy().astype("<f4")
            values.append(latents.ravel())
            name = f"{spec['task']} {fixture} {file_of(spec)['_class_name']} {spec['keys']} {spec['table'] or ''}"
            print(f"{name}: up to {np.abs(latents).max():.2f}")
            rows.append(
                {
                    "fixture": fixture,
                    "scheduler": file_of(spec),
                    "pipeline": pipeline_toml(spec),
                    "shape": list(latents.shape),
                }
            )
    with open(f"{ROOT}/cases.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n")
    np.concatenate(values).tofile(f"{ROOT}/latents.f32")


if __name__ == "__main__":
    main()
