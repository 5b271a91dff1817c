#!/usr/bin/env python3
"""Makes tests/golden/text/t5.npy: what transformers' T5 encoder makes of prompts, [prompt, token, width].

Run from the root of the repository, after scripts/goldens/golden_tokenizer_t5.py and with the same packages:

    python scripts/goldens/golden_t5.py

The encoder is that of tests/fixtures/families/sd3 (scripts/fixtures/make_families.py), told no attention mask.
"""

import os

import numpy as np
import torch
from transformers import T5TokenizerFast

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from make_families import t5

PROMPTS = ["a red circle above a blue square", "the mountain in the evening light, " * 9]
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests")


def main():
    torch.set_grad_enabled(False)
    tokenizer = T5TokenizerFast.from_pretrained(f"{ROOT}/fixtures/tokenizer-t5")
    ids = tokenizer(PROMPTS, padding="max_length", max_length=48, truncation=True, return_tensors="pt").input_ids
    os.makedirs(f"{ROOT}/golden/text", exist_ok=True)
    np.save(f"{ROOT}/golden/text/t5.npy", t5(585, 40)(ids)[0].numpy())


if __name__ == "__main__":
    main()
