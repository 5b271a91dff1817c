"""Awkward texts for tokenizers, and the ids that a tokenizer of transformers gives them."""

PROMPTS = [
    "",
    " ",
    "a red circle above a blue square",
    "A Photograph of an ASTRONAUT riding a Horse, 4K, HDR!!!",
    "  leading,   inner\t\ttabs \n newlines \r\n and trailing   ",
    "caf\u00e9 na\u00efve \u00dcber stra\u00dfe \u0130stanbul \u01c4 \ufb01ne",
    "cafe\u0301 combining e\u0301\u0323 marks a\u0308 q\u0307",
    "\u4e00\u53ea\u732b\u5750\u5728\u6905\u5b50\u4e0a",
    "\u732b\u304c\u597d\u304d\u3067\u3059 \u30ab\u30bf\u30ab\u30ca \uff76\uff85",
    "\ud55c\uad6d\uc5b4 \u0e20\u0e32\u0e29\u0e32\u0e44\u0e17\u0e22 \u0627\u0644\u0639\u0631\u0628\u064a\u0629 \u05e2\u05d1\u05e8\u05d9\u05ea \u0939\u093f\u0928\u094d\u0926\u0940",
    "emoji \U0001f600 family \U0001f468\u200d\U0001f469\u200d\U0001f467 flag \U0001f1e9\U0001f1ea skin \U0001f44d\U0001f3fd heart \u2764\ufe0f",
    "non\u00a0breaking\u2003em\u3000ideographic\u2028line\u0085next\u200bzero\ufeffbom",
    "don't can't we're I've I'm you'll he'd it's 'quoted' ''s 'S 'T DON'T",
    "curly \u2019s don\u2019t \u201cquotes\u201d \u2014 dash \u2026",
    "1234567890 3.14 1,000,000 4k 8K 2nd x2 \u00bd \u2167 \u0663 \u00b2",
    "punct!!! ??? ... ;;; (((weight:1.3))) [[x]] {a|b} <lora:foo:1> @#$%^&*_+-=~`\\/",
    "!", "!!", "! !", "wow! really!",
    "a <|startoftext|> b <|endoftext|> c",
    "<|endoftext|>", "<|ENDOFTEXT|> <|StartOfText|>", "<|endoftext|><|endoftext|>x<|endoftext|>!",
    "  <|endoftext|>  spaced  ",
    "control \x00\x01\x07\x08\x1b\x7f chars \x1c\x1d\x1e\x1f end",
    "a <cat-toy> on a <CAT-TOY>, <cat-toy>s",
    "masterpiece, best quality, ultra-detailed, " * 12,
    "antidisestablishmentarianism " * 20,
    "\U0001f600" * 40,
    "x" * 500,
    "word " * 75, "word " * 74 + "word", ("the " * 75).strip(), ("the " * 76).strip(),
    "\u0130\u0131\u017f\u212a\u00df\u1e9e",
    "\ud7a3\u1112\u1161\u11ab \u0344 \u2126 \u212b",
    "under_score kebab-case CamelCase snake_Case99bottles",
    "private \ue000 unassigned \u0378 newer \U0001fae8 \U000323af",
]


def padded_rows(tokenizer, length):
    """The ids of every prompt, padded to a length, and the number of those that are cut."""
    rows = []
    for prompt in PROMPTS:
        ids = tokenizer(prompt, padding="max_length", max_length=length, truncation=True).input_ids
        whole = tokenizer(prompt).input_ids
        # The padding's length is all there is to say of it.
        while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_token_id:
            ids.pop()
        rows.append({"ids": ids, "cut": max(len(whole) - length, 0)})
    return rows
