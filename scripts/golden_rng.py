"""Makes tests/golden/rng/: what torch.Generator("cpu") draws for several seeds and sequences of calls.

Run from the repository's root, on a processor with AVX2, with PyTorch 2.8 and NumPy:

    python scripts/golden_rng.py

torch_cpu.json lists the cases, each a seed and the lengths of its calls of torch.randn; torch_cpu.npy holds the
values of all cases one after the other, float32.
"""

import json
from pathlib import Path

import numpy as np
import torch

OUT = Path("tests/golden/rng")

cases = [{"seed": seed, "calls": [n]} for seed in (0, 42) for n in range(1, 41)]
cases += [{"seed": seed, "calls": [n]} for seed in (1, 2**32 - 1, 2**32 + 42, 2**63 + 7) for n in (7, 64, 4 * 16 * 16)]
cases += [{"seed": 123456789, "calls": [4 * 64 * 64]}]
cases += [
    # The second value of a pair waits through calls of other lengths, odd and even, short and long.
    {"seed": 5, "calls": [1, 1, 1, 2, 3, 15, 14]},
    {"seed": 6, "calls": [3, 64, 1, 17, 2, 16, 5, 31, 1]},
    {"seed": 7, "calls": [100, 1, 100, 2, 1000, 3, 15, 624, 1]},
    {"seed": 8, "calls": [64, 64, 64, 36, 36]},
]

torch.set_num_threads(1)
values = []
for case in cases:
    generator = torch.Generator("cpu").manual_seed(case["seed"])
    values += [torch.randn(n, generator=generator).numpy() for n in case["calls"]]

OUT.mkdir(parents=True, exist_ok=True)
np.save(OUT / "torch_cpu.npy", np.concatenate(values))
lines = ",\n".join("  " + json.dumps(case) for case in cases)
(OUT / "torch_cpu.json").write_text(f"[\n{lines}\n]\n")
