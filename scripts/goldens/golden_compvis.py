#!/usr/bin/env python3
"""Records what the samplers of the latent diffusion paper's own code compute, for tests/it/schedulers.

Needs: pip install "torch==2.8.0" numpy tqdm "diffusers==0.39.0", and a checkout of github.com/CompVis/latent-diffusion
Run:   OMP_NUM_THREADS=1 python scripts/goldens/golden_compvis.py CHECKOUT

The samplers are run as they are, over the formula of golden_schedulers.py in place of a model and with its noise, at
step counts that divide 1000 and that do not. Written to tests/golden/compvis.jsonl and compvis.f32: the timesteps of the
model's calls, the first sample, and the sample after every step.
"""

import contextlib
import importlib
import io
import json
import pathlib
import struct
import sys
import types

import numpy as np
import torch

import golden_schedulers as grid

OUT = pathlib.Path(__file__).parents[2] / "tests/golden"
TRAIN = 1000


class Model:
    """The model interface of the samplers, with the betas of the paper's text-to-image model."""

    parameterization = "eps"
    num_timesteps = TRAIN
    device = torch.device("cpu")

    def __init__(self):
        betas = torch.linspace(0.00085**0.5, 0.012**0.5, TRAIN, dtype=torch.float64) ** 2
        bars = torch.cumprod(1.0 - betas, 0)
        self.betas, self.alphas_cumprod = betas.float(), bars.float()
        self.alphas_cumprod_prev = torch.cat([torch.ones(1, dtype=torch.float64), bars[:-1]]).float()
        self.asked = []

    def apply_model(self, x, t, _):
        self.asked.append(int(t[0]))
        return grid.model(x, t[0], False)


def sampler(name, stream):
    module = importlib.import_module(f"ldm.models.diffusion.{name}")
    module.noise_like = lambda shape, *_: stream.tensor(shape)
    cls = {"ddim": "DDIMSampler", "plms": "PLMSSampler"}[name]
    model = Model()
    made = getattr(module, cls)(model)
    made.register_buffer = lambda key, value: setattr(made, key, value)
    return model, made


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    sys.path.insert(0, sys.argv[1])
    # Neither is used by what is run here, and the second needs packages of its own.
    sys.modules["einops"] = types.SimpleNamespace(repeat=None)
    sys.modules["ldm.util"] = types.SimpleNamespace(instantiate_from_config=None)
    lines, values = [], b""
    for name, eta in (("ddim", 0.0), ("ddim", 1.0), ("plms", 0.0)):
        for steps in (4, 7, 10, 15, 30, 50, 60):
            seed = steps * 7 + 1
            stream = grid.Stream(seed)
            first = stream.tensor(grid.SHAPE)
            model, made = sampler(name, stream)
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                _, seen = made.sample(
                    steps, grid.SHAPE[0], grid.SHAPE[1:], eta=eta, x_T=first, verbose=False, log_every_t=1
                )
            record = np.concatenate([np.float32(model.asked)] + [x.numpy().ravel() for x in seen["x_inter"]])
            lines.append({"name": name, "steps": steps, "eta": eta, "seed": seed, "calls": len(model.asked)})
            values += struct.pack(f"<{record.size}f", *record.astype(np.float32))
            print(f"{name} eta {eta}, {steps} steps asked for: {len(seen['x_inter']) - 1} steps, {len(model.asked)} calls")
    OUT.joinpath("compvis.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    OUT.joinpath("compvis.f32").write_bytes(values)


if __name__ == "__main__":
    main()
