#!/usr/bin/env python3
"""Records what diffusers' schedulers compute on schedules given outright, for tests/it/schedulers.

Needs: pip install "diffusers==0.39.0" "torch==2.8.0" numpy scipy
Run:   OMP_NUM_THREADS=1 python scripts/goldens/golden_custom_schedules.py

As golden_schedulers.py, whose formats it writes (tests/golden/custom-schedules/NAME.zip), but with
`set_timesteps(timesteps=...)` or `set_timesteps(sigmas=...)`. Also spans.json: where diffusers' pipelines for Stable
Diffusion XL cut schedules in two for `denoising_start` and `denoising_end`.
"""

import json
import pathlib
import random
import warnings

import diffusers
import numpy as np
from diffusers import StableDiffusionXLImg2ImgPipeline
from diffusers.schedulers.scheduling_utils import AysSchedules
from diffusers.utils import logging

import golden_schedulers as grid
from scheduler_grid import GRID, RAMPS

OUT = pathlib.Path(__file__).parents[2] / "tests/golden/custom-schedules"
COUNT = 16
LISTS = {
    "ddpm": ["timesteps"],
    "euler": ["timesteps", "sigmas"],
    "heun": ["timesteps"],
    "dpm-multistep": ["timesteps"],
    "dpm-singlestep": ["timesteps"],
    "unipc": ["sigmas"],
    "lcm": ["timesteps"],
    "tcd": ["timesteps"],
    "flow-match-euler": ["timesteps", "sigmas"],
}


def given(rng, name, kind, train):
    flow = name in ("flow-match-euler", "unipc")
    if kind == "timesteps":
        if train == 1000 and rng.random() < 0.3:
            return AysSchedules[rng.choice(["StableDiffusionTimesteps", "StableDiffusionXLTimesteps"])]
        top = train if flow else train - 1
        return sorted(rng.sample(range(1, top + 1), rng.choice([1, 2, 3, 5, 8])), reverse=True)
    if not flow and rng.random() < 0.3:
        return AysSchedules[rng.choice(["StableDiffusionSigmas", "StableDiffusionXLSigmas"])]
    most = 1.0 if flow else 14.6
    levels = {round(rng.uniform(0.01, most), 4) for _ in range(rng.choice([2, 3, 5, 8]))}
    return sorted(levels, reverse=True) + ([] if flow else [rng.choice([0.0, 0.005])])


def record(name, kind, rng):
    config, table, arguments, order = grid.configuration(rng, name)
    train = {**config, **table}.get("num_train_timesteps", 1000)
    # A list beside a switch that makes a schedule of its own: diffusers lets one of them win, ldm-ort asks which.
    switches = ["use_flow_sigmas"] if kind == "timesteps" else list(RAMPS)
    if name != "euler" and name != "flow-match-euler" and any({**config, **table}.get(key) for key in switches):
        raise ValueError("a list beside a switch")
    values = given(rng, name, kind, train)
    steps = len(values) - (kind == "sigmas" and name == "euler")
    case = {"name": name, "steps": steps, "begin": 0, "seed": rng.randrange(2**31), kind: values}
    if rng.random() < 0.3:
        case["begin"] = rng.randrange(steps) * order
    if {**config, **table}.get("use_dynamic_shifting"):
        case["mu"] = rng.choice([0.5, 0.9, 1.15])
    for group, content in (("config", config), ("table", table), ("arguments", arguments)):
        case[group] = {key: grid.text(value) for key, value in content.items()}
    return case, grid.run(case, grid.Stream(case["seed"]))


def spans():
    """[scheduler, steps, start or null, end or null, first call, call after the last]"""
    rows = []
    for name in ("ddim", "euler", "heun", "dpm-multistep", "unipc", "pndm", "kdpm2"):
        cls = getattr(diffusers, GRID[name][0])
        for steps in (3, 10, 25):
            for start, end in ((None, 0.8), (0.8, None), (0.3, 0.7), (0.05, None), (None, 0.05), (0.5, 0.51)):
                more = {"skip_prk_steps": True} if name == "pndm" else {}
                scheduler = cls(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", **more)
                scheduler.set_timesteps(steps)
                timesteps, first = scheduler.timesteps, 0
                if start is not None:
                    stub = type("Pipeline", (), {"scheduler": scheduler})()
                    left, _ = StableDiffusionXLImg2ImgPipeline.get_timesteps(stub, steps, 1.0, "cpu", start)
                    first, timesteps = len(timesteps) - len(left), left
                if end is not None:
                    # As both pipelines write it inside __call__.
                    train = scheduler.config.num_train_timesteps
                    cut = int(round(train - end * train))
                    timesteps = timesteps[: len([t for t in timesteps if t >= cut])]
                rows.append([name, steps, start, end, first, first + len(timesteps)])
    return rows


def main():
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    OUT.mkdir(parents=True, exist_ok=True)
    for name, kinds in LISTS.items():
        rng = random.Random(f"{name} custom")
        lines, values, left_out = [], [], {}
        for kind in kinds:
            made = 0
            while made < COUNT:
                try:
                    case, whole = record(name, kind, rng)
                except Exception as error:
                    left_out[str(error)[:70]] = left_out.get(str(error)[:70], 0) + 1
                    continue
                if not np.isfinite(whole).all():
                    left_out["not finite"] = left_out.get("not finite", 0) + 1
                    continue
                lines.append(case)
                values.append(grid.thinned(whole, case).astype("<f4").tobytes())
                made += 1
        grid.write(OUT / f"{name}.zip", lines, values)
        print(f"{name}: {len(lines)} configurations; left out {left_out}")
    rows = ",\n".join(json.dumps(row) for row in spans())
    (OUT / "spans.json").write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    main()
