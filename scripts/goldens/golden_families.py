#!/usr/bin/env python3
"""Makes tests/golden/families: pipelines over Stable Diffusion's relatives, and what diffusers draws for them.

Run from the root of the repository, after scripts/fixtures/make_families.py and with the same packages:

    python scripts/goldens/golden_families.py [NAME...]

A case is a folder like those of scripts/goldens/golden_pipelines.py: pipeline.toml, the pictures it takes, case.json,
latents.npy (the final latents before the division by the scaling factor) and image-N.png. The reference is the PyTorch
pipeline of diffusers in float32 on the CPU; each picture is drawn alone, with torch.Generator("cpu").manual_seed(seed + i).
"""

import inspect
import json
import os
import shutil
import sys
import tempfile

import diffusers
import numpy as np
import torch
from PIL import Image

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_pipelines import FISHERMAN, picture, quarter, toml_value
from golden_systems import hole
from make_families import GRAPHS, WITHIN, pipelines, tiny_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "families")
CIRCLE = "a red circle above a blue square"
# PixArt in the size that was asked for, and reading what was written.
PLAIN = {"use_resolution_binning": False, "clean_caption": False}
ASTRONAUT = "a photograph of an astronaut riding a horse on the moon"


def edges(width, height, at):
    """A line drawing, white on black."""
    y, x = np.mgrid[0:height, 0:width]
    lines = (np.abs(np.hypot(x - at * width, y - height / 2) - height / 3) < 1.2) | (x == y)
    return Image.fromarray((lines * 255).astype(np.uint8)).convert("RGB")


def slope(width, height):
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray((40 + 150 * y / height + 50 * ((x - width / 2) ** 2 < 30)).astype(np.uint8), "L")


def case(
    family, task, keys, steps, seed, images=1, files=None, controls=(), run=None, pipeline=None, scheduler=None, **call
):
    """`keys` are those of the task's table, `call` what the pipeline is called with beside the same keys; `pipeline` names
    another class of diffusers for the same parts; `scheduler` are keys of its own class's table."""
    return locals()


CASES = {
    "control": case(
        "control",
        "text-to-image",
        {"prompt": CIRCLE, "negative_prompt": "blurry", "guidance_scale": 5.0},
        4,
        300,
        2,
        {"a.png": edges(32, 32, 0.4), "b.png": edges(32, 32, 0.7)},
        [
            {"image": "a.png", "scale": 0.8},
            {
                "image": "b.png",
                "path": "../../../fixtures/families/control/controlnet_1",
                "scale": 0.5,
                "start": 0.25,
                "end": 0.75,
            },
        ],
    ),
    "inpaint": case(
        "inpaint",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png", "guidance_scale": 5.0},
        5,
        310,
        2,
        {"in.png": picture(32, 32), "mask.png": hole(32, 32)},
        strength=1.0,
    ),
    "inpaint-strength": case(
        "inpaint",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png", "strength": 0.6},
        5,
        311,
        1,
        {"in.png": picture(48, 32), "mask.png": hole(48, 32)},
        run={"width": 48, "height": 32},
        width=48,
        height=32,
    ),
    "instruct": case(
        "instruct",
        "instruct",
        {"prompt": "turn the circle blue", "image": "in.png", "guidance_scale": 6.0, "image_guidance_scale": 1.5},
        5,
        320,
        2,
        {"in.png": picture(32, 32)},
    ),
    "upscale": case(
        "upscale",
        "super-resolution",
        {"prompt": CIRCLE, "image": "low.png", "guidance_scale": 4.0, "noise_level": 20},
        5,
        330,
        2,
        {"low.png": picture(8, 8)},
    ),
    "lcm": case("lcm", "text-to-image", {"prompt": ASTRONAUT, "guidance_scale": 8.5}, 4, 340, 2),
    "lcm-image-to-image": case(
        "lcm",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.5, "guidance_scale": 8.5},
        4,
        341,
        2,
        {"in.png": picture(32, 32)},
        pipeline="LatentConsistencyModelImg2ImgPipeline",
    ),
    "xl-inpaint": case(
        "xl",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png", "guidance_scale": 5.0, "strength": 0.8},
        6,
        362,
        1,
        {"in.png": picture(32, 32), "mask.png": hole(32, 32)},
        pipeline="StableDiffusionXLInpaintPipeline",
        width=32,
        height=32,
    ),
    "control-guess": case(
        "control",
        "text-to-image",
        {"prompt": CIRCLE, "guidance_scale": 5.0},
        4,
        301,
        1,
        {"a.png": edges(32, 32, 0.4)},
        [{"image": "a.png", "scale": 0.9, "guess": True}],
        guess_mode=True,
    ),
    # The empty string stands for the first encoder's text.
    "xl-empty-prompts": case(
        "xl",
        "text-to-image",
        {"prompt": CIRCLE, "prompt_2": "", "negative_prompt": "blurry", "negative_prompt_2": "", "guidance_scale": 5.0},
        3,
        364,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
    ),
    "sd3-empty-prompts": case(
        "sd3",
        "text-to-image",
        {
            "prompt": CIRCLE,
            "prompt_2": "",
            "prompt_3": "",
            "negative_prompt": "blurry",
            "negative_prompt_2": "",
            "negative_prompt_3": "",
            "guidance_scale": 5.0,
        },
        3,
        387,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
    ),
    "flux-empty-prompts": case(
        "flux-dev",
        "text-to-image",
        {
            "prompt": CIRCLE,
            "prompt_2": "",
            "negative_prompt": "blurry",
            "negative_prompt_2": "",
            "true_cfg_scale": 3.0,
            "guidance_scale": 3.5,
        },
        3,
        397,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
    ),
    # A strength of original steps, of which a tenth are more than the four that are run.
    "lcm-image-to-image-tenth": case(
        "lcm",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.1, "guidance_scale": 8.5},
        4,
        342,
        1,
        {"in.png": picture(32, 32)},
        pipeline="LatentConsistencyModelImg2ImgPipeline",
    ),
    # The same UNet under another class, which counts its strength in steps.
    "lcm-plain-image-to-image": case(
        "lcm-plain",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.6, "guidance_scale": 4.0},
        5,
        343,
        1,
        {"in.png": picture(32, 32)},
        pipeline="StableDiffusionImg2ImgPipeline",
    ),
    # Guidance, strength, size and T5's length that nothing states are those of the task's class.
    "inpaint-defaults": case(
        "inpaint",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png"},
        4,
        312,
        1,
        {"in.png": picture(48, 40), "mask.png": hole(48, 40)},
    ),
    "xl-defaults": case("xl", "text-to-image", {"prompt": CIRCLE}, 3, 365),
    "xl-image-to-image-defaults": case(
        "xl",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png"},
        10,
        366,
        1,
        {"in.png": picture(24, 16)},
        pipeline="StableDiffusionXLImg2ImgPipeline",
    ),
    "xl-inpaint-defaults": case(
        "xl",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png"},
        4,
        367,
        1,
        {"in.png": picture(48, 40), "mask.png": hole(48, 40)},
        pipeline="StableDiffusionXLInpaintPipeline",
    ),
    "sd3-image-to-image-defaults": case(
        "sd3",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png"},
        5,
        388,
        1,
        {"in.png": picture(48, 40)},
        pipeline="StableDiffusion3Img2ImgPipeline",
    ),
    "flux-schnell-defaults": case(
        "flux-schnell",
        "text-to-image",
        {"prompt": CIRCLE},
        3,
        398,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
    ),
    "pixart-sigma-defaults": case(
        "pixart-sigma",
        "text-to-image",
        {"prompt": CIRCLE},
        3,
        403,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
        **PLAIN,
    ),
    "depth": case(
        "depth",
        "image-to-image",
        {"prompt": ASTRONAUT, "image": "in.png", "strength": 0.75, "guidance_scale": 4.0},
        8,
        350,
        1,
        {"in.png": picture(32, 32), "depth.png": slope(32, 32)},
        depth_map="depth.png",
    ),
    "xl": case("xl", "text-to-image", {"prompt": ASTRONAUT, "guidance_scale": 5.0}, 4, 360, 2),
    "xl-negative": case(
        "xl",
        "text-to-image",
        {"prompt": CIRCLE, "negative_prompt": "blurry", "guidance_scale": 5.0},
        4,
        361,
        run={"width": 48, "height": 32},
        width=48,
        height=32,
    ),
    "sd3": case(
        "sd3",
        "text-to-image",
        {"prompt": ASTRONAUT, "negative_prompt": "blurry", "guidance_scale": 7.0},
        5,
        380,
        2,
    ),
    "xl-prompts": case(
        "xl",
        "text-to-image",
        {
            "prompt": ASTRONAUT,
            "prompt_2": CIRCLE,
            "negative_prompt": "blurry",
            "negative_prompt_2": "a blue square",
            "guidance_scale": 5.0,
        },
        4,
        363,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
    ),
    "sd3-prompts": case(
        "sd3",
        "text-to-image",
        {
            "prompt": CIRCLE,
            "prompt_2": "turn the circle blue",
            "prompt_3": ASTRONAUT,
            "negative_prompt": "blurry",
            "negative_prompt_3": "a horse",
            "guidance_scale": 5.0,
        },
        4,
        383,
        run={"width": 32, "height": 16},
        width=32,
        height=16,
    ),
    "flux-kontext": case(
        "flux-dev",
        "instruct",
        {"prompt": "turn the circle blue", "image": "in.png", "guidance_scale": 2.5},
        4,
        395,
        2,
        {"in.png": picture(32, 16)},
        pipeline="FluxKontextPipeline",
        width=32,
        height=16,
        max_area=32 * 16,
        _auto_resize=False,
    ),
    "flux-kontext-true-cfg": case(
        "flux-dev",
        "instruct",
        {
            "prompt": "turn the circle blue",
            "negative_prompt": "blurry",
            "image": "in.png",
            "guidance_scale": 2.5,
            "true_cfg_scale": 3.0,
        },
        4,
        396,
        1,
        {"in.png": picture(16, 32)},
        pipeline="FluxKontextPipeline",
        width=16,
        height=32,
        max_area=16 * 32,
        _auto_resize=False,
    ),
    "flux-prompts": case(
        "flux-dev",
        "text-to-image",
        {"prompt": CIRCLE, "prompt_2": ASTRONAUT, "guidance_scale": 3.5},
        4,
        393,
        run={"width": 32, "height": 16},
        width=32,
        height=16,
    ),
    "sd3-clip": case("sd3-clip", "text-to-image", {"prompt": CIRCLE, "guidance_scale": 4.0}, 4, 381),
    "sd3-dynamic": case(
        "sd3",
        "text-to-image",
        {"prompt": CIRCLE, "guidance_scale": 1.0, "max_sequence_length": 24},
        5,
        382,
        run={"width": 48, "height": 32},
        scheduler={"use_dynamic_shifting": True},
        width=48,
        height=32,
    ),
    "sd3-clip-skip": case(
        "sd3", "text-to-image", {"prompt": FISHERMAN, "guidance_scale": 3.0, "clip_skip": 1}, 3, 383
    ),
    "sd3-image-to-image": case(
        "sd3",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.5, "guidance_scale": 5.0},
        5,
        384,
        2,
        {"in.png": picture(32, 32)},
        pipeline="StableDiffusion3Img2ImgPipeline",
    ),
    "sd3-image-to-image-dynamic": case(
        "sd3",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.8, "guidance_scale": 5.0},
        5,
        385,
        1,
        {"in.png": picture(32, 48)},
        pipeline="StableDiffusion3Img2ImgPipeline",
        run={"width": 32, "height": 48},
        scheduler={"use_dynamic_shifting": True},
        width=32,
        height=48,
    ),
    "sd3-inpaint": case(
        "sd3",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png", "strength": 0.7, "guidance_scale": 5.0},
        5,
        386,
        1,
        {"in.png": picture(32, 32), "mask.png": hole(32, 32)},
        pipeline="StableDiffusion3InpaintPipeline",
        width=32,
        height=32,
    ),
    "flux-dev": case(
        "flux-dev",
        "text-to-image",
        {"prompt": ASTRONAUT, "guidance_scale": 3.5},
        4,
        390,
        2,
        run={"width": 48, "height": 32},
        width=48,
        height=32,
    ),
    "flux-schnell": case(
        "flux-schnell",
        "text-to-image",
        {"prompt": CIRCLE, "guidance_scale": 0.0, "max_sequence_length": 256},
        4,
        391,
        run={"width": 32, "height": 40},
        width=32,
        height=40,
    ),
    "flux-image-to-image": case(
        "flux-dev",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.7, "guidance_scale": 2.5},
        5,
        392,
        1,
        {"in.png": picture(48, 32)},
        run={"width": 48, "height": 32},
        pipeline="FluxImg2ImgPipeline",
        width=48,
        height=32,
    ),
    "flux-inpaint": case(
        "flux-dev",
        "inpaint",
        {"prompt": CIRCLE, "image": "in.png", "mask": "mask.png", "strength": 0.85, "guidance_scale": 3.5},
        4,
        394,
        1,
        {"in.png": picture(32, 32), "mask.png": hole(32, 32)},
        run={"width": 32, "height": 32},
        pipeline="FluxInpaintPipeline",
        width=32,
        height=32,
    ),
    "flux-true-cfg": case(
        "flux-dev",
        "text-to-image",
        {"prompt": CIRCLE, "negative_prompt": "blurry", "guidance_scale": 3.5, "true_cfg_scale": 4.0},
        4,
        393,
        run={"width": 32, "height": 48},
        width=32,
        height=48,
    ),
    "pixart-sigma": case(
        "pixart-sigma",
        "text-to-image",
        {"prompt": "  A Red CIRCLE above a blue square ", "negative_prompt": "Blurry", "guidance_scale": 4.5},
        5,
        400,
        2,
        run={"width": 24, "height": 16},
        width=24,
        height=16,
        **PLAIN,
    ),
    "pixart-sigma-unguided": case(
        "pixart-sigma",
        "text-to-image",
        {"prompt": CIRCLE, "guidance_scale": 1.0, "max_sequence_length": 20},
        4,
        401,
        run={"width": 16, "height": 16},
        width=16,
        height=16,
        **PLAIN,
    ),
    "pixart-alpha": case(
        "pixart-alpha",
        "text-to-image",
        {"prompt": CIRCLE, "negative_prompt": "", "guidance_scale": 3.0},
        4,
        402,
        run={"width": 16, "height": 24},
        width=16,
        height=24,
        **PLAIN,
    ),
    "sana": case(
        "sana",
        "text-to-image",
        {"prompt": "  A Red CIRCLE above a blue square ", "negative_prompt": "Blurry", "guidance_scale": 4.5},
        5,
        410,
        2,
        run={"width": 96, "height": 64},
        width=96,
        height=64,
        **PLAIN,
    ),
    # Two texts, of which one has letters that become bytes, and an instruction of its own.
    "sana-prompts": case(
        "sana",
        "text-to-image",
        {
            "prompt": [ASTRONAUT, "un café très noir, 日本の山"],
            "complex_human_instruction": ["Make it vivid.", "User Prompt: "],
            "guidance_scale": 3.0,
        },
        4,
        412,
        run={"width": 64, "height": 64},
        width=64,
        height=64,
        **PLAIN,
    ),
    "sana-no-instruction": case(
        "sana",
        "text-to-image",
        {"prompt": CIRCLE, "complex_human_instruction": "", "max_sequence_length": 20, "guidance_scale": 1.0},
        4,
        414,
        run={"width": 32, "height": 64},
        width=32,
        height=64,
        **PLAIN,
    ),
    # A text of more than max_sequence_length tokens behind the instruction, and the schedule of Sana 1.5.
    "sana-long": case(
        "sana",
        "text-to-image",
        {"prompt": f"{FISHERMAN}, {ASTRONAUT}", "max_sequence_length": 24, "guidance_scale": 4.5},
        4,
        415,
        run={"width": 64, "height": 32},
        scheduler={"shift": 3.0},
        width=64,
        height=32,
        **PLAIN,
    ),
    "sana-defaults": case(
        "sana",
        "text-to-image",
        {"prompt": CIRCLE},
        3,
        416,
        run={"width": 64, "height": 64},
        width=64,
        height=64,
        **PLAIN,
    ),
    "refiner": case(
        "refiner",
        "image-to-image",
        {"prompt": CIRCLE, "image": "in.png", "strength": 0.5, "guidance_scale": 5.0},
        8,
        370,
        1,
        {"in.png": picture(32, 32)},
    ),
}


def pipeline_toml(spec):
    folder = WITHIN.get(spec["family"], spec["family"])
    lines = ["[model]", f'path = "../../../fixtures/families/{folder}"']
    for name, graph in GRAPHS.get(spec["family"], {}).items():
        lines += [f"[model.{name}]", f'graph = "../../../fixtures/families/{graph}"']
    lines += ["", f"[task.{spec['task']}]"]
    lines += [f"{k} = {toml_value(v)}" for k, v in spec["keys"].items()]
    if "depth_map" in spec["call"]:
        lines += ["", "[[condition]]", 'conditioning = "channels"', f'depth_map = "{spec["call"]["depth_map"]}"']
    for control in spec["controls"]:
        lines += ["", "[[control]]"] + [f"{k} = {toml_value(v)}" for k, v in control.items()]
    if spec["scheduler"]:
        lines += ["", "[scheduler.flow-match-euler]"] + [f"{k} = {toml_value(v)}" for k, v in spec["scheduler"].items()]
    run = {"steps": spec["steps"], "seed": spec["seed"], "images": spec["images"]} | (spec["run"] or {})
    lines += ["", "[run]"] + [f"{k} = {toml_value(v)}" for k, v in run.items()]
    return "\n".join(lines) + "\n"


def prompts(spec):
    prompt = spec["keys"]["prompt"]
    return prompt if isinstance(prompt, list) else [prompt]


def called_with(spec, folder, number):
    """The arguments of diffusers' pipeline for the image with this number."""
    opened = lambda name: Image.open(f"{folder}/{name}")
    keys = {k: v for k, v in spec["keys"].items() if k not in ("image", "mask")} | spec["call"]
    keys["prompt"] = prompts(spec)[number // spec["images"]]
    if "complex_human_instruction" in keys:
        keys["complex_human_instruction"] = keys["complex_human_instruction"] or None
    if "image" in spec["keys"]:
        keys["image"] = opened(spec["keys"]["image"]).convert("RGB")
    if "mask" in spec["keys"]:
        keys["mask_image"] = opened(spec["keys"]["mask"])
    if "depth_map" in keys:
        keys["depth_map"] = torch.from_numpy(np.asarray(opened(keys["depth_map"]), dtype=np.float32) / 255)[None]
    if spec["controls"]:
        keys["image"] = [opened(c["image"]) for c in spec["controls"]]
        keys["controlnet_conditioning_scale"] = [c["scale"] for c in spec["controls"]]
        keys["control_guidance_start"] = [c.get("start", 0.0) for c in spec["controls"]]
        keys["control_guidance_end"] = [c.get("end", 1.0) for c in spec["controls"]]
        if len(spec["controls"]) == 1:
            of_control = ("image", "controlnet_conditioning_scale", "control_guidance_start", "control_guidance_end")
            keys |= {k: keys[k][0] for k in of_control}
    return keys


def main(only):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with tempfile.TemporaryDirectory() as temp:
        built = pipelines(tiny_tokenizer(temp))
        for name, spec in CASES.items():
            if only and name not in only:
                continue
            folder = f"{ROOT}/{name}"
            shutil.rmtree(folder, ignore_errors=True)
            os.makedirs(folder)
            with open(f"{folder}/pipeline.toml", "w", encoding="utf-8") as f:
                f.write(pipeline_toml(spec))
            for file, image in (spec["files"] or {}).items():
                image.save(f"{folder}/{file}")
            pipe = built[spec["family"]]()
            if spec["pipeline"]:
                made = getattr(diffusers, spec["pipeline"])
                taken = inspect.signature(made.__init__).parameters
                checked = {"requires_safety_checker": False} if "requires_safety_checker" in taken else {}
                pipe = made(**{k: v for k, v in pipe.components.items() if k in taken}, **checked)
            if spec["scheduler"]:
                flow = diffusers.FlowMatchEulerDiscreteScheduler
                pipe.scheduler = flow.from_config(pipe.scheduler.config, **spec["scheduler"])
            if len(spec["controls"]) == 1:
                pipe.controlnet = pipe.controlnet.nets[0]
            pipe.set_progress_bar_config(disable=True)
            latents = []
            for i in range(len(prompts(spec)) * spec["images"]):
                generator = torch.Generator("cpu").manual_seed(spec["seed"] + i)
                keys = called_with(spec, folder, i)
                answer = pipe(num_inference_steps=spec["steps"], generator=generator, output_type="latent", **keys)
                latents.append(answer.images)
            latents = torch.cat(latents)
            if latents.ndim == 3:
                latents = pipe._unpack_latents(latents, keys["height"], keys["width"], pipe.vae_scale_factor)
            stored = latents / pipe.vae.config.scaling_factor + (pipe.vae.config.get("shift_factor") or 0.0)
            decoded = pipe.vae.decode(stored, return_dict=False)[0]
            pictures = (decoded / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()
            np.save(f"{folder}/latents.npy", latents.numpy().astype(np.float32))
            for i, p in enumerate(pictures):
                Image.fromarray(quarter((p * 255).round().astype(np.uint8))).save(f"{folder}/image-{i}.png", optimize=True)
            with open(f"{folder}/case.json", "w") as f:
                json.dump({"levels": 1, "rel": 1e-5}, f, sort_keys=True)
                f.write("\n")
            print(
                f"{name:18} {len(pictures)} of {pictures.shape[2]}x{pictures.shape[1]}, mean {pictures.mean():.2f}, "
                f"spread {pictures.std():.2f}, latents up to {latents.abs().max():.1f}"
            )


if __name__ == "__main__":
    main(set(sys.argv[1:]))
