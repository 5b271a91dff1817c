"""Makes tests/fixtures/tokenizer-t5 and tests/golden/tokenizer/t5.json: what transformers' fast T5 tokenizer makes of
awkward prompts.

Run from the repository's root, with what scripts/requirements.txt names:

    python scripts/goldens/golden_tokenizer_t5.py

The tokenizer is trained here, by SentencePiece as T5's was, on the words of tests/fixtures/tokenizer-sd1, each as often
as its place in that vocabulary says. Its normalisation is a few hundred of the rules of T5's, which are a quarter of a
megabyte. transformers turns it into tokenizer.json, whose ids are those of SentencePiece:

    t5         as transformers 4.40 and later write it
    t5-older   as earlier ones wrote it, with words split before they are marked; the test makes the file out of the other
"""

import io
import json
import logging
import shutil
import tempfile
import unicodedata
from pathlib import Path

import sentencepiece
import transformers

from golden_tokenizer_texts import PROMPTS, padded_rows

logging.disable(logging.WARNING)
FIXTURE = Path("tests/fixtures/tokenizer-t5")
GOLDEN = Path("tests/golden/tokenizer/t5.json")
WORDS = Path("tests/fixtures/tokenizer-sd1/vocab.json")
PIECES, EXTRA, LENGTH = 320, 2, 48


def sentences():
    """Words by falling frequency, ten a line."""
    vocabulary = json.loads(WORDS.read_text(encoding="utf-8"))
    ranked = [t[:-4] for t, _ in sorted(vocabulary.items(), key=lambda item: item[1]) if t.endswith("</w>")]
    ranked = [w for w in ranked if w.isascii() and (w.isalpha() or len(w) == 1)]
    spread = [(k * (rank + 1), w) for rank, w in enumerate(ranked) for k in range(1, 1 + 400 // (rank + 1))]
    words = [w for _, w in sorted(spread)]
    return [" ".join(words[i : i + 10]) for i in range(0, len(words), 10)]


def rules():
    """Lines of SentencePiece's normalisation: code points, and what becomes of them."""
    found = {c: unicodedata.normalize("NFKC", c) for prompt in PROMPTS for c in prompt if ord(c) < 0x3000}
    found |= {chr(c): unicodedata.normalize("NFKC", chr(c)) for c in range(0xFF01, 0xFF5F)}
    found |= {c + m: unicodedata.normalize("NFC", c + m) for c in "aeiou" for m in "\u0300\u0301\u0308"}
    found |= {chr(c): " " for c in (*range(1, 32), 0x7F, 0x85, 0x200B, 0x2028, 0x3000, 0xFEFF)}
    points = lambda text: " ".join(f"{ord(c):X}" for c in text)
    return "".join(f"{points(a)}\t{points(b)}\n" for a, b in sorted(found.items()) if a != b and a != "\0")


def older(tokenizer):
    """The stages that T5's tokenizer.json had before transformers 4.40."""
    tokenizer["normalizer"] = tokenizer["normalizer"]["normalizers"][0]
    marked = {"type": "Metaspace", "replacement": "▁", "add_prefix_space": True}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, marked]}
    tokenizer["decoder"] = marked
    return tokenizer


def goldens(folder):
    tokenizer = transformers.T5TokenizerFast.from_pretrained(folder)
    return padded_rows(tokenizer, LENGTH)


def main():
    with tempfile.TemporaryDirectory() as temp:
        Path(temp, "rules.tsv").write_text(rules(), encoding="utf-8")
        model = io.BytesIO()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences()),
            model_writer=model,
            vocab_size=PIECES,
            normalization_rule_tsv=f"{temp}/rules.tsv",
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            num_threads=1,
            minloglevel=2,
        )
        Path(temp, "own").mkdir()
        Path(temp, "own/spiece.model").write_bytes(model.getvalue())
        options = {"extra_ids": EXTRA, "model_max_length": LENGTH}
        transformers.T5TokenizerFast.from_pretrained(f"{temp}/own", **options).save_pretrained(f"{temp}/saved")
        slow = transformers.T5Tokenizer.from_pretrained(f"{temp}/own", **options, legacy=True)
        shutil.rmtree(FIXTURE, ignore_errors=True)
        FIXTURE.mkdir(parents=True)
        tokenizer = json.loads(Path(temp, "saved/tokenizer.json").read_text(encoding="utf-8"))
        compact = lambda value: json.dumps(value, ensure_ascii=False, separators=(",", ":")) + "\n"
        (FIXTURE / "tokenizer.json").write_text(compact(tokenizer), encoding="utf-8")
        shutil.copy(f"{temp}/saved/tokenizer_config.json", FIXTURE)
        Path(temp, "saved/tokenizer.json").write_text(compact(older(tokenizer)), encoding="utf-8")
        found = {"t5": goldens(FIXTURE), "t5-older": goldens(f"{temp}/saved")}
        for prompt, row in zip(PROMPTS, found["t5"]):
            kept = [i for i in row["ids"] if i != slow.pad_token_id]
            assert slow(prompt, max_length=LENGTH, truncation=True).input_ids == kept, prompt
    lines = ",\n".join(json.dumps(prompt) for prompt in PROMPTS)
    with open(GOLDEN, "w") as file:
        file.write(f'{{"prompts": [\n{lines}\n]')
        for name, rows in found.items():
            rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
            file.write(f',\n"{name}": {{"pad": 0, "rows": [\n{rows}\n]}}')
        file.write("\n}\n")


if __name__ == "__main__":
    main()
