#!/usr/bin/env python3
"""Makes tests/golden/pipelines: pipelines over the tiny models, and what diffusers draws for them.

Run from the root of the repository, after scripts/fixtures/make_fixtures.py and with the same packages plus numpy and Pillow:

    python scripts/goldens/golden_pipelines.py [NAME...]

Each case is a folder with pipeline.toml, the pictures and noise that it takes, case.json (the tolerances), latents.npy
(the final latents in float32, before the division by the scaling factor) and image-N.png. The reference is the
PyTorch pipeline of diffusers in float32 on the CPU; picture i of a run is drawn with
torch.Generator("cpu").manual_seed(seed + i), and follows the Brownian path of that seed where the scheduler has one.
"""

import json
import os
import shutil
import sys

import diffusers
import numpy as np
import torch
from diffusers import DDPMPipeline, StableDiffusionImg2ImgPipeline, StableDiffusionPipeline
from PIL import Image
from transformers import CLIPTokenizerFast

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from make_fixtures import ROOT as MODELS
from make_fixtures import models

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "pipelines")

CLASSES = {
    "tcd": "TCDScheduler",
    "ddim": "DDIMScheduler",
    "ddpm": "DDPMScheduler",
    "pndm": "PNDMScheduler",
    "euler": "EulerDiscreteScheduler",
    "euler-ancestral": "EulerAncestralDiscreteScheduler",
    "dpm-multistep": "DPMSolverMultistepScheduler",
    "dpm-sde": "DPMSolverSDEScheduler",
}

ASTRONAUT = "a photograph of an astronaut riding a horse on the moon"
CIRCLE = "a red circle above a blue square"
FISHERMAN = "portrait of an old fisherman with a very long beard" + " and a very long beard" * 8


def t2i(prompt=CIRCLE, model="sd1", steps=4, seed=1, scheduler=None, run=None, variant=None, case=None, **task):
    """One text-to-image case. `scheduler` is (name, keys); `run` adds to [run]; `variant` names another UNet."""
    return {
        "model": model,
        "variant": variant,
        "task": ("text-to-image", {"prompt": prompt} | task),
        "scheduler": scheduler,
        "run": {"steps": steps, "seed": seed, "width": 64, "height": 64} | (run or {}),
        "case": case or {},
    }


def i2i(strength, prompt=CIRCLE, steps=8, seed=1, scheduler=None, run=None, model="sd1", picture=(64, 64), **task):
    """One image-to-image case. `picture` is the size of the picture it starts from."""
    return {
        "model": model,
        "variant": None,
        "task": ("image-to-image", {"prompt": prompt, "image": "in.png", "strength": strength} | task),
        "scheduler": scheduler,
        "run": {"steps": steps, "seed": seed} | (run or {}),
        "picture": picture,
        "case": {},
    }


CASES = {
    "plain": t2i(ASTRONAUT, steps=6, seed=100),
    "ddim": t2i(scheduler=("ddim", {"clip_sample": False}), seed=101, guidance_scale=5.0),
    "ddim-eta": t2i(scheduler=("ddim", {"clip_sample": False, "eta": 0.7}), seed=102, run={"images": 2}),
    "ddim-trailing": t2i(scheduler=("ddim", {"clip_sample": False, "timestep_spacing": "trailing"}), seed=103),
    "ddpm": t2i(scheduler=("ddpm", {"clip_sample": False}), steps=5, seed=104, run={"images": 2}),
    "pndm-prk": t2i(scheduler=("pndm", {"skip_prk_steps": False}), steps=5, seed=105),
    "euler": t2i(scheduler=("euler", {}), seed=106),
    "euler-karras": t2i(scheduler=("euler", {"use_karras_sigmas": True, "timestep_spacing": "linspace"}), seed=107),
    "euler-ancestral": t2i(scheduler=("euler-ancestral", {}), seed=108, run={"images": 2}),
    "dpm-multistep": t2i(scheduler=("dpm-multistep", {}), steps=5, seed=109),
    "dpm-multistep-karras": t2i(
        scheduler=("dpm-multistep", {"use_karras_sigmas": True, "solver_order": 3}), steps=6, seed=110
    ),
    "dpm-multistep-sde": t2i(
        scheduler=("dpm-multistep", {"algorithm_type": "sde-dpmsolver++"}), steps=5, seed=111, run={"images": 2}
    ),
    "tcd": t2i(scheduler=("tcd", {}), seed=137),
    "dpm-sde": t2i(scheduler=("dpm-sde", {}), seed=135, run={"images": 2}),
    "dpm-sde-seeded": t2i(
        scheduler=("dpm-sde", {"noise_sampler_seed": 7, "use_karras_sigmas": True}), steps=5, seed=136
    ),
    "noise-float16": t2i(seed=137, run={"images": 2, "noise": "torch-cpu-float16"}),
    "noise-numpy": t2i(seed=138, run={"images": 2, "noise": "numpy"}),
    "negative": t2i([ASTRONAUT, CIRCLE], seed=112, negative_prompt="blurry, low quality"),
    "no-guidance": t2i(ASTRONAUT, seed=113, guidance_scale=1.0),
    "guidance-rescale": t2i(ASTRONAUT, seed=114, guidance_scale=9.0, guidance_rescale=0.7),
    "batch-of-three": t2i(ASTRONAUT, seed=115, run={"images": 3}),
    "two-prompts": t2i([ASTRONAUT, "un café très noir, 日本の山 & a BLACK   cat!!! 3.14"], seed=116, run={"images": 2}),
    "wide": t2i(seed=117, run={"width": 112, "height": 64}),
    "tall": t2i(seed=118, run={"width": 48, "height": 96}),
    "given-latents": t2i(seed=119, run={"latents": "noise.npy", "images": 2}),
    "long-prompt": t2i(FISHERMAN, seed=120),
    "image-to-image-35": i2i(0.35, seed=121),
    "image-to-image-80": i2i(0.8, seed=122, negative_prompt="blurry"),
    "image-to-image-100": i2i(1.0, seed=123, run={"images": 2}),
    "image-to-image-euler": i2i(0.6, seed=124, scheduler=("euler", {}), guidance_scale=4.0),
    "image-to-image-ancestral": i2i(0.5, seed=125, scheduler=("euler-ancestral", {}), run={"images": 2}),
    "image-to-image-odd-size": i2i(0.5, seed=134, picture=(70, 67)),
    "sd2v": t2i(model="sd2v", seed=126),
    "sd2v-euler-zero-snr": t2i(
        model="sd2v",
        seed=127,
        scheduler=("euler", {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"}),
        guidance_rescale=0.7,
        case={"rel": 5e-5},
    ),
    "sd2v-image-to-image": i2i(0.5, seed=128, model="sd2v"),
    "legacy": t2i(ASTRONAUT, model="sd1-legacy", seed=129, run={"images": 2}),
    "fixed-batch": t2i(variant="unet-fixed-batch", seed=130, run={"images": 2}),
    "int64-timestep": t2i(variant="unet-int64-timestep", seed=131, scheduler=("ddim", {"clip_sample": False})),
    "int64-timestep-between": t2i(
        variant="unet-int64-timestep", seed=136, scheduler=("euler", {"timestep_spacing": "linspace"})
    ),
    "half": t2i(variant="unet-half", seed=132, scheduler=("ddim", {"clip_sample": False}), case={"rel": 1e-2, "levels": 4}),
    "pixel": {
        "model": "pixel",
        "variant": None,
        "task": ("unconditional", {}),
        "scheduler": None,
        "run": {"steps": 5, "seed": 133, "images": 2},
        "case": {},
    },
}


def toml_value(v):
    if isinstance(v, bool):
        return str(v).lower()
    if isinstance(v, list):
        return "[" + ", ".join(toml_value(x) for x in v) + "]"
    if isinstance(v, str):
        return json.dumps(v, ensure_ascii=False)
    return repr(v)


def pipeline_toml(spec):
    lines = ["[model]", f'path = "../../../fixtures/models/{spec["model"]}"']
    if spec["variant"]:
        lines += ["", "[model.unet]", f'graph = "../../../fixtures/models/variants/{spec["variant"]}.onnx"']
    tables = [(f"task.{spec['task'][0]}", spec["task"][1])]
    if spec["scheduler"]:
        tables.append((f"scheduler.{spec['scheduler'][0]}", spec["scheduler"][1]))
    tables.append(("run", spec["run"]))
    for name, keys in tables:
        lines += ["", f"[{name}]"] + [f"{k} = {toml_value(v)}" for k, v in keys.items()]
    return "\n".join(lines) + "\n"


def quarter(pixels):
    """Of pixels [h, w, 3] one in each square of four, another one of them in each neighbor: what references hold."""
    height, width = pixels.shape[:2]
    y, x = np.mgrid[0 : (height + 1) // 2, 0 : (width + 1) // 2]
    return pixels[np.minimum(2 * y + x % 2, height - 1), np.minimum(2 * x + y % 2, width - 1)]


def picture(width, height):
    """A picture with edges and gradients to start image-to-image from."""
    y, x = np.mgrid[0:height, 0:width] / 63.0
    rgb = np.stack([x, y, 1.0 - x * y], axis=-1)
    rgb = rgb.clip(0, 1)
    rgb[(x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.06] = (0.9, 0.1, 0.1)
    return Image.fromarray((rgb * 255).round().astype(np.uint8))


def scheduler_of(spec):
    """The model's own scheduler, or another built from its configuration, and the `eta` of its steps, if one is stated."""
    with open(f"{MODELS}/{spec['model']}/scheduler/scheduler_config.json") as f:
        own = json.load(f)
    base = getattr(diffusers, own["_class_name"]).from_config(own)
    if not spec["scheduler"]:
        return base, {}
    name, keys = spec["scheduler"]
    keys = dict(keys)
    eta = {"eta": keys.pop("eta")} if "eta" in keys else {}
    return getattr(diffusers, CLASSES[name]).from_config(base.config, **keys), eta


def drawn_otherwise(stream, seeds, shape):
    """The first noise of pictures of these seeds, from another stream than torch's for float32."""
    if stream == "numpy":
        return torch.cat([torch.from_numpy(np.random.RandomState(s).randn(*shape).astype(np.float32)) for s in seeds])
    dtype = {"torch-cpu-float16": torch.float16, "torch-cpu-bfloat16": torch.bfloat16}[stream]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return torch.cat([torch.randn(shape, generator=g, dtype=dtype).float() for g in generators])


class InHalf(torch.nn.Module):
    """A half-precision UNet between float32 neighbours, as a graph of that type stands in a pipeline."""

    def __init__(self, unet):
        super().__init__()
        self.unet, self.config, self.dtype = unet, unet.config, torch.float32
        self.add_embedding = None

    def forward(self, sample, timestep, encoder_hidden_states, return_dict=False, **_):
        answer = self.unet(sample.half(), timestep, encoder_hidden_states.half(), return_dict=False)[0]
        return (answer.float(),)


def draw(spec, parts, folder):
    """Runs one case; returns its latents (None for a pixel-space model) and its pictures in [0, 1]."""
    task, keys = spec["task"]
    run, keys = spec["run"], dict(keys)
    scheduler, eta = scheduler_of(spec)
    prompts = keys.pop("prompt", "")
    prompts = [prompts] if isinstance(prompts, str) else prompts
    count = len(prompts) * run.get("images", 1)
    seeds = [run["seed"] + i for i in range(count)]
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    if getattr(scheduler, "noise_sampler_seed", 0) is None:
        scheduler.noise_sampler_seed = seeds

    if task == "unconditional":
        pipe = DDPMPipeline(unet=parts["unet"], scheduler=scheduler)
        pipe.set_progress_bar_config(disable=True)
        pictures = pipe(
            batch_size=count, generator=generators, num_inference_steps=run["steps"], output_type="np"
        ).images
        return None, pictures

    unet = parts["unet"] if parts["unet"].dtype == torch.float32 else InHalf(parts["unet"])
    cls = StableDiffusionImg2ImgPipeline if task == "image-to-image" else StableDiffusionPipeline
    pipe = cls(
        vae=parts["vae"],
        text_encoder=parts["text_encoder"],
        tokenizer=CLIPTokenizerFast.from_pretrained(f"{MODELS}/{spec['model']}/tokenizer"),
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    if "negative_prompt" in keys:
        keys["negative_prompt"] = [keys["negative_prompt"]] * len(prompts)
    if task == "image-to-image":
        keys["image"] = Image.open(f"{folder}/{keys['image']}")
    else:
        keys |= {"width": run["width"], "height": run["height"]}
        if "latents" in run:
            keys["latents"] = torch.from_numpy(np.load(f"{folder}/{run['latents']}"))
        if "noise" in run:
            keys["latents"] = drawn_otherwise(run["noise"], seeds, (1, 4, run["height"] // 8, run["width"] // 8))
    latents = pipe(
        prompt=prompts,
        num_inference_steps=run["steps"],
        num_images_per_prompt=run.get("images", 1),
        generator=generators,
        **eta,
        output_type="latent",
        **keys,
    ).images
    decoded = parts["vae"].decode(latents / parts["vae"].config.scaling_factor, return_dict=False)[0]
    pictures = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
    return latents.numpy(), pictures


def main(only):
    torch.set_num_threads(1)
    made = models()
    for name, spec in CASES.items():
        if only and name not in only:
            continue
        folder = f"{ROOT}/{name}"
        if os.path.isdir(folder):
            shutil.rmtree(folder)
        os.makedirs(folder)
        with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
            f.write(pipeline_toml(spec))
        if spec["task"][0] == "image-to-image":
            picture(*spec["picture"]).save(f"{folder}/in.png")
        if "latents" in spec["run"]:
            noise = np.random.RandomState(7).randn(spec["run"]["images"], 4, 8, 8).astype(np.float32)
            np.save(f"{folder}/noise.npy", noise)
        with torch.no_grad():
            latents, pictures = draw(spec, made[spec["variant"] or spec["model"]], folder)
        with open(f"{folder}/case.json", "w") as f:
            json.dump({"rel": 1e-5, "levels": 1} | spec["case"], f, sort_keys=True)
            f.write("\n")
        if latents is not None:
            np.save(f"{folder}/latents.npy", latents.astype(np.float32))
        for i, p in enumerate(pictures):
            Image.fromarray(quarter((p * 255).round().astype(np.uint8))).save(f"{folder}/image-{i}.png", optimize=True)
        flat = np.asarray(pictures)
        print(
            f"{name:26} {len(pictures)} pictures, mean {flat.mean():.2f}, spread {flat.std():.2f}, "
            f"at the ends {((flat <= 0) | (flat >= 1)).mean():.0%}"
            + (f", latents up to {np.abs(latents).max():.1f}" if latents is not None else "")
        )


if __name__ == "__main__":
    main(set(sys.argv[1:]))
