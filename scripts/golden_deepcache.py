#!/usr/bin/env python3
"""Makes the cases of tests/golden/caching whose names begin with deepcache: pipelines with [cache.deepcache], drawn by
diffusers' UNet in PyTorch under the DeepCache package of the method's authors (Ma et al. 2023, arXiv 2312.00858).

Run from the root of the repository, with the packages of scripts/requirements.txt and DeepCache 0.1.1
(pip install --no-deps DeepCache==0.1.1; it needs nothing but diffusers):

    python scripts/golden_deepcache.py [NAME...]
    python scripts/golden_deepcache.py shares

The second counts, for each branch of models/shapes and of Stable Diffusion 1.5 at 512x512, the share that the outer
layers have of a whole evaluation's multiplications.

A case is as golden_caching.py writes them; NAME.json tells the evaluations of the outer layers too. The UNet is that of
tests/fixtures/models/sd1. The package's helper is given the places of a branch in a UNet of one layer a block, which
its set_params takes to be two. Where guidance begins or ends, all layers are run. ddim is not among the schedulers: its
first steps make 2e-5 of PyTorch's and ONNX Runtime's rounding on this UNet, whole or not.
"""

import json
import os
import sys
from types import SimpleNamespace

import numpy as np
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch.utils.flop_counter import FlopCounterMode

from golden_caching import CIRCLE, GOLDEN, ROOT, SD1, Guided, Model, case, pipeline, scheduler_of
from make_fixtures import models

# Long skip connections of each level of the UNet: one for each of its layers, and one more.
A_LEVEL = 2


def deep(interval, branch, **more):
    return ("deepcache", {"interval": interval, "branch": branch, **more})


CASES = {
    "deepcache": case(SD1, CIRCLE, 8, 60, 5.0, "dpm-multistep", deep(3, 0)),
    "deepcache-deeper": case(SD1, CIRCLE, 9, 61, 5.0, "euler", deep(2, 1), images=2),
    "deepcache-interval": case(SD1, CIRCLE, 12, 62, 4.0, "euler", deep(4, 2), interval=[0.2, 0.7]),
    "deepcache-middle": case(SD1, CIRCLE, 7, 63, 1.0, "dpm-multistep", deep(5, 3)),
}


def helper_of(unet, scheduler, interval, branch, a_level):
    helper = DeepCacheSDHelper(SimpleNamespace(unet=unet, scheduler=scheduler))
    helper.params = {
        "cache_interval": interval,
        "cache_layer_id": branch % a_level,
        "cache_block_id": branch // a_level,
        "skip_mode": "uniform",
    }
    return helper


def draw(model, unet, spec, seed):
    """The final latents of one picture, and the evaluations of all layers and of the outer ones."""
    scheduler = scheduler_of(model, spec["scheduler"])
    scheduler.set_timesteps(spec["steps"])
    guided = Guided(model, spec)
    parameters = spec["cache"][1]
    helper = helper_of(unet, scheduler, parameters["interval"], parameters["branch"], A_LEVEL)
    deepest = []
    hook = unet.mid_block.resnets[0].register_forward_hook(lambda *_: deepest.append(True))
    helper.enable()
    noise = torch.randn(1, 4, spec["size"] // 8, spec["size"] // 8, generator=torch.Generator("cpu").manual_seed(seed))
    x = noise * scheduler.init_noise_sigma
    calls, made, outer = len(scheduler.timesteps), 0, 0
    told, untold = (torch.from_numpy(context) for context in (guided.prompt, guided.empty))
    for index, t in enumerate(scheduler.timesteps):
        branches = guided.branches(index, calls)
        if index > 0 and branches != guided.branches(index - 1, calls):
            helper.start_timestep = index
        given = scheduler.scale_model_input(x, t)
        context = told if branches == 1 else torch.cat([untold, told])
        deepest.clear()
        rows = unet(torch.cat([given] * branches), t, context, return_dict=False)[0]
        made, outer = made + branches * bool(deepest), outer + branches * (not deepest)
        v = rows if branches == 1 else rows[:1] + spec["scale"] * (rows[1:] - rows[:1])
        x = scheduler.step(v, t, x).prev_sample
    helper.disable()
    hook.remove()
    return x.numpy(), {"made": made, "of": calls * (1 if spec["scale"] <= 1 else 2), "outer": outer}


def shares(config, sample, context):
    with torch.device("meta"):
        unet = UNet2DConditionModel.from_config(config).eval()
    unet.set_attn_processor(AttnProcessor())
    given = [torch.empty(shape, device="meta") for shape in (sample, (1,), context)]

    def count():
        with FlopCounterMode(display=False) as counter:
            unet(*given)
        return counter.get_total_flops()

    whole, a_level, told = count(), config["layers_per_block"] + 1, []
    for branch in range(a_level * len(config["block_out_channels"])):
        helper = helper_of(unet, None, 2, branch, a_level)
        # Steps are told here, since there is no schedule to look them up in.
        helper.wrap_unet_forward = lambda: helper.function_dict.update(unet_forward=unet.forward)
        helper.enable()
        for helper.cur_timestep in (0, 1):
            outer = count()
        helper.disable()
        told.append(f"{outer / whole:.2f}")
    print(f"{whole / 2e9:.2f} G multiplications; of the outer layers from branch 0 on: {', '.join(told)}")


def main(names):
    os.chdir(ROOT)
    if "shares" in names:
        with open("models/shapes/unet/config.json") as file:
            shapes = json.load(file)
        shares(shapes, (1, 4, 16, 16), (1, 24, shapes["cross_attention_dim"]))
        attending = ["CrossAttn{}Block2D"] * 3
        stable = {
            "sample_size": 64,
            "block_out_channels": [320, 640, 1280, 1280],
            "layers_per_block": 2,
            "down_block_types": [kind.format("Down") for kind in [*attending, "{}Block2D"]],
            "up_block_types": [kind.format("Up") for kind in ["{}Block2D", *attending]],
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        }
        return shares(stable, (1, 4, 64, 64), (1, 77, 768))
    unet = models()["sd1"]["unet"]
    for name, spec in CASES.items():
        if names and name not in names:
            continue
        model = Model(spec["model"])
        drawn = [draw(model, unet, spec, spec["seed"] + i) for i in range(spec["images"])]
        np.save(f"{GOLDEN}/{name}.npy", np.concatenate([latents for latents, _ in drawn]))
        with open(f"{GOLDEN}/{name}.json", "w") as file:
            json.dump([told for _, told in drawn], file)
        with open(f"{GOLDEN}/{name}.toml", "w") as file:
            file.write(pipeline(spec))
        print(f"{name:20} {drawn[0][1]}")


if __name__ == "__main__":
    with torch.no_grad():
        main(set(sys.argv[1:]))
