#!/usr/bin/env python3
"""Makes tests/golden/systems: what the latent diffusion paper's systems draw, by loops written out in PyTorch.

Run from the root of the repository, after scripts/fixtures/make_systems.py and with the same packages:

    python scripts/goldens/golden_systems.py [NAME...]

A case is NAME.toml (the pipeline as a user would write it), NAME.json (the tolerances), NAME.latents.npy (the final
latents in float32, before the division by the scaling factor), NAME.0.png … and what the pipeline takes, NAME.image.png
and so on. The models are the PyTorch modules of scripts/export/compvis.py with the checkpoint that the fixture was exported
from, float32 on the CPU; the sampler is DDIM as the model's scheduler_config.json has it. Picture i of a run takes all
noise from torch.Generator("cpu").manual_seed(seed + i): first the initial latents, then that of each step (none where
eta is 0).

    layout-tokens.json   the tokens of lists of boxes
    bert-ids.json        ids of texts, by transformers' fast BERT tokenizer with the vocabulary of text-bert
"""

import json
import os
import sys
import tempfile

import numpy as np
import torch
from diffusers import DDIMScheduler
from PIL import Image
from safetensors.numpy import load_file

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

import compvis
import make_systems
from make_systems import LAYOUT_CLASSES
from make_systems import ROOT as MODELS

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "systems")

# ---- inputs --------------------------------------------------------------------------------------------------------


def picture(width, height):
    """A picture with edges and gradients."""
    y, x = np.mgrid[0:height, 0:width] / (max(width, height) - 1)
    rgb = np.stack([x, y, 1 - x * y], axis=-1).clip(0, 1)
    rgb[(x - 0.4) ** 2 + (y - 0.5) ** 2 < 0.06] = (0.9, 0.1, 0.1)
    return Image.fromarray((rgb * 255).round().astype(np.uint8))


def hole(width, height):
    """A mask with a soft edge: 127 stays, 128 is repainted."""
    y, x = np.mgrid[0:height, 0:width]
    level = 300 - 14 * np.hypot(x - 0.55 * width, 0.8 * (y - 0.45 * height))
    level[:, : width // 8] = 127
    level[: height // 8, : width // 8] = 128
    return Image.fromarray(level.clip(0, 255).round().astype(np.uint8), "L")


def labels(width, height, palette):
    """A landscape of 12 classes."""
    y, x = np.mgrid[0:height, 0:width]
    ids = (y * 5 // height + 5 * (x * 2 // width)) % 12
    ids[(x - width // 2) ** 2 + (y - height // 3) ** 2 < height * 2] = 11
    made = Image.fromarray(ids.astype(np.uint8), "L")
    if palette:
        made = made.convert("L")
        made = Image.fromarray(ids.astype(np.uint8), "P")
        made.putpalette([v for i in range(12) for v in (20 * i, 255 - 20 * i, 7 * i)])
    return made


def pixels(image):
    """Pixels in [0, 1], [1, 3, height, width]."""
    return torch.from_numpy(np.asarray(image.convert("RGB"), dtype=np.float32) / 255).permute(2, 0, 1)[None]


# ---- conditions ----------------------------------------------------------------------------------------------------


def layout_tokens(boxes, n_classes=len(LAYOUT_CLASSES), grid=90, limit=30, vocabulary=8192):
    """Boxes as the layout model reads them: three tokens a box, then the crop, which is the whole picture."""
    point = lambda x, y: round(y * (grid - 1)) * grid + round(x * (grid - 1))
    tokens = []
    for box in boxes:
        modifier = sum(bit for bit, name in zip((1, 2, 4, 8), MODIFIERS) if box.get(name))
        x0, y0, x1, y1 = box["box"]
        tokens += [box["class"] + n_classes * modifier, point(x0, y0), point(x1, y1)]
    tokens += [vocabulary - 1] * (3 * limit - len(tokens))
    return tokens + [point(0, 0), point(1, 1)]


MODIFIERS = ("group", "occluded", "depiction", "inside")


def bert_tokenizer(folder=f"{MODELS}/text-bert/tokenizer"):
    from transformers import BertTokenizerFast

    return BertTokenizerFast.from_pretrained(folder)


def bert_context(model, text):
    ids = bert_tokenizer()(text, truncation=True, max_length=77, padding="max_length", return_tensors="pt").input_ids
    return model.conditioner(ids)


def clip_vector(text):
    from transformers import CLIPTokenizerFast

    tokenizer = CLIPTokenizerFast.from_pretrained(f"{MODELS}/retrieval/tokenizer")
    ids = tokenizer(text, truncation=True, padding="max_length", return_tensors="pt").input_ids
    vector = make_systems.clip_model().get_text_features(ids)
    return vector / vector.norm(dim=-1, keepdim=True)


def nearest(vector, k):
    """The k vectors of the index with the largest dot products, the earlier of equal ones first."""
    vectors = torch.from_numpy(load_file(f"{MODELS}/retrieval/neighbours/index.safetensors")["vectors"])
    found = torch.sort(vectors @ vector[0], descending=True, stable=True).indices[:k]
    return vectors[found]


# ---- tiles ---------------------------------------------------------------------------------------------------------


def tile_weights(size):
    """Each place's distance to the nearest border as a part of the edge, in [0.01, 0.5]."""
    along = torch.arange(size) / (size - 1)
    along = torch.minimum(along, 1 - along)
    return torch.minimum(along[:, None], along[None, :]).clamp(0.01, 0.5)


def tiled(function, inputs, tile, stride, factor=1):
    """Applies a function tile by tile and blends what overlaps."""
    height, width = inputs.shape[2:]
    weights = tile_weights(tile * factor)
    total, weight = None, torch.zeros(height * factor, width * factor)
    for y in range(0, height - tile + 1, stride):
        for x in range(0, width - tile + 1, stride):
            made = function(inputs[:, :, y : y + tile, x : x + tile])
            at = (..., slice(y * factor, (y + tile) * factor), slice(x * factor, (x + tile) * factor))
            if total is None:
                total = torch.zeros(*made.shape[:2], height * factor, width * factor)
            total[at] += made * weights
            weight[at] += weights
    return total / weight


# ---- the loop ------------------------------------------------------------------------------------------------------


def sample(model, shape, generator, steps, eta=0.0, guidance=1.0, given=None, null=None, channels=None, tile=None):
    """One picture's final latents. `given` and `null` are what the UNet takes beside sample and timestep; `channels`
    stand after the latent's own, and nothing is ever done to them."""
    config = json.load(open(f"{MODELS}/{model.folder}/scheduler/scheduler_config.json"))
    scheduler = DDIMScheduler.from_config(config)
    scheduler.set_timesteps(steps)
    latent = torch.randn(shape, generator=generator)
    given = given or {}

    def predict(t, given):
        takes = latent if channels is None else torch.cat([latent, channels], dim=1)
        call = lambda x: model.unet(x, t[None], **given)
        return tiled(call, takes, *tile) if tile else call(takes)

    for t in scheduler.timesteps:
        noise = predict(t, given)
        if null is not None and guidance != 1.0:
            away = predict(t, null)
            noise = away + guidance * (noise - away)
        drawn = torch.randn(shape, generator=generator) if eta else None
        latent = scheduler.step(noise, t, latent, eta=eta, variance_noise=drawn).prev_sample
    return latent


def decode(model, latent, tile=None):
    """Pixels in [0, 1]."""
    z = latent / model.scale_factor
    if model.first_stage.kind == "vq":  # rounding must not decide on a code
        apart = compvis.distances(z, model.first_stage.quantize.embedding.weight).topk(2, dim=1, largest=False).values
        model.margin = min(getattr(model, "margin", 9), float((apart[:, 1] - apart[:, 0]).min()))
    made = tiled(model.first_stage.decode, z, *tile, factor=4) if tile else model.first_stage.decode(z)
    return (made / 2 + 0.5).clamp(0, 1)


class Run:
    """The inputs of every case: the model, the seeds, the keys of the loop."""

    def __init__(self, model, steps, seed, images=1, eta=0.0, size=None):
        self.model, self.steps, self.eta = model, steps, eta
        self.generators = [torch.Generator("cpu").manual_seed(seed + i) for i in range(images)]
        p = model.unet.params
        self.shape = (1, p.out_channels, *(size or (p.image_size, p.image_size)))

    def __call__(self, of_picture=None, tile=None, finish=None, **keys):
        """`of_picture(i)` gives what differs from picture to picture."""
        latents, pictures = [], []
        for i, generator in enumerate(self.generators):
            more = keys | (of_picture(i) if of_picture else {})
            latent = sample(self.model, self.shape, generator, self.steps, self.eta, tile=tile, **more)
            made = decode(self.model, latent, tile)
            latents.append(latent)
            pictures.append(finish(made) if finish else made)
        return torch.cat(latents), torch.cat(pictures)


# ---- the cases: the fixture, the pipeline but for its model, and a function that draws it ---------------------------

CASES = {}


def case(name, folder, toml, size=None, files=None, **run):
    def register(function):
        CASES[name] = (folder, toml, files, function, run, size)
        return function

    return register


def tables(task, run, eta=0.0, conditions=""):
    sampler = f"[scheduler.ddim]\neta = {eta}\n\n" if eta else ""
    return f"{task.strip()}\n\n{conditions}{sampler}[run]\n{run.strip()}\n"


for kind in ("vq", "kl"):
    for eta in (0.0, 1.0):
        steps = 5 if eta else 10
        case(
            f"uncond-{kind}-eta-{eta:.0f}",
            f"uncond-{kind}",
            tables("[task.unconditional]", f"steps = {steps}\nseed = {201 if eta else 200}\nimages = 2", eta),
            steps=steps,
            seed=201 if eta else 200,
            images=2,
            eta=eta,
        )(lambda run: run())


def of_class(ids, null, guidance, embedded):
    def draw(run):
        def one(i):
            name = "encoder_hidden_states" if embedded else "class_labels"
            value = lambda c: run.model.conditioner(torch.tensor([c])) if embedded else torch.tensor([c])
            given = {name: value(ids[i])}
            return {"given": given, "null": {name: value(null)}, "guidance": guidance}

        return run(one)

    return draw


case(
    "class-embedder",
    "class-embedder",
    tables("[task.class-conditional]\nclass = [3, 7]\nguidance_scale = 3.0", "steps = 10\nseed = 210"),
    steps=10,
    seed=210,
    images=2,
)(of_class([3, 7], 10, 3.0, True))

case(
    "class-embedder-name",
    "class-embedder",
    tables('[task.class-conditional]\nclass = "deer"\nguidance_scale = 1.0', "steps = 5\nseed = 211\nimages = 2", 1.0),
    steps=5,
    seed=211,
    images=2,
    eta=1.0,
)(of_class([3, 3], 10, 1.0, True))

case(
    "class-labels",
    "class-labels",
    tables("[task.class-conditional]\nclass = [2, 5]\nguidance_scale = 2.0", "steps = 8\nseed = 212\nimages = 2"),
    steps=8,
    seed=212,
    images=4,
)(of_class([2, 2, 5, 5], 10, 2.0, False))


def low_resolution(run, tile=None):
    low = pixels(Image.open(f"{run.name}.image.png")) * 2 - 1
    return run(channels=low, tile=tile)


case(
    "super-resolution",
    "super-resolution",
    tables('[task.super-resolution]\nimage = "super-resolution.image.png"', "steps = 5\nseed = 220", 1.0),
    files=lambda name: picture(16, 16).save(f"{name}.image.png"),
    steps=5,
    seed=220,
    eta=1.0,
)(low_resolution)

case(
    "super-resolution-wide",
    "super-resolution",
    tables('[task.super-resolution]\nimage = "super-resolution-wide.image.png"', "steps = 4\nseed = 221", 0.0),
    files=lambda name: picture(26, 14).save(f"{name}.image.png"),
    size=(14, 26),
    steps=4,
    seed=221,
)(low_resolution)

case(
    "super-resolution-tiled",
    "super-resolution",
    tables(
        '[task.super-resolution]\nimage = "super-resolution-tiled.image.png"',
        "steps = 5\nseed = 222\ntile = 16\ntile_stride = 8",
        1.0,
    ),
    files=lambda name: picture(40, 24).save(f"{name}.image.png"),
    size=(24, 40),
    steps=5,
    seed=222,
    eta=1.0,
)(lambda run: low_resolution(run, (16, 8)))


def repaint(run):
    image = pixels(Image.open(f"{run.name}.image.png"))
    mask = torch.from_numpy(np.asarray(Image.open(f"{run.name}.mask.png"), dtype=np.float32) / 255)[None, None]
    mask = (mask >= 0.5).float()
    masked = run.model.first_stage.encode(((1 - mask) * image) * 2 - 1)
    small = torch.nn.functional.interpolate(mask * 2 - 1, size=masked.shape[2:])
    channels = torch.cat([masked, small], dim=1)
    return run(channels=channels, finish=lambda made: (1 - mask) * image + mask * made)


def repaint_files(width, height):
    def write(name):
        picture(width, height).save(f"{name}.image.png")
        hole(width, height).save(f"{name}.mask.png")

    return write


case(
    "inpaint",
    "inpaint",
    tables('[task.inpaint]\nimage = "inpaint.image.png"\nmask = "inpaint.mask.png"', "steps = 10\nseed = 230\nimages = 2"),
    files=repaint_files(64, 64),
    steps=10,
    seed=230,
    images=2,
)(repaint)

case(
    "inpaint-wide",
    "inpaint",
    tables('[task.inpaint]\nimage = "inpaint-wide.image.png"\nmask = "inpaint-wide.mask.png"', "steps = 5\nseed = 231", 1.0),
    files=repaint_files(88, 56),
    size=(14, 22),
    steps=5,
    seed=231,
    eta=1.0,
)(repaint)

CAPTION = "A painting of a Virus MONSTER, playing guitar at the café!"


def captioned(caption, guidance, negative=""):
    def draw(run):
        given = {"encoder_hidden_states": bert_context(run.model, caption)}
        null = {"encoder_hidden_states": bert_context(run.model, negative)}
        return run(given=given, null=null, guidance=guidance)

    return draw


case(
    "text-bert",
    "text-bert",
    tables(
        f'[task.text-to-image]\nprompt = "{CAPTION}"\nguidance_scale = 5.0\nnegative_prompt = ""',
        "steps = 10\nseed = 240\nimages = 2",
    ),
    steps=10,
    seed=240,
    images=2,
)(captioned(CAPTION, 5.0))

case(
    "text-bert-wide",
    "text-bert",
    tables(
        '[task.text-to-image]\nprompt = "a red house under the night sky"\nguidance_scale = 3.0\nnegative_prompt = "snow"',
        "steps = 5\nseed = 241\nwidth = 112\nheight = 64",
        1.0,
    ),
    size=(8, 14),
    steps=5,
    seed=241,
    eta=1.0,
)(captioned("a red house under the night sky", 3.0, "snow"))

BOXES = [
    {"class": 0, "box": [0.1, 0.25, 0.45, 0.95]},
    {"class": 2, "box": [0.5, 0.5, 1.0, 0.875], "occluded": True},
    {"class": 1, "box": [0.62, 0.0, 0.9, 0.7], "group": True, "inside": True},
    {"class": 9, "box": [0.0, 0.0, 1.0, 0.3], "depiction": True},
]


def box_toml(box):
    more = "".join(f", {name} = true" for name in MODIFIERS if box.get(name))
    return f"  {{ class = {box['class']}, box = {json.dumps(box['box'])}{more} }},"


def laid_out(run):
    context = run.model.conditioner(torch.tensor([layout_tokens(BOXES)]))
    return run(given={"encoder_hidden_states": context})


case(
    "layout",
    "layout",
    tables(
        "[task.conditional]\nguidance_scale = 1.0",
        "steps = 10\nseed = 250\nimages = 2",
        conditions='[[condition]]\nconditioning = "cross-attention"\ngraph = "layout_encoder"\nboxes = [\n'
        + "\n".join(box_toml(b) for b in BOXES)
        + "\n]\n\n",
    ),
    steps=10,
    seed=250,
    images=2,
)(laid_out)


def from_labels(run):
    ids = torch.from_numpy(np.asarray(Image.open(f"{run.name}.labels.png")).astype(np.int64))
    one_hot = torch.nn.functional.one_hot(ids, 12).permute(2, 0, 1)[None].float()
    return run(channels=run.model.conditioner(one_hot))


for name, size, seed, eta in (("semantic", (32, 32), 260, 1.0), ("semantic-wide", (80, 48), 261, 0.0)):
    wide = "" if size == (32, 32) else f"\nwidth = {size[0]}\nheight = {size[1]}"
    case(
        name,
        "semantic",
        tables(
            "[task.conditional]\nguidance_scale = 1.0",
            f"steps = 5\nseed = {seed}{wide}",
            eta,
            f'[[condition]]\nconditioning = "channels"\ngraph = "label_encoder"\nlabel_map = "{name}.labels.png"\n\n',
        ),
        files=lambda name, size=size: labels(*size, palette=name != "semantic").save(f"{name}.labels.png"),
        size=(size[1] // 4, size[0] // 4),
        steps=5,
        seed=seed,
        eta=eta,
    )(from_labels)

RIDER = "a painting of an astronaut riding a horse"


def retrieved(neighbours):
    def draw(run):
        vector = clip_vector(RIDER)
        context = torch.cat([vector, neighbours(run.name, vector)])[None]
        given = {"encoder_hidden_states": context}
        null = {"encoder_hidden_states": torch.zeros_like(context)}
        return run(given=given, null=null, guidance=5.0)

    return draw


def given_vectors(name):
    vectors = np.random.RandomState(9).randn(3, 16).astype(np.float32)
    np.save(f"{name}.neighbours.npy", vectors / np.linalg.norm(vectors, axis=1, keepdims=True))


for name, condition, files, find, seed in (
    (
        "retrieval-vectors",
        '[[condition]]\nconditioning = "cross-attention"\nvectors = "retrieval-vectors.neighbours.npy"\n\n',
        given_vectors,
        lambda name, _: torch.from_numpy(np.load(f"{name}.neighbours.npy")),
        270,
    ),
    (
        "retrieval-index",
        '[[condition]]\nconditioning = "cross-attention"\nindex = "../../fixtures/systems/retrieval/neighbours/index.safetensors"\nk = 4\n\n',
        None,
        lambda _, vector: nearest(vector, 4),
        271,
    ),
    ("retrieval-text", "", None, lambda _, vector: vector[:0], 272),
):
    case(
        name,
        "retrieval",
        tables(f'[task.text-to-image]\nprompt = "{RIDER}"\nguidance_scale = 5.0', f"steps = 10\nseed = {seed}", 0.0, condition),
        files=files,
        steps=10,
        seed=seed,
    )(retrieved(find))


# ---- what is not drawn ---------------------------------------------------------------------------------------------


def write_layout_tokens():
    edges = [
        [],
        BOXES,
        BOXES[:3],
        [{"class": 11, "box": [0.0, 0.0, 1.0, 1.0]}],
        # halves: 0.5 * 89 is 44.5, and goes to the even one
        [{"class": 5, "box": [0.5, 0.5, 1.0, 1.0]}, {"class": 6, "box": [1.5 / 89, 2.5 / 89, 3.5 / 89, 4.5 / 89]}],
        [{"class": 7, "box": [0.1234567, 0.7654321, 0.9999, 0.8]} | {name: True for name in MODIFIERS}],
        [{"class": i % 12, "box": [i / 60, i / 45, 0.5 + i / 60, (i + 1) / 30]} for i in range(30)],
    ]
    rows = [json.dumps({"boxes": boxes, "tokens": layout_tokens(boxes)}) for boxes in edges]
    with open(f"{ROOT}/layout-tokens.json", "w") as f:
        head = {"n_classes": len(LAYOUT_CLASSES), "grid": 90, "max_objects": 30, "vocab_size": 8192}
        f.write(json.dumps(head)[:-1] + ', "rows": [\n' + ",\n".join(rows) + "\n]}\n")


def bert_texts():
    """Some two hundred texts, plain and awkward."""
    from golden_tokenizer_texts import PROMPTS

    words = [t for t in make_systems.bert_vocabulary() if t.isascii() and t.isalpha()]
    chance = np.random.RandomState(3)
    made = list(PROMPTS)
    for i in range(200 - len(made)):
        some = [str(w) for w in chance.choice(words, chance.randint(1, 14))]
        if i % 3 == 1:
            some = [w.capitalize() + ["s", "ed", "ing", "!", ",", "'s", ""][chance.randint(7)] for w in some]
        if i % 5 == 2:
            some = some * 9
        if i % 7 == 3:
            some.insert(1, chr(chance.randint(0xA1, 0x2FFF)))
        made.append(["  ", " ", "\t", " - "][chance.randint(4)].join(some) if i % 4 else " ".join(some))
    return made


def write_bert_ids():
    tokenizer, texts = bert_tokenizer(), bert_texts()
    rows = []
    for text in texts:
        ids = tokenizer(text, padding="max_length", max_length=77, truncation=True).input_ids
        cut = max(len(tokenizer(text).input_ids) - 77, 0)
        while len(ids) > 1 and ids[-1] == ids[-2] == tokenizer.pad_token_id:
            ids.pop()
        rows.append({"ids": ids, "cut": cut})
    with open(f"{ROOT}/bert-ids.json", "w") as f:
        f.write('{"prompts": [\n' + ",\n".join(json.dumps(t) for t in texts) + "\n],\n")
        lines = ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
        f.write(f'"bert": {{"pad": {tokenizer.pad_token_id}, "rows": [\n{lines}\n]}}\n}}\n')
    unknown = sum(tokenizer.unk_token_id in row["ids"] for row in rows)
    print(f"bert-ids: {len(rows)} texts, {sum(r['cut'] > 0 for r in rows)} cut, {unknown} with unknown words")


# ---- writing -------------------------------------------------------------------------------------------------------


def opened(folder, made={}):
    """A fixture's checkpoint in PyTorch."""
    if folder not in made:
        with tempfile.TemporaryDirectory() as temp:
            checkpoint, _, config, *_ = make_systems.prepare(folder, temp)
            made[folder] = compvis.load(checkpoint, config)
        made[folder].folder = folder
    return made[folder]


def main(only):
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    os.makedirs(ROOT, exist_ok=True)
    for name, (folder, toml, files, draw, keys, size) in CASES.items():
        if only and name not in only:
            continue
        path = f"{ROOT}/{name}"
        with open(f"{path}.toml", "w", encoding="utf-8") as f:
            f.write(f'[model]\npath = "../../fixtures/systems/{folder}"\n\n{toml}')
        if files:
            files(path)
        model = opened(folder)
        model.margin = 9
        run = Run(model, size=size, **keys)
        run.name = path
        latents, pictures = draw(run)
        np.save(f"{path}.latents.npy", latents.numpy())
        flat = pictures.permute(0, 2, 3, 1).numpy()
        for i, p in enumerate(flat):
            Image.fromarray(quarter((p * 255).round().astype(np.uint8))).save(f"{path}.{i}.png", optimize=True)
        with open(f"{path}.json", "w") as f:
            json.dump({"rel": 1e-5, "levels": 1}, f, sort_keys=True)
            f.write("\n")
        margin = f", codes {model.margin:.1e} apart" if model.first_stage.kind == "vq" else ""
        print(
            f"{name:24} {len(flat)} of {flat.shape[2]}x{flat.shape[1]}, mean {flat.mean():.2f}, spread {flat.std():.2f}, "
            f"at the ends {((flat <= 0) | (flat >= 1)).mean():.0%}, latents up to {latents.abs().max():.1f}{margin}"
        )
    if not only or "layout-tokens" in only:
        write_layout_tokens()
    if not only or "bert-ids" in only:
        write_bert_ids()


if __name__ == "__main__":
    main(set(sys.argv[1:]))
