#!/usr/bin/env python3
"""Makes tests/golden/previews: what diffusers' schedulers estimate, and what its tiny autoencoder decodes.

Run from the root of the repository, after `python -m pip install -r scripts/requirements.txt`:

    python scripts/goldens/golden_previews.py

estimates.json     for schedulers and prediction types, samples and answers at the steps of a run, all of them random, and
                   the picture that diffusers says they stand for: `pred_original_sample` of `step()`, or for solvers that
                   return none what `convert_model_output` gives
tiny_vae_decoder/  model.onnx and config.json of an AutoencoderTiny with random weights, exported by scripts/export.py
latents.npy        [2, 4, 3, 4], and
pixels.npy         [2, 3, 24, 32], what PyTorch decodes them to
"""

import json
import os

import diffusers
import numpy as np
import torch

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

import export
import export_graphs
from export_diffusers import small_decoder_part

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "previews")
STEPS, VALUES = 4, 6

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
PLAIN = dict(BETAS, clip_sample=False)
CASES = [
    ("ddim", "DDIMScheduler", dict(PLAIN, prediction_type=p)) for p in ("epsilon", "v_prediction", "sample")
] + [
    ("ddim", "DDIMScheduler", dict(PLAIN, prediction_type="v_prediction", rescale_betas_zero_snr=True, timestep_spacing="trailing")),
] + [
    ("ddpm", "DDPMScheduler", dict(PLAIN, prediction_type=p)) for p in ("epsilon", "v_prediction")
] + [
    (name, cls, dict(BETAS, prediction_type=p))
    for name, cls in (
        ("euler", "EulerDiscreteScheduler"),
        ("euler-ancestral", "EulerAncestralDiscreteScheduler"),
        ("heun", "HeunDiscreteScheduler"),
        ("kdpm2", "KDPM2DiscreteScheduler"),
        ("kdpm2-ancestral", "KDPM2AncestralDiscreteScheduler"),
        ("lms", "LMSDiscreteScheduler"),
    )
    for p in ("epsilon", "v_prediction")
] + [
    ("euler", "EulerDiscreteScheduler", dict(BETAS, use_karras_sigmas=True)),
    ("edm-euler", "EDMEulerScheduler", {}),
    ("scm", "SCMScheduler", {}),
    ("dpm-multistep", "DPMSolverMultistepScheduler", dict(BETAS, prediction_type="epsilon")),
    ("dpm-multistep", "DPMSolverMultistepScheduler", dict(BETAS, prediction_type="v_prediction")),
    ("dpm-multistep", "DPMSolverMultistepScheduler", {"prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0}),
    ("unipc", "UniPCMultistepScheduler", dict(BETAS, prediction_type="sample")),
    ("unipc", "UniPCMultistepScheduler", dict(BETAS, prediction_type="epsilon")),
]


def estimates(name, cls, config):
    scheduler = getattr(diffusers, cls)(**config)
    steps = 2 if name == "scm" else STEPS  # diffusers places the steps of two by itself
    scheduler.set_timesteps(steps)
    torch.manual_seed(len(name) + len(config))
    rows = []
    times = scheduler.timesteps[:-1] if name == "scm" else scheduler.timesteps
    for t in times:
        x, m = torch.randn(1, 1, 1, VALUES) * 3, torch.randn(1, 1, 1, VALUES)
        if hasattr(scheduler, "convert_model_output"):
            if scheduler.step_index is None:
                scheduler._init_step_index(t)
            x0 = scheduler.convert_model_output(m, sample=x)
            scheduler._step_index += 1
        else:
            if hasattr(scheduler, "scale_model_input"):
                scheduler.scale_model_input(x, t)
            x0 = scheduler.step(m, t, x).pred_original_sample
        rows.append({k: [float(f"{v:.9g}") for v in a.flatten().tolist()] for k, a in (("sample", x), ("answer", m), ("image", x0))})
    return {"scheduler": name, "config": dict(config, _class_name=cls), "steps": steps, "rows": rows}


def tiny():
    torch.manual_seed(5)
    vae = diffusers.AutoencoderTiny(
        encoder_block_out_channels=(4, 4, 4, 4), decoder_block_out_channels=(4, 4, 4, 4),
        num_encoder_blocks=(1, 1, 1, 1), num_decoder_blocks=(1, 1, 1, 1), latent_channels=4,
    ).eval()
    # As drawn, the weights make pictures of hardly more than one colour.
    vae.decoder.layers[0].weight.mul_(3)
    vae.decoder.layers[-1].weight.mul_(12)
    export_graphs.export([small_decoder_part(vae)], export.arguments(["", ROOT]))
    torch.manual_seed(6)
    latents = torch.randn(2, 4, 3, 4) * 2
    pixels = vae.decode(latents / vae.config.scaling_factor + vae.config.shift_factor).sample
    np.save(f"{ROOT}/latents.npy", latents.numpy())
    np.save(f"{ROOT}/pixels.npy", pixels.numpy())
    print(f"pixels from {pixels.min():.2f} to {pixels.max():.2f}")


def main():
    os.makedirs(ROOT, exist_ok=True)
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    with open(f"{ROOT}/estimates.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(estimates(*case)) for case in CASES) + "\n]\n")
    tiny()


if __name__ == "__main__":
    main()
