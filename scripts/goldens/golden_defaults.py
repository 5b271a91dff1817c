#!/usr/bin/env python3
"""Makes tests/golden/defaults.json: the call defaults of diffusers' pipeline classes.

Run from the root of the repository, with the packages of scripts/fixtures/make_families.py:

    python scripts/goldens/golden_defaults.py

Numbers are those of the signature of each class's __call__. What the code decides is observed on tiny models, called with
an input image of another size than the model's and stopped at the first call of the denoiser:

    size    what width and height are without a value: "image", "sample_size" (the denoiser's), a number of latents, "area", or [height, width]
    old     the sample_size that a configuration older than diffusers 0.9 with sample_size 32 is given, if another
"""

import inspect
import json
import os
import tempfile
import warnings

import diffusers
import torch
from diffusers import ControlNetModel, UNet2DModel, VQModel

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_families import edges
from golden_pipelines import picture
from golden_systems import hole
from make_families import ROOT, XL, pipelines, scheduler, tiny_tokenizer, unet

KEYS = {
    "num_inference_steps": "steps",
    "guidance_scale": "guidance_scale",
    "strength": "strength",
    "image_guidance_scale": "image_guidance_scale",
    "noise_level": "noise_level",
    "max_sequence_length": "max_sequence_length",
    "eta": "eta",
    "controlnet_conditioning_scale": "control_scale",
}
# Classes by the tiny pipeline that lends them its parts.
CLASSES = {
    "depth": ["StableDiffusionDepth2ImgPipeline"],
    "instruct": ["StableDiffusionInstructPix2PixPipeline"],
    "upscale": ["StableDiffusionUpscalePipeline"],
    "plain": [
        "StableDiffusionPipeline",
        "StableDiffusionImg2ImgPipeline",
        "StableDiffusionInpaintPipeline",
    ],
    "control": [
        "StableDiffusionControlNetPipeline",
        "StableDiffusionControlNetImg2ImgPipeline",
        "StableDiffusionControlNetInpaintPipeline",
    ],
    "lcm": ["LatentConsistencyModelPipeline", "LatentConsistencyModelImg2ImgPipeline"],
    "xl": [
        "StableDiffusionXLPipeline",
        "StableDiffusionXLImg2ImgPipeline",
        "StableDiffusionXLInpaintPipeline",
    ],
    "xl-instruct": ["StableDiffusionXLInstructPix2PixPipeline"],
    "xl-control": [
        "StableDiffusionXLControlNetPipeline",
        "StableDiffusionXLControlNetImg2ImgPipeline",
        "StableDiffusionXLControlNetInpaintPipeline",
    ],
    "sd3": ["StableDiffusion3Pipeline", "StableDiffusion3Img2ImgPipeline", "StableDiffusion3InpaintPipeline"],
    "flux-dev": ["FluxPipeline", "FluxImg2ImgPipeline", "FluxInpaintPipeline", "FluxKontextPipeline"],
    "pixart-alpha": ["PixArtAlphaPipeline"],
    "pixart-sigma": ["PixArtSigmaPipeline"],
    "uncond": ["DDPMPipeline", "DDIMPipeline", "PNDMPipeline"],
    "ldm": ["LDMPipeline"],
    # Sana's class asks for 1024 by 1024 pixels, which by binning become the size that the model was trained at.
    None: [
        "SanaPipeline",
        "LDMTextToImagePipeline",
        "LDMSuperResolutionPipeline",
        "OnnxStableDiffusionPipeline",
        "OnnxStableDiffusionImg2ImgPipeline",
        "OnnxStableDiffusionInpaintPipeline",
        "OnnxStableDiffusionUpscalePipeline",
    ],
}
WIDTH, HEIGHT = 96, 64


def builders(tokenizer):
    """The parts of the pipelines of make_families and of a few more, as functions that build them."""
    told_sizes = {"projection_class_embeddings_input_dim": 16 + 6 * 8, **XL}
    made = {name: lambda build=build: build().components for name, build in pipelines(tokenizer).items()}
    controlled = lambda parts: parts | {
        "controlnet": ControlNetModel.from_unet(parts["unet"], conditioning_embedding_out_channels=(4, 8, 8))
    }

    def pixels():
        blocks = {"down_block_types": ("DownBlock2D",) * 2, "up_block_types": ("UpBlock2D",) * 2}
        return UNet2DModel(
            sample_size=8,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 8),
            layers_per_block=1,
            norm_num_groups=4,
            **blocks,
        )

    plain = lambda: made["inpaint"]() | {"unet": unet(513)}
    return made | {
        "plain": plain,
        "control": lambda: controlled(plain()),
        "xl-control": lambda: controlled(made["xl"]()),
        "xl-instruct": lambda: made["xl"]() | {"unet": unet(553, 8, context=32, **told_sizes)},
        "uncond": lambda: {"unet": pixels(), "scheduler": diffusers.DDPMScheduler()},
        "ldm": lambda: {"unet": pixels(), "scheduler": scheduler(), "vqvae": VQModel(norm_num_groups=32)},
    }


class Seen(Exception):
    pass


def with_parts(kind, parts):
    taken = inspect.signature(kind.__init__).parameters
    checked = {"requires_safety_checker": False} if "requires_safety_checker" in taken else {}
    return kind(**{k: v for k, v in parts.items() if k in taken}, **checked)


def first_sample(pipe):
    """The sample that the denoiser is first given, [height, width] or the number of tokens."""
    call = inspect.signature(pipe.__call__).parameters
    small = type(pipe).__name__ in ("StableDiffusionUpscalePipeline",)
    image = picture(WIDTH // 4, HEIGHT // 4) if small else picture(WIDTH, HEIGHT)
    given = {
        "prompt": "a",
        "image": image,
        "mask_image": hole(WIDTH, HEIGHT),
        "control_image": edges(WIDTH, HEIGHT, 0.5),
        "depth_map": torch.zeros(1, HEIGHT, WIDTH),
        "use_resolution_binning": False,
        "clean_caption": False,
        "output_type": "latent",
    }
    denoiser = getattr(pipe, "unet", None) or pipe.transformer

    def see(*positional, **named):
        raise Seen(*(positional or [named.get("sample", named.get("hidden_states"))]))

    denoiser.forward = see
    pipe.set_progress_bar_config(disable=True)
    try:
        pipe(**{k: v for k, v in given.items() if k in call})
    except Seen as seen:
        shape = seen.args[0].shape
        return list(shape[2:]) if len(shape) == 4 else shape[1]
    raise RuntimeError(f"{type(pipe).__name__} did not run its denoiser")


def size(pipe):
    factor = getattr(pipe, "vae_scale_factor", 1)
    sample = first_sample(pipe)
    own = getattr(pipe, "unet", None) or pipe.transformer
    own = own.config.get("sample_size")
    if type(pipe).__name__ == "FluxKontextPipeline" and sample > (512 // factor) ** 2:
        # Of the area of 1024 by 1024 pixels, and behind the sample the image in a size of its own.
        return "area"
    for name, (height, width) in {
        "image": (HEIGHT // factor, WIDTH // factor),
        "sample_size": (own or 0, own or 0),
        128: (128, 128),
    }.items():
        # Flux packs two by two latents into a token.
        tokens = (height // 2) * (width // 2)
        if sample in ([height, width], tokens):
            return name
    raise RuntimeError(f"{type(pipe).__name__}: {sample}")


def old_sample_size(kind, parts):
    old = UNet2DModel.from_config if isinstance(parts["unet"], UNet2DModel) else type(parts["unet"]).from_config
    changed = old({**parts["unet"].config, "sample_size": 32})
    changed.register_to_config(_diffusers_version="0.8.0")
    return with_parts(kind, parts | {"unet": changed}).unet.config.sample_size


def alike(name, call):
    """Requires the values that all classes share, which the engine has as constants."""
    shared = {"true_cfg_scale": 1.0, "guidance_rescale": 0.0, "aesthetic_score": 6.0, "negative_aesthetic_score": 2.5}
    for key, value in shared.items():
        assert key not in call or call[key].default == value, f"{name}: {key} = {call[key].default}"


def main():
    torch.set_grad_enabled(False)
    warnings.filterwarnings("ignore")
    rows = {}
    with tempfile.TemporaryDirectory() as temp:
        built = builders(tiny_tokenizer(temp))
        for family, names in CLASSES.items():
            for name in names:
                kind = getattr(diffusers, name)
                call = inspect.signature(kind.__call__).parameters
                row = {own: call[key].default for key, own in KEYS.items() if key in call}
                alike(name, call)
                if "height" in call and call["height"].default:
                    row["size"] = [call["height"].default, call["width"].default]
                if family is not None:
                    parts = built[family]()
                    row["size"] = size(with_parts(kind, parts))
                    if parts.get("unet") is not None:
                        old = old_sample_size(kind, parts)
                        row |= {} if old == 32 else {"old": old}
                rows[name] = row
                print(name, row)
    with open(os.path.join(ROOT, "..", "..", "golden", "defaults.json"), "w", encoding="utf-8") as f:
        f.write("{\n" + ",\n".join(f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in rows.items()) + "\n}\n")


if __name__ == "__main__":
    main()
