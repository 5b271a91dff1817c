#!/usr/bin/env python3
"""Records what diffusers' schedulers compute, for tests/it/schedulers.

Needs: pip install "diffusers==0.39.0" "torch==2.8.0" numpy scipy torchsde
Run:   OMP_NUM_THREADS=1 python scripts/goldens/golden_schedulers.py [--count N] [--seed S] [--out DIR] [NAME ...]

Configurations are drawn at random from all keys of each class (scripts/goldens/scheduler_grid.py), loaded with `from_config` as
a pipeline loads them, and run over a formula in place of a model, from noise that both languages compute from a seed.
NAME.zip holds two files. In runs.jsonl one line a configuration says what was run. values.planes holds, one
configuration after the other: init_noise_sigma, the timesteps, and of the first sample and the one after every step one
value of each image, another one each time, and of the last sample all;
as little-endian float32, the first byte of all values, then the second of all, the third and the fourth, which packs a
tenth better. Configurations that diffusers refuses by a ValueError or NotImplementedError are recorded as refused; those
in which it fails otherwise, ends in what is not a number, or (dpm-sde) depends on the processor, are left out.

With --against DIR nothing is recorded: the runs of DIR are made once more and compared, which tells where diffusers
depends on the processor. ATEN_CPU_CAPABILITY=default or MKL_CBWR=COMPATIBLE before the command takes other paths through
the mathematical library than a processor with AVX-512 does.

keys.json lists the keys of each class with their defaults, as its constructor has them.
"""

import argparse
import contextlib
import importlib
import inspect
import json
import math
import pathlib
import random
import warnings
import zipfile

import numpy as np
import torch
import diffusers
from diffusers.utils import logging

from scheduler_grid import COMMON, GRID

SHAPE = (2, 3, 1, 2)
STEPS = [1, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 8, 10, 12, 15, 17]


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

    def value(values):
        return round(rng.uniform(*values), 4) if isinstance(values, tuple) else rng.choice(values)

    return {key: value(values) for key, values in keys.items() if rng.random() < often}


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
    if table.get("solver_order", 0) > 3:
        # An order that only UniPC has is read from a model's file; in a pipeline's own table it is refused.
        config["solver_order"] = table.pop("solver_order")
    for section in (config, table):
        if section.get("solver_p") and rng.random() < 0.7:
            shared = {k: v for k, v in {**config, **table}.items() if k in (*COMMON, "trained_betas")}
            section["solver_p"] = {**shared, **section["solver_p"]}
    if rng.random() < 0.2:
        config["_use_default_values"] = rng.sample(sorted(config), min(2, len(config)))
    return config, table, draw(rng, arguments, 0.6), order


def number(value):
    return {"Infinity": float("inf"), "-Infinity": -float("inf")}.get(value, value) if isinstance(value, str) else value


def objects(case, config, table, arguments):
    """Takes from the configuration what a file cannot hold as Python has it, and returns that."""
    found = {}
    if case["name"] == "unipc":
        given = {**config, **table}.get("solver_p")
        if given and not ("solver_p" not in table and "solver_p" in config.get("_use_default_values", [])):
            found["solver_p"] = getattr(diffusers, given["_class_name"]).from_config(given)
    config.pop("solver_p", None)
    table.pop("solver_p", None)
    if case["name"] == "sa-solver" and arguments:
        size, start, end = (arguments.pop(k, d) for k, d in (("tau", 1.0), ("tau_start", 200), ("tau_end", 800)))
        found["tau_func"] = lambda t: size if start <= t <= end else 0
    return found


def add_noise(scheduler, begin, x0, noise):
    """The sample at which a run is entered; by the papers' formulae for the classes that have no method for it."""
    t = scheduler.timesteps[begin]
    if hasattr(scheduler, "add_noise"):
        return scheduler.add_noise(x0, noise, t.repeat(SHAPE[0]))
    if hasattr(scheduler, "scale_noise"):
        return scheduler.scale_noise(x0, t.repeat(1), noise)
    if isinstance(scheduler, diffusers.SCMScheduler):
        return torch.cos(t) * x0 + torch.sin(t) * (noise * scheduler.config.sigma_data)
    level = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    alpha = scheduler.alphas_cumprod[level] if level >= 0 else scheduler.initial_alpha_cumprod
    return alpha**0.5 * x0 + (1 - alpha) ** 0.5 * noise


def construct(cls, config, given):
    """`from_config`, without the schedule of all training timesteps that some constructors make and a run replaces."""
    set_timesteps = cls.set_timesteps
    cls.set_timesteps = lambda self, *_: setattr(self, "sigmas", torch.zeros(1))
    try:
        return cls.from_config(config, **given)
    finally:
        cls.set_timesteps = set_timesteps


def run(case, stream):
    cls = getattr(diffusers, GRID[case["name"]][0])
    config, table, arguments = ({k: number(v) for k, v in case[g].items()} for g in ("config", "table", "arguments"))
    module = importlib.import_module(cls.__module__)
    if hasattr(module, "randn_tensor"):
        module.randn_tensor = lambda shape, **_: stream.tensor(shape)
    given = objects(case, config, table, arguments)
    scheduler = construct(cls, config, {**table, **given})
    if hasattr(scheduler, "noise_sampler_seed"):
        seed = scheduler.noise_sampler_seed
        # One path a picture, so that a picture does not depend on its neighbours.
        scheduler.noise_sampler_seed = [case["seed"] + i if seed is None else seed for i in range(SHAPE[0])]
    options = {"mu": case["mu"]} if case.get("mu") is not None else {}
    if case["name"] == "scm":
        options, arguments = {"intermediate_timesteps": 1.3 if case["steps"] == 2 else None, **arguments}, {}
    lists = {key: np.array(case[key]) if key == "sigmas" else case[key] for key in ("timesteps", "sigmas") if key in case}
    scheduler.set_timesteps(**(lists or {"num_inference_steps": case["steps"]}), **options)
    if "solver_p" in given and scheduler.timesteps.tolist() != given["solver_p"].timesteps.tolist():
        # diffusers goes on, and corrects for other timesteps than those predicted for.
        raise ValueError("solver_p visits other timesteps")
    if case["name"] == "scm":
        # The last angle is where the run ends; no call is made there.
        calls = scheduler.timesteps[:-1]
    else:
        calls = scheduler.timesteps
    begin = case["begin"]
    if begin > 0:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        elif (calls == calls[begin]).sum() > 1:
            raise RuntimeError("the class looks its begin up by a timestep that comes twice")
        x0, first = stream.tensor(SHAPE) * 0.5, stream.tensor(SHAPE)
        x = add_noise(scheduler, begin, x0, first)
    else:
        x = stream.tensor(SHAPE) * getattr(scheduler, "init_noise_sigma", 1.0)
    sigma = float(getattr(scheduler, "init_noise_sigma", 1.0))
    record = [np.float32([sigma]), calls.numpy().astype(np.float32), x.numpy().ravel()]
    learned = "variance_type" in GRID[case["name"]][2] and scheduler.config.variance_type in ("learned", "learned_range")
    for t in calls[begin:]:
        scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
        x = scheduler.step(model(scaled, t, learned), t, x, **arguments).prev_sample
        record.append(x.numpy().astype(np.float32).ravel())
    case["learned"] = learned
    case["calls"] = len(calls)
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


def keys():
    """The constructor's keys and defaults of every class of the grid, as JSON."""
    classes = {}
    for name, *_ in GRID.values():
        parameters = inspect.signature(getattr(diffusers, name).__init__).parameters.values()
        named = (p for p in parameters if p.name != "self" and p.kind is not p.VAR_KEYWORD)
        classes[name] = {p.name: text(p.default) for p in named}
    return json.dumps(classes, indent=1) + "\n"


def thinned(record, case):
    """What is kept of a record: of each sample one value of each image, in turn, and of the last sample all."""
    first, size = 1 + case["calls"], int(np.prod(SHAPE))
    each = size // SHAPE[0]
    samples = record[first:].reshape(-1, size)
    parts = [sample[i % each :: each] for i, sample in enumerate(samples[:-1])]
    return np.concatenate([record[:first], *parts, samples[-1]])


def planes(values):
    """Bytes of float32 regrouped: the first byte of all values, the second of all, and so on."""
    return np.frombuffer(values, np.uint8).reshape(-1, 4).T.tobytes()


def write(path, cases, values):
    keep = ("steps", "begin", "seed")
    cases = [{key: value for key, value in case.items() if value or key in keep} for case in cases]
    lines = "".join(json.dumps(case, separators=(",", ":")) + "\n" for case in cases)
    with zipfile.ZipFile(path, "w") as file:
        for member, content in (("runs.jsonl", lines.encode()), ("values.planes", planes(b"".join(values)))):
            file.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED, 9)


def compare(recording):
    """Makes the runs of a recording again, and prints those that come out otherwise by more than 1e-5."""
    with zipfile.ZipFile(recording) as file:
        cases = [json.loads(line) for line in file.read("runs.jsonl").splitlines()]
        values = np.frombuffer(file.read("values.planes"), np.uint8).reshape(4, -1).T.copy().view("<f4").ravel()
    worst = 0.0
    for case in (case for case in cases if "refused" not in case):
        groups = {group: case.get(group, {}) for group in ("config", "table", "arguments")}
        whole = run({**case, **groups}, Stream(case["seed"]))
        again, first = thinned(whole, case), 1 + case["calls"]
        before, values = values[: again.size], values[again.size :]
        samples, each = whole[first:].reshape(-1, np.prod(SHAPE)), SHAPE[0]
        ends = first + np.arange(len(samples)) * each
        parts = [(np.abs(before[e : e + each] - again[e : e + each]), s) for e, s in zip(ends[:-1], samples)]
        parts.append((np.abs(before[ends[-1] :] - again[ends[-1] :]), samples[-1]))
        apart = max(difference.max() / np.abs(sample).max() for difference, sample in parts)
        worst = max(worst, apart)
        if not apart <= 1e-5:
            print(f"{apart:.1e} apart: {json.dumps(case)}")
    print(f"{recording.stem}: {worst:.1e} at most")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=200, help="configurations a scheduler")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", default=str(pathlib.Path(__file__).parents[2] / "tests/golden/schedulers"))
    parser.add_argument("--against", help="a folder of recordings to make again and compare")
    parser.add_argument("names", nargs="*", default=[])
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.set_verbosity(logging.CRITICAL)
    if options.against:
        for name in options.names or GRID:
            compare(pathlib.Path(options.against) / f"{name}.zip")
        return
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    if not options.names:
        (out / "keys.json").write_text(keys())
    for name in options.names or GRID:
        rng = random.Random(f"{name} {options.seed}")
        lines, values, skipped, refusals = [], [], {}, 0
        while len(lines) < options.count:
            config, table, arguments, order = configuration(rng, name)
            steps = rng.choice(STEPS)
            seed = rng.randrange(2**31)
            begin = rng.randrange(steps) * order if rng.random() < 0.3 and name != "ipndm" else 0
            if {**config, **table}.get("solver_order", 0) > 2:
                # Stochastic algorithms may lack the third order, which a run entered late might not come to.
                begin = 0
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
            values.append(thinned(record, case).astype("<f4").tobytes())
        write(out / f"{name}.zip", lines, values)
        print(f"{name}: {len(lines)} configurations, {refusals} refused, skipped {skipped}")


if __name__ == "__main__":
    main()
