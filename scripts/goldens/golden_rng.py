"""Makes tests/golden/rng/: what torch, numpy and torchsde draw for several seeds and sequences of calls.

Run from the repository's root, on a processor with AVX2, with PyTorch 2.8, NumPy and torchsde 0.2.6:

    python scripts/goldens/golden_rng.py

NAME.json lists the cases of a stream, each a seed and the lengths of its calls; NAME.npy holds the values of all cases
one after the other, float32 or, where that holds them exactly, float16. The cases of brownian_tree.json are a seed, the
stretch of time and the size of a path, and the pairs of times whose change was asked for.
"""

import json
import random
import warnings
from pathlib import Path

import numpy as np
import torch
import torchsde

OUT = Path("tests/golden/rng")


def write(name, cases, values, dtype=np.float32):
    OUT.mkdir(parents=True, exist_ok=True)
    np.save(OUT / f"{name}.npy", np.concatenate(values).astype(dtype))
    lines = ",\n".join("  " + json.dumps(case) for case in cases)
    (OUT / f"{name}.json").write_text(f"[\n{lines}\n]\n")


def torch_cpu(cases, dtype):
    values = []
    for case in cases:
        generator = torch.Generator("cpu").manual_seed(case["seed"])
        values += [torch.randn(n, generator=generator, dtype=dtype).float().numpy() for n in case["calls"]]
    return values


def numpy_legacy(cases):
    values = []
    for case in cases:
        generator = np.random.RandomState(case["seed"])
        values += [generator.randn(n).astype(np.float32) for n in case["calls"]]
    return values


def brownian_tree(cases):
    values = []
    for case in cases:
        tree = torchsde.BrownianInterval(
            t0=case["stretch"][0],
            t1=case["stretch"][1],
            size=(case["size"],),
            dtype=torch.float32,
            device="cpu",
            entropy=case["seed"],
            tol=1e-6,
            pool_size=24,
            halfway_tree=True,
        )
        for a, b in case["queries"]:
            change = tree(min(a, b), max(a, b)) * (1.0 if a < b else -1.0)
            values.append(change.numpy())
    return values


def single(x):
    """A number as a float32 holds it."""
    return float(np.float32(x))


def paths(rng):
    """Paths as samplers ask about them, falling step by step with a stop halfway, and at random."""
    cases = []
    for size in (6, 16, 36):
        for seed in (0, 42, 2**32 - 1, 2**40 + 3):
            low, high = single(rng.uniform(0.002, 0.1)), single(rng.choice([1.5, 14.61464, 80.0, 700.0]))
            levels = [single(x) for x in np.geomspace(high, low, rng.choice([3, 5]))]
            queries = []
            for a, b in zip(levels, levels[1:]):
                queries += [[a, single((a * b) ** 0.5)], [a, b]]
            queries += [[single(rng.uniform(low, high)), single(rng.uniform(low, high))] for _ in range(2)]
            cases.append({"seed": seed, "stretch": [low, high], "size": size, "queries": queries})
    return cases


def main():
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")

    mixed = [
        # The second value of a pair waits through calls of other lengths, odd and even, short and long.
        {"seed": 5, "calls": [1, 1, 1, 2, 3, 15, 14]},
        {"seed": 6, "calls": [3, 64, 1, 17, 2, 16, 5, 31, 1]},
        {"seed": 7, "calls": [100, 1, 100, 2, 1000, 3, 15, 624, 1]},
        {"seed": 8, "calls": [64, 64, 64, 36, 36]},
    ]
    cases = [{"seed": seed, "calls": [n]} for seed in (0, 42) for n in range(1, 41)]
    cases += [
        {"seed": seed, "calls": [n]} for seed in (1, 2**32 - 1, 2**32 + 42, 2**63 + 7) for n in (7, 64, 4 * 16 * 16)
    ]
    cases += [{"seed": 123456789, "calls": [4 * 64 * 64]}]
    cases += mixed
    write("torch_cpu", cases, torch_cpu(cases, torch.float32))

    cases = [{"seed": seed, "calls": [n]} for seed in (0, 42) for n in (1, 4, 15, 16, 17, 31, 32, 40)]
    cases += [{"seed": 2**32 + 42, "calls": [4 * 32 * 32]}]
    cases += mixed
    write("torch_cpu_float16", cases, torch_cpu(cases, torch.float16), np.float16)
    # float16 lacks the range that small bfloat16 numbers have.
    write("torch_cpu_bfloat16", cases, torch_cpu(cases, torch.bfloat16))

    cases = [{"seed": seed, "calls": [n]} for seed in (0, 42, 2**32 - 1) for n in (1, 4, 17)]
    cases += [{"seed": 123456789, "calls": [4 * 16 * 16]}]
    cases += mixed[:3]
    write("numpy", cases, numpy_legacy(cases))

    cases = paths(random.Random(1))
    write("brownian_tree", cases, brownian_tree(cases))


main()
