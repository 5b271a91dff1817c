#!/usr/bin/env python3
"""Records what diffusers' schedulers compute, for tests/schedulers.rs.

Needs: pip install "diffusers==0.39.0" "torch==2.8.0" numpy scipy torchsde
Run:   OMP_NUM_THREADS=1 python scripts/golden_schedulers.py [--count N] [--seed S] [--out DIR] [NAME ...]

Configurations are drawn at random from all keys of each class, loaded with `from_config` as a pipeline loads them, and
run over a formula in place of a model, from noise that both languages compute from a seed. For every configuration one
line in NAME.jsonl says what was run, and NAME.f32 (little-endian float32) holds, one configuration after the other:
init_noise_sigma, the timesteps, the first sample, and the sample after every step, whole. Configurations that diffusers
refuses by a ValueError or NotImplementedError are recorded as refused.
"""

import argparse
import contextlib
import importlib
import json
import math
import pathlib
import random
import struct
import warnings

import numpy as np
import torch
import diffusers
from diffusers.utils import logging

SHAPE = (2, 3, 1, 2)
OMIT = object()

SCHEDULES = ["linear", "scaled_linear", "squaredcos_cap_v2"]
SPACINGS = ["linspace", "leading", "trailing"]
COMMON = {
    "num_train_timesteps": [1000, 1000, 1000, 100, 50],
    "beta_start": [0.0001, 0.00085, 0.002],
    "beta_end": [0.02, 0.012],
    "beta_schedule": SCHEDULES,
    "timestep_spacing": SPACINGS,
    "steps_offset": [0, 1],
}
THRESHOLDING = {
    "thresholding": [False, False, True],
    "dynamic_thresholding_ratio": [0.995, 0.5, 0.8],
    "sample_max_value": [1.0, 1.5, 3.0],
}
CLIPPING = {"clip_sample": [True, False, False], "clip_sample_range": [1.0, 2.0, 0.5]}
ZERO_SNR = {"rescale_betas_zero_snr": [False, False, True]}
RAMPS = {
    "use_karras_sigmas": [False, False, False, True],
    "use_exponential_sigmas": [False, False, False, False, True],
    "use_beta_sigmas": [False, False, False, False, True],
}
THREE = ["epsilon", "sample", "v_prediction"]
TWO = ["epsilon", "v_prediction"]
FOUR = THREE + ["flow_prediction"]
CHURN = {
    "s_churn": [0.0, 0.0, 1.0, 20.0],
    "s_tmin": [0.0, 0.5],
    "s_tmax": [float("inf"), 10.0],
    "s_noise": [1.0, 1.003],
}
SOLVER = {
    **COMMON,
    **ZERO_SNR,
    **THRESHOLDING,
    **RAMPS,
    "use_flow_sigmas": [False, False, False, True],
    "flow_shift": [1.0, 3.0],
    "prediction_type": FOUR,
    "lower_order_final": [True, False],
}

EDM = {
    "sigma_min": [0.002, 0.01],
    "sigma_max": [80.0, 20.0],
    "sigma_data": [0.5, 1.0],
    "sigma_schedule": ["karras", "exponential"],
    "num_train_timesteps": [1000, 100],
    "rho": [7.0, 5.0],
    "final_sigmas_type": ["zero", "sigma_min"],
}
CONSISTENCY = {
    "original_inference_steps": [50, 50, 20],
    "set_alpha_to_one": [True, False],
    "timestep_scaling": [10.0, 1.0],
    "prediction_type": THREE,
}

# name: (class, order, keys, arguments of step())
GRID = {
    "ddim": (
        "DDIMScheduler",
        1,
        {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, "set_alpha_to_one": [True, False], "prediction_type": THREE},
        {"eta": [0.0, 0.0, 0.5, 1.0]},
    ),
    "ddpm": (
        "DDPMScheduler",
        1,
        {
            **COMMON,
            **THRESHOLDING,
            **CLIPPING,
            **ZERO_SNR,
            "beta_schedule": SCHEDULES + ["sigmoid", "laplace"],
            "variance_type": ["fixed_small", "fixed_small_log", "fixed_large", "learned", "learned_range"],
            "prediction_type": THREE,
        },
        {},
    ),
    "pndm": (
        "PNDMScheduler",
        1,
        {
            **COMMON,
            "skip_prk_steps": [True, False],
            "set_alpha_to_one": [True, False],
            "prediction_type": ["epsilon", "epsilon", "v_prediction", "sample"],
        },
        {},
    ),
    "euler": (
        "EulerDiscreteScheduler",
        1,
        {
            **COMMON,
            **ZERO_SNR,
            **RAMPS,
            "prediction_type": THREE,
            "interpolation_type": ["linear", "linear", "log_linear"],
            "sigma_min": [None, None, 0.05],
            "sigma_max": [None, None, 12.0],
            "timestep_type": ["discrete", "discrete", "continuous"],
            "final_sigmas_type": ["zero", "sigma_min"],
        },
        CHURN,
    ),
    "euler-ancestral": (
        "EulerAncestralDiscreteScheduler",
        1,
        {**COMMON, **ZERO_SNR, "prediction_type": ["epsilon", "v_prediction", "epsilon", "v_prediction", "sample"]},
        {},
    ),
    "dpm-multistep": (
        "DPMSolverMultistepScheduler",
        1,
        {
            **SOLVER,
            "solver_order": [1, 2, 3],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "sde-dpmsolver", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "euler_at_final": [False, False, True],
            "use_lu_lambdas": [False, False, False, True],
            "final_sigmas_type": ["zero", "sigma_min", "sigma_min"],
            "lambda_min_clipped": [-float("inf"), -5.1, -3.0],
            "variance_type": [None, None, "learned", "learned_range", "fixed_small"],
        },
        {},
    ),
    "lms": ("LMSDiscreteScheduler", 1, {**COMMON, **RAMPS, "prediction_type": THREE}, {}),
    "heun": (
        "HeunDiscreteScheduler",
        2,
        {**COMMON, **RAMPS, **CLIPPING, "beta_schedule": SCHEDULES + ["exp"], "prediction_type": THREE},
        {},
    ),
    "kdpm2": ("KDPM2DiscreteScheduler", 2, {**COMMON, **RAMPS, "prediction_type": TWO}, {}),
    "kdpm2-ancestral": ("KDPM2AncestralDiscreteScheduler", 2, {**COMMON, **RAMPS, "prediction_type": TWO}, {}),
    "dpm-singlestep": (
        "DPMSolverSinglestepScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in (*ZERO_SNR, "timestep_spacing", "steps_offset")},
            "solver_order": [1, 2, 3],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "dpmsolver", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "final_sigmas_type": ["zero", "sigma_min", "sigma_min"],
            "lambda_min_clipped": [-float("inf"), -5.1, -3.0],
            "variance_type": [None, None, "learned", "learned_range", "fixed_small"],
        },
        {},
    ),
    "dpm-sde": (
        "DPMSolverSDEScheduler",
        2,
        {**COMMON, **RAMPS, "prediction_type": TWO, "noise_sampler_seed": [None, 0, 7, 2**40 + 3]},
        {"s_noise": [1.0, 1.003, 0.8]},
    ),
    "deis": (
        "DEISMultistepScheduler",
        1,
        {
            **{k: v for k, v in SOLVER.items() if k not in ZERO_SNR},
            "solver_order": [1, 2, 3],
            "algorithm_type": ["deis", "dpmsolver++"],
            "solver_type": ["logrho", "midpoint"],
        },
        {},
    ),
    "unipc": (
        "UniPCMultistepScheduler",
        1,
        {
            **SOLVER,
            "solver_order": [1, 2, 3, 2, 4],
            "predict_x0": [True, True, False],
            "solver_type": ["bh1", "bh2", "midpoint"],
            "disable_corrector": [[], [0], [1, 2]],
            "final_sigmas_type": ["zero", "sigma_min"],
            "use_dynamic_shifting": [False, False, True],
            "time_shift_type": ["exponential", "linear"],
            "sigma_min": [None, None, 0.05],
            "sigma_max": [None, None, 12.0],
            "shift_terminal": [None, None, None, 0.05],
        },
        {},
    ),
    "ipndm": ("IPNDMScheduler", 1, {"num_train_timesteps": [1000, 100]}, {}),
    "edm-euler": ("EDMEulerScheduler", 1, {**EDM, "prediction_type": TWO}, CHURN),
    "edm-dpm-multistep": (
        "EDMDPMSolverMultistepScheduler",
        1,
        {
            **EDM,
            **THRESHOLDING,
            "prediction_type": TWO,
            "solver_order": [1, 2, 3],
            "algorithm_type": ["dpmsolver++", "sde-dpmsolver++", "deis"],
            "solver_type": ["midpoint", "heun", "bh2"],
            "lower_order_final": [True, False],
            "euler_at_final": [False, False, True],
        },
        {},
    ),
    "lcm": ("LCMScheduler", 1, {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, **CONSISTENCY}, {}),
    "tcd": (
        "TCDScheduler",
        1,
        {**COMMON, **THRESHOLDING, **CLIPPING, **ZERO_SNR, **CONSISTENCY},
        {"eta": [0.0, 0.3, 0.6, 1.0]},
    ),
    "flow-match-euler": (
        "FlowMatchEulerDiscreteScheduler",
        1,
        {
            **RAMPS,
            "num_train_timesteps": COMMON["num_train_timesteps"],
            "shift": [1.0, 3.0, 1.5],
            "use_dynamic_shifting": [False, False, True],
            "time_shift_type": ["exponential", "linear"],
            "shift_terminal": [None, None, 0.02, 0.1],
            "invert_sigmas": [False, False, False, True],
            "stochastic_sampling": [False, False, True],
        },
        {},
    ),
    "flow-match-heun": (
        "FlowMatchHeunDiscreteScheduler",
        2,
        {"num_train_timesteps": COMMON["num_train_timesteps"], "shift": [1.0, 3.0, 1.5]},
        {},
    ),
}


def noise(seed, start, count):
    """Values start..start+count of the stream of a seed: sums of twelve uniform numbers, less six."""
    with np.errstate(over="ignore"):
        index = np.arange(start, start + count, dtype=np.uint64) * np.uint64(12)
        total = np.zeros(count)
        for j in range(1, 13):
            z = np.uint64(seed) + (index + np.uint64(j)) * np.uint64(0x9E3779B97F4A7C15)
            z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            z = z ^ (z >> np.uint64(31))
            total = total + (z >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return (total - 6.0).astype(np.float32)


class Stream:
    def __init__(self, seed):
        self.seed, self.position = seed, 0

    def tensor(self, shape):
        count = int(np.prod(shape))
        values = noise(self.seed, self.position, count)
        self.position += count
        return torch.from_numpy(values.reshape(tuple(shape)))


def model(x, t, variances):
    """A smooth function of sample and timestep; `variances` appends channels that hold positive fractions."""
    x = x.numpy().astype(np.float64)
    u = abs(float(t)) / 1000.0
    pattern = ((np.arange(x.size) * 5 % 7 - 3.0) / 3.0).reshape(x.shape)
    y = 0.6 * x + 0.3 * x / (1.0 + x * x) + 0.2 * pattern / (1.0 + u)
    if variances:
        a = np.abs(x)
        y = np.concatenate([y, a / (1.0 + a)], axis=1)
    return torch.from_numpy(y.astype(np.float32))


def draw(rng, keys, often):
    """Some of the keys, each with one of its values."""
    return {key: rng.choice(values) for key, values in keys.items() if rng.random() < often}


def configuration(rng, name):
    class_name, order, keys, arguments = GRID[name]
    config, table = {}, {}
    for key, value in draw(rng, keys, 0.5).items():
        (table if rng.random() < 0.3 else config)[key] = value
    if rng.random() < 0.25:
        other = rng.choice(sorted(GRID))
        config = {**draw(rng, GRID[other][2], 0.6), "_class_name": GRID[other][0]}
    else:
        config["_class_name"] = class_name
    if rng.random() < 0.1:
        n = rng.choice([20, 50])
        config["num_train_timesteps"] = n
        config["trained_betas"] = [round(0.001 + 0.4 * (i / n) ** 2, 6) for i in range(n)]
        table.pop("num_train_timesteps", None)
    if rng.random() < 0.2:
        config["_use_default_values"] = rng.sample(sorted(config), min(2, len(config)))
    return config, table, draw(rng, arguments, 0.6), order


def run(case, stream):
    cls = getattr(diffusers, GRID[case["name"]][0])
    config = {k: (-float("inf") if v == "-Infinity" else v) for k, v in case["config"].items()}
    table = {k: (-float("inf") if v == "-Infinity" else v) for k, v in case["table"].items()}
    arguments = {k: (float("inf") if v == "Infinity" else v) for k, v in case["arguments"].items()}
    module = importlib.import_module(cls.__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda shape, **_: stream.tensor(shape)
    scheduler = cls.from_config(config, **table)
    if hasattr(scheduler, "noise_sampler_seed"):
        seed = scheduler.noise_sampler_seed
        # One path a picture, so that a picture does not depend on its neighbours.
        scheduler.noise_sampler_seed = [case["seed"] + i if seed is None else seed for i in range(SHAPE[0])]
    options = {"mu": case["mu"]} if case.get("mu") is not None else {}
    given = {key: np.array(case[key]) if key == "sigmas" else case[key] for key in ("timesteps", "sigmas") if key in case}
    scheduler.set_timesteps(**(given or {"num_inference_steps": case["steps"]}), **options)
    begin = case["begin"]
    timesteps = scheduler.timesteps[begin:]
    if begin > 0:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x0, first = stream.tensor(SHAPE) * 0.5, stream.tensor(SHAPE)
        if hasattr(scheduler, "add_noise"):
            x = scheduler.add_noise(x0, first, timesteps[:1].repeat(SHAPE[0]))
        else:
            x = scheduler.scale_noise(x0, timesteps[:1], first)
    else:
        x = stream.tensor(SHAPE) * getattr(scheduler, "init_noise_sigma", 1.0)
    sigma = float(getattr(scheduler, "init_noise_sigma", 1.0))
    record = [np.float32([sigma]), scheduler.timesteps.numpy().astype(np.float32), x.numpy().ravel()]
    learned = "variance_type" in GRID[case["name"]][2] and scheduler.config.variance_type in ("learned", "learned_range")
    for t in timesteps:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(scaled, t, learned), t, x, **arguments).prev_sample
        record.append(x.numpy().astype(np.float32).ravel())
    case["learned"] = learned
    case["calls"] = len(scheduler.timesteps)
    return np.concatenate(record).astype(np.float32)


@contextlib.contextmanager
def nearest_roundings():
    """Exponentials, logarithms and square roots of tensors rounded to the nearest float32.

    torch's own are one unit in the last place off for one exponential in a hundred, others on other processors. Where
    times of a Brownian path are rounded to six decimals, that unit decides between two of them.
    """
    power = torch.Tensor.__pow__
    torch.Tensor.__pow__ = lambda self, exponent: power(self.double(), exponent).to(self.dtype)
    torch.Tensor.exp = lambda self: self.double().apply_(math.exp).to(self.dtype)
    torch.Tensor.log = lambda self: self.double().apply_(lambda x: math.log(x) if x > 0 else -math.inf).to(self.dtype)
    try:
        yield
    finally:
        del torch.Tensor.exp, torch.Tensor.log
        torch.Tensor.__pow__ = power


def depends_on_the_processor(case, record):
    with nearest_roundings():
        other = run(case, Stream(case["seed"]))
    return not np.allclose(other, record, rtol=0, atol=2e-6 * np.abs(record).max())


def text(value):
    return {float("inf"): "Infinity", -float("inf"): "-Infinity"}.get(value, value) if isinstance(value, float) else value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=60, help="configurations a scheduler")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parent.parent / "tests/golden/schedulers"))
    parser.add_argument("names", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    for name in options.names or GRID:
        rng = random.Random(f"{name} {options.seed}")
        lines, values, skipped, refusals = [], b"", {}, 0
        while len(lines) < options.count:
            config, table, arguments, order = configuration(rng, name)
            steps = rng.choice([1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 16])
            seed = rng.randrange(2**31)
            begin = rng.randrange(steps) * order if rng.random() < 0.3 and name != "ipndm" else 0
            case = {"name": name, "steps": steps, "begin": begin, "seed": seed}
            if {**config, **table}.get("use_dynamic_shifting") and rng.random() < 0.8:
                case["mu"] = rng.choice([0.5, 0.9, 1.15])
            for group, content in (("config", config), ("table", table), ("arguments", arguments)):
                case[group] = {key: text(value) for key, value in content.items()}
            try:
                record = run(case, Stream(seed))
            except (ValueError, NotImplementedError) as error:
                refusals += 1
                if refusals <= options.count // 10:
                    case["refused"] = str(error)[:60]
                    lines.append(case)
                continue
            except Exception as error:
                kind = f"{type(error).__name__}: {str(error)[:70]}"
                skipped[kind] = skipped.get(kind, 0) + 1
                continue
            if "DPMSolverSDE" in GRID[name][0] and depends_on_the_processor(case, record):
                skipped["depends on the processor"] = skipped.get("depends on the processor", 0) + 1
                continue
            if not np.isfinite(record).all():
                skipped["not finite"] = skipped.get("not finite", 0) + 1
                continue
            lines.append(case)
            values += struct.pack(f"<{record.size}f", *record)
        with open(out / f"{name}.jsonl", "w") as file:
            for case in lines:
                case = {key: value for key, value in case.items() if value or key in ("steps", "begin", "seed")}
                file.write(json.dumps(case, separators=(",", ":")) + "\n")
        (out / f"{name}.f32").write_bytes(values)
        print(f"{name}: {len(lines)} configurations, {refusals} refused, skipped {skipped}")


if __name__ == "__main__":
    main()
