"""Makes tests/golden/half: final latents of diffusers' pipelines in half precision, and how far they are from float32's.

    python scripts/goldens/golden_half.py [NAME...]

The cases are some of golden_families.py's and golden_pipelines.py's, with the same pipelines after
`.to(torch.float16)`, on the CPU. As in `from_pretrained(..., torch_dtype=torch.float16)`, the last product of T5's layers
stays in float32. Noise is drawn in float32 and rounded, as ldm-ort does by default. `NAME.npy` has the latents before the
division by the scaling factor, in float16; half.json the difference of each from the reference in float32: the norm of the
difference by the norm of the reference.
"""

import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import torch

sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

import golden_families
import golden_pipelines
from golden_case import stable_diffusion
from make_families import pipelines, tiny_tokenizer
from make_fixtures import models

GOLDEN = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
ROOT = GOLDEN / "half"
FAMILIES = ["control", "inpaint", "instruct", "depth", "upscale", "lcm", "xl", "refiner"]
FAMILIES += ["sd3", "flux-dev", "pixart-sigma", "pixart-alpha", "sana"]
PIPELINES = ["plain", "sd2v"]

randn = torch.randn


def rounded(*shape, dtype=None, **keys):
    """torch.randn in float32, rounded to the type that is asked for."""
    return randn(*shape, **keys).to(dtype or torch.float32)


def halved(pipe):
    pipe.to(torch.float16)
    for encoder in (getattr(pipe, name, None) for name in ("text_encoder", "text_encoder_2", "text_encoder_3")):
        for name, module in encoder.named_modules() if encoder is not None else ():
            if name.endswith(".wo"):
                module.float()
    return pipe


def of_family(name, built):
    spec = golden_families.CASES[name]
    pipe = halved(built[spec["family"]]())
    if len(spec["controls"]) == 1:
        pipe.controlnet = pipe.controlnet.nets[0]
    latents = []
    for i in range(spec["images"]):
        generator = torch.Generator("cpu").manual_seed(spec["seed"] + i)
        keys = golden_families.called_with(spec, f"{GOLDEN}/families/{name}", i)
        answer = pipe(num_inference_steps=spec["steps"], generator=generator, output_type="latent", **keys)
        latents.append(answer.images)
    latents = torch.cat(latents)
    if latents.ndim == 3:
        latents = pipe._unpack_latents(latents, keys["height"], keys["width"], pipe.vae_scale_factor)
    return latents


def of_pipeline(name, made):
    """A case of one image and no other keys than a prompt."""
    spec = golden_pipelines.CASES[name]
    pipe = halved(stable_diffusion(made[spec["model"]], spec["model"], spec["scheduler"]))
    _, keys = spec["task"]
    generator = torch.Generator("cpu").manual_seed(spec["run"]["seed"])
    size = {"width": spec["run"]["width"], "height": spec["run"]["height"]}
    return pipe(
        num_inference_steps=spec["run"]["steps"], generator=generator, output_type="latent", **size, **keys
    ).images


def main(only):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    torch.randn = rounded
    ROOT.mkdir(parents=True, exist_ok=True)
    errors = {}
    with tempfile.TemporaryDirectory() as temp:
        built, made = pipelines(tiny_tokenizer(temp)), models()
        cases = {name: ("families", of_family, built) for name in FAMILIES}
        cases |= {name: ("pipelines", of_pipeline, made) for name in PIPELINES}
        for name, (suite, draw, parts) in cases.items():
            if only and name not in only:
                continue
            latents = draw(name, parts).numpy()
            reference = np.load(GOLDEN / suite / name / "latents.npy").astype(np.float64)
            error = np.linalg.norm(latents - reference) / np.linalg.norm(reference)
            np.save(ROOT / f"{name}.npy", latents.astype(np.float16))
            errors[name] = float(f"{error:.2g}")
            print(f"{name:14} {latents.shape} {latents.dtype}, off by {error:.1e}, up to {np.abs(reference).max():.1f}")
    if not only:
        (ROOT / "half.json").write_text(json.dumps(errors, indent=2) + "\n")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
