"""Makes tests/golden/tokenizer/gemma.json: what transformers' fast Gemma tokenizer makes of awkward prompts.

Run from the repository's root, after scripts/fixtures/make_families.py and with what scripts/requirements.txt names:

    python scripts/goldens/golden_tokenizer_gemma.py

The tokenizer is that of tests/fixtures/families/sana, padded on the right as Sana's pipeline pads:

    gemma      as its files have it: the beginning of text before every prompt, and nothing behind it
    gemma-eos  with add_bos_token = false and add_eos_token = true in tokenizer_config.json
"""

import json
import logging
from pathlib import Path

import transformers

from golden_tokenizer_texts import PROMPTS, padded_rows

logging.disable(logging.WARNING)
FIXTURE = Path("tests/fixtures/families/sana/tokenizer")
GOLDEN = Path("tests/golden/tokenizer/gemma.json")
LENGTH = 48


def goldens(**settings):
    tokenizer = transformers.GemmaTokenizerFast.from_pretrained(FIXTURE, **settings)
    tokenizer.padding_side = "right"
    return padded_rows(tokenizer, LENGTH)


def main():
    found = {"gemma": goldens(), "gemma-eos": goldens(add_bos_token=False, add_eos_token=True)}
    lines = ",\n".join(json.dumps(prompt) for prompt in PROMPTS)
    parts = [f'"prompts": [\n{lines}\n]']
    for name, rows in found.items():
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        parts.append(f'"{name}": [\n{lines}\n]')
    GOLDEN.write_text("{\n" + ",\n".join(parts) + "\n}\n", encoding="utf-8")
    print(f"{len(PROMPTS)} prompts, {GOLDEN.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
