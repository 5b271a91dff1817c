#!/usr/bin/env python3
"""Makes tests/golden/tokenizer/cleaning.json: prompts as transformers 4's CLIPTokenizer reads them, with ftfy and without.

Run from the root of the repository, with transformers 4, ftfy and regex installed:

    python scripts/goldens/golden_tokenizer_cleaning.py

`natural` are prompts that people may write, `random` are strings of the characters that text in a wrong encoding consists
of, and of others. A row has the ids without padding of each way of cleaning, and `repaired`: whether ftfy changed the
text's encoding, which is not done in Rust.
"""

import json
import os
import random

import ftfy
from ftfy import badness
from transformers import CLIPTokenizer
from transformers.models.clip.tokenization_clip import BasicTokenizer

HERE = os.path.dirname(os.path.abspath(__file__))
FIXTURE = os.path.join(HERE, "..", "..", "tests", "fixtures", "tokenizer-sd1")
OUT = os.path.join(HERE, "..", "..", "tests", "golden", "tokenizer", "cleaning.json")

NATURAL = [
    "a red circle above a blue square",
    "“a red circle”, ‘blue’ and ‚so‛ „on‟ — it’s – nice… ―",
    "‘It’s a café’s “naïve” façade,’ she said: “l’été”",
    "the ﬁrst ﬂuﬀy oﬃce aﬄuent beﬆ ﬅ ĳ Ĳ ŉ ǆ Ǆ ǅ Ǉ ǳ",
    "salt &amp; pepper &lt;b&gt; &quot;x&quot; &nbsp;&eacute; &EACUTE; &Eacute;&#233;&#xE9; &#x2603;&hearts;&hellip;&SZLIG;",
    "&amp;amp; &amp;lt; &AMP; &COPY; &COPYSR; &NTILDE; &nTILDE; &bogus; &; &#; &#x; &#59; &#0; &#1; &#xD800; &#x110000;",
    "<b>&amp;</b> stays\nand &lt; on the next line too",
    "&lt; first\n<b> then &amp;",
    "&amp &lt &#65 &#65;&#x41;&#X41; &thorn; &NotEqualTilde; &fjlig;",
    "ＦＵＬＬ　ＷＩＤＴＨ １２３！ ｶﾀｶﾅ ﾊﾟ ￠ ￡ ￥ ﾡﾢ",
    "\x1b[31mred\x1b[0m \x1b[1;2Kx \x1b[ y \x1b",
    "a\x00b\x01c\x0bd\x0ce\x1ff\x7fg\ufeffh\u206ai\ufff9j\ufffck\u200bl\u200dm\u2028n\u2029o\tp\rq\r\ns",
    "一只猫在山上 and 日本の山、カタカナ 한국어",
    "мама мыла раму, ЁЛКА и Їжак; ελληνικά ΕΛΛΗΝΙΚΆ ΣΊΣΥΦΟΣ μ² π",
    "Zażółć gęślą jaźń, Příliš žluťoučký kůň, İSTANBUL ıI ğ, ÅNGSTRÖM, Straße STRASSE, Ærø, œuvre Œuvre",
    "Tiếng Việt, हिन्दी देवनागरी, العربية, עברית, ไทย",
    "5 € for £3 and ¥200, ½ cup, 20 °C, 3 × 4, m², §5, © 2020 ® ™, 1ª nº",
    "« Été » à la française, ¿qué? ¡Sí! “Ça”, «привет», „Größe“",
    "emoji 😀 👨‍👩‍👧 ❤️ 🇫🇷 ☃",
    "e\u0301 J\u030c A\u030a \u212b \u1e9b\u0323 \u0344 ẞ ﬃ",
    "<|startoftext|>a<|endoftext|>b !<|endoftext|> 1<|endoftext|><|endoftext|>",
    "&lt;|endoftext|&gt; <|ENDOFTEXT|> a<|EndOfText|>",
    "it's I'M they'Re we'LL don't 'S 'ſ 'K 've",
    "  spaces \u00a0\u2003\u3000 and\n\nlines\x85next ",
    "",
    " ",
    "word " * 90 + "“end”",
    "Œ œ, Å å; Â la carte; Ãa",
    "don’t—stop…‘now’",
    "schön – café—naïve… l’œuvre",
]

SIGNS = "".join(badness.MOJIBAKE_CATEGORIES.values())


def signs():
    """The characters of ftfy's categories, whose ranges are written as in a regular expression."""
    found, i = [], 0
    while i < len(SIGNS):
        if i + 2 < len(SIGNS) and SIGNS[i + 1] == "-":
            found += [chr(c) for c in range(ord(SIGNS[i]), ord(SIGNS[i + 2]) + 1)]
            i += 3
        else:
            found.append(SIGNS[i])
            i += 1
    return sorted(set(found))


def random_texts():
    rng = random.Random(7)
    strange, plain = signs(), list("abzAZ .,!?0_'\"-") + ["&amp;", "ﬁ", "字", "\u0301", "&eacute;", "Ａ", "\x1b[0m"]
    texts = []
    for _ in range(300):
        pool = [strange, plain] if rng.random() < 0.8 else [plain]
        texts.append("".join(rng.choice(rng.choice(pool)) for _ in range(rng.randrange(1, 7))))
    for text in ("naïve café", "“quote” — dash", "Ключ", "Ελλάδα", "日本語", "€5 £3", "żółć", "«été»"):
        for encoding in ("latin-1", "windows-1252", "windows-1251", "windows-1250", "windows-1253", "macroman", "cp437"):
            texts.append(text.encode().decode(encoding, "replace"))
    return texts


def main():
    with_ftfy, without = CLIPTokenizer.from_pretrained(FIXTURE), CLIPTokenizer.from_pretrained(FIXTURE)
    assert with_ftfy.fix_text is ftfy.fix_text
    without.fix_text, without.nlp = None, BasicTokenizer(strip_accents=False, do_split_on_punc=False)
    repaired = []
    original = ftfy.fix_encoding
    ftfy.fix_encoding = lambda text, *a, **k: repaired.append(original(text, *a, **k) != text) or original(text, *a, **k)

    def row(text):
        repaired.clear()
        ids = {"ftfy": with_ftfy(text)["input_ids"], "basic": without(text)["input_ids"]}
        return {"text": text} | ids | {"repaired": any(repaired)}

    golden = {"natural": [row(text) for text in NATURAL], "random": [row(text) for text in random_texts()]}
    with open(OUT, "w", encoding="utf-8") as file:
        parts = (f'"{name}": [\n' + ",\n".join(json.dumps(r, separators=(",", ":")) for r in rows) + "\n]" for name, rows in golden.items())
        file.write("{" + ",\n".join(parts) + "}\n")
    print({name: (len(rows), sum(r["repaired"] for r in rows)) for name, rows in golden.items()})


if __name__ == "__main__":
    main()
