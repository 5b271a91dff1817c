"""Makes tests/fixtures/tokenizer-*/ and tests/golden/tokenizer/prompts.json: what transformers' fast CLIP tokenizer
makes of awkward prompts.

Run from the repository's root, with transformers 4.57 (tokenizers 0.22):

    python scripts/goldens/golden_tokenizer.py

The vocabulary in tests/fixtures/tokenizer-sd1, 1,200 tokens learnt from plain English sentences, is where all others
come from; the rest of the fixtures are the forms that such files have had over the years, made from it here:

    tokenizer-sd1      files as transformers 4.34 and later write them, padding with <|endoftext|>
    tokenizer-sd2      the same, padding with "!"
    tokenizer-json     tokenizer.json alone does the work, written with the truncation and padding of an earlier call
    tokenizer-objects  special tokens as objects in special_tokens_map.json, as Stable Diffusion 1 has them
    tokenizer-strings  special tokens as strings, an added token, no usable length, truncated on the left

Only the small files of all but the first and the third are kept; the test puts vocab.json and merges.txt of the first
beside them.
"""

import json
import logging
import shutil
import tempfile
from pathlib import Path

import transformers

from golden_tokenizer_texts import PROMPTS

logging.disable(logging.WARNING)
FIXTURES = Path("tests/fixtures")
GOLDEN = Path("tests/golden/tokenizer")
BASE = FIXTURES / "tokenizer-sd1"


def special(content, **flags):
    return {"content": content, "lstrip": False, "normalized": True, "rstrip": False, "single_word": False} | flags


def write(directory, **files):
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for name, content in files.items():
        (directory / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")


BOS, EOS = "<|startoftext|>", "<|endoftext|>"
config = json.loads((BASE / "tokenizer_config.json").read_text())
write(
    FIXTURES / "tokenizer-sd2",
    tokenizer_config=config
    | {
        "pad_token": "!",
        "added_tokens_decoder": {"0": special("!", normalized=False, special=True)} | config["added_tokens_decoder"],
    },
)
write(
    FIXTURES / "tokenizer-objects",
    special_tokens_map={
        "bos_token": special(BOS),
        "eos_token": special(EOS),
        "pad_token": EOS,
        "unk_token": special(EOS),
    },
    tokenizer_config={
        "add_prefix_space": False,
        "bos_token": {"__type": "AddedToken"} | special(BOS),
        "do_lower_case": True,
        "eos_token": {"__type": "AddedToken"} | special(EOS),
        "errors": "replace",
        "model_max_length": 77,
        "pad_token": EOS,
        "tokenizer_class": "CLIPTokenizer",
        "unk_token": {"__type": "AddedToken"} | special(EOS),
    },
)
write(
    FIXTURES / "tokenizer-strings",
    special_tokens_map={"bos_token": BOS, "eos_token": EOS, "pad_token": "!", "unk_token": EOS},
    tokenizer_config={
        "model_max_length": int(1e30),
        "tokenizer_class": "CLIPTokenizer",
        "truncation_side": "left",
    },
    added_tokens={"<cat-toy>": 1200},
)

goldens = {}
for name in ["sd1", "sd2", "json", "objects", "strings"]:
    fixture = FIXTURES / f"tokenizer-{name}"
    with tempfile.TemporaryDirectory() as directory:
        for source in [BASE if name == "json" else fixture]:
            shutil.copytree(source, directory, dirs_exist_ok=True)
        for file in ["vocab.json", "merges.txt"]:
            shutil.copy(BASE / file, directory)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(directory)
        if name == "json":
            tokenizer("a call", padding="max_length", max_length=16, truncation=True)
            write(fixture)
            tokenizer.backend_tokenizer.save(str(fixture / "tokenizer.json"), pretty=False)
            shutil.copy(BASE / "tokenizer_config.json", fixture)
            tokenizer = transformers.CLIPTokenizerFast.from_pretrained(fixture)
    length = min(tokenizer.model_max_length, 77)
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        whole = tokenizer(prompt).input_ids
        # The padding's length is all there is to say of it.
        while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_token_id:
            ids.pop()
        rows.append({"ids": ids, "cut": max(len(whole) - length, 0)})
    goldens[name] = {"pad": tokenizer.pad_token_id, "rows": rows}

GOLDEN.mkdir(parents=True, exist_ok=True)
with open(GOLDEN / "prompts.json", "w") as file:
    lines = ",\n".join(json.dumps(prompt) for prompt in PROMPTS)
    file.write(f'{{"prompts": [\n{lines}\n]')
    for name, golden in goldens.items():
        rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in golden["rows"])
        file.write(f',\n"{name}": {{"pad": {golden["pad"]}, "rows": [\n{rows}\n]}}')
    file.write("\n}\n")
