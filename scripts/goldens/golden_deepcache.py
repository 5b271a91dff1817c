#!/usr/bin/env python3
"""Makes the cases of tests/golden/caching whose names begin with deepcache: pipelines with [cache.deepcache], drawn by
diffusers' UNet in PyTorch under the DeepCache package of the method's authors (Ma et al. 2023, arXiv 2312.00858).

Run from the root of the repository, with the packages of scripts/requirements.txt and DeepCache 0.1.1
(pip install --no-deps DeepCache==0.1.1; it needs nothing but diffusers):

    python scripts/goldens/golden_deepcache.py [NAME...]
    python scripts/goldens/golden_deepcache.py shares

The second counts, for each branch of models/shapes and of Stable Diffusion 1.5 at 512x512, the share that the outer
layers have of a whole evaluation's multiplications.

A case is as golden_caching.py writes them; NAME.json tells the evaluations of the outer layers too. The UNet is that of
tests/fixtures/models/sd1, or with a control network that of tests/fixtures/families/control. The package's helper is given the places of a branch in a UNet of one layer a block, which
its set_params takes to be two. Where guidance begins or ends, all layers are run. ddim is not among the schedulers: its
first steps make 2e-5 of PyTorch's and ONNX Runtime's rounding on this UNet, whole or not.
"""

import json
import os
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import torch
from DeepCache import DeepCacheSDHelper
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from PIL import Image
from torch.utils.flop_counter import FlopCounterMode

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_caching import CIRCLE, GOLDEN, ROOT, SD1, Guided, Model, case, pipeline, scheduler_of
from make_families import pipelines, tiny_tokenizer
from make_fixtures import models

# Long skip connections of each level of the UNet: one for each of its layers, and one more.
A_LEVEL = 2
CONTROL = "tests/fixtures/families/control"
# Keys added to the pipeline for a control network, which starts at the third step.
OF_CONTROL = '\n[[control]]\nimage = "../families/control/a.png"\nscale = 0.8\nstart = 0.25\n'


def deep(interval, branch, **more):
    return ("deepcache", {"interval": interval, "branch": branch, **more})


CASES = {
    "deepcache": case(SD1, CIRCLE, 8, 60, 5.0, "dpm-multistep", deep(3, 0)),
    "deepcache-deeper": case(SD1, CIRCLE, 9, 61, 5.0, "euler", deep(2, 1), images=2),
    "deepcache-interval": case(SD1, CIRCLE, 12, 62, 4.0, "euler", deep(4, 2), interval=[0.2, 0.7]),
    "deepcache-control": case(CONTROL, CIRCLE, 8, 64, 5.0, "euler", deep(3, 1), size=32),
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


class Controlled:
    """A control network, run with all layers only; at the steps between, its residuals are those of the last of these."""

    def __init__(self, net):
        picture = Image.open("tests/golden/families/control/a.png").convert("RGB")
        self.net, self.picture = net, torch.from_numpy(np.asarray(picture, np.float32) / 255).permute(2, 0, 1)[None]
        self.last = {}

    def residuals(self, x, t, context, is_whole, is_silent):
        if is_whole:
            picture = self.picture.repeat(len(x), 1, 1, 1)
            down, mid = self.net(x, t, context, picture, conditioning_scale=0.8, return_dict=False)
            told = {"down_block_additional_residuals": down, "mid_block_additional_residual": mid}
            self.last = {} if is_silent else told
        return self.last


def draw(model, unet, spec, seed, control=None):
    """The final latents of one picture, and the evaluations of all layers and of the outer ones."""
    scheduler = scheduler_of(model, spec["scheduler"])
    scheduler.set_timesteps(spec["steps"])
    guided = Guided(model, spec)
    parameters = spec["cache"][1]
    helper = helper_of(unet, scheduler, parameters["interval"], parameters["branch"], A_LEVEL)
    deepest = []
    hook = unet.mid_block.resnets[0].register_forward_hook(lambda *_: deepest.append(True))
    helper.enable()
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator("cpu").manual_seed(seed))
    x = noise * scheduler.init_noise_sigma
    calls, made, outer = len(scheduler.timesteps), 0, 0
    told, untold = (torch.from_numpy(context) for context in (guided.prompt, guided.empty))
    for index, t in enumerate(scheduler.timesteps):
        branches = guided.branches(index, calls)
        begins = control and index == calls // 4
        if begins or index > 0 and branches != guided.branches(index - 1, calls):
            helper.start_timestep = index
        given = scheduler.scale_model_input(x, t)
        context = told if branches == 1 else torch.cat([untold, told])
        deepest.clear()
        x_in, residuals = torch.cat([given] * branches), {}
        if control:
            is_whole = (index - (helper.start_timestep or 0)) % parameters["interval"] == 0
            residuals = control.residuals(x_in, t, context, is_whole, index < calls // 4)
        rows = unet(x_in, t, context, return_dict=False, **residuals)[0]
        made, outer = made + branches * bool(deepest), outer + branches * (not deepest)
        v = rows if branches == 1 else rows[:1] + spec["scale"] * (rows[1:] - rows[:1])
        x = scheduler.step(v, t, x).prev_sample
    helper.disable()
    hook.remove()
    return x.numpy(), {"made": made, "of": calls * (1 if spec["scale"] <= 1 else 2), "shallow": outer}


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
    plain = models()["sd1"]["unet"]
    with tempfile.TemporaryDirectory() as folder:
        controlled = pipelines(tiny_tokenizer(folder))["control"]()
    for name, spec in CASES.items():
        if names and name not in names:
            continue
        model = Model(spec["model"])
        is_controlled = spec["model"] == CONTROL
        unet = controlled.unet if is_controlled else plain
        control = Controlled(controlled.controlnet.nets[0]) if is_controlled else None
        drawn = [draw(model, unet, spec, spec["seed"] + i, control) for i in range(spec["images"])]
        np.save(f"{GOLDEN}/{name}.npy", np.concatenate([latents for latents, _ in drawn]))
        with open(f"{GOLDEN}/{name}.json", "w") as file:
            json.dump([told for _, told in drawn], file)
        with open(f"{GOLDEN}/{name}.toml", "w") as file:
            file.write(pipeline(spec) + (OF_CONTROL if is_controlled else ""))
        print(f"{name:20} {drawn[0][1]}")


if __name__ == "__main__":
    with torch.no_grad():
        main(set(sys.argv[1:]))
