"""Train models/shapes from scratch: a small latent diffusion model on two CPU cores.

The parts are the ordinary ones (diffusers' AutoencoderKL, UNet2DConditionModel
and DDIMScheduler; transformers' CLIPTextModel and CLIPTokenizerFast), the
pictures are drawn by shapes_world.py.  Four stages, each resumable:

  ae      the autoencoder, on pictures drawn as it goes
  text    the tokenizer, and the text encoder taught to say what a caption means
          (linear heads on its token states, thrown away afterwards)
  cache   the latents of the training scenes, computed once
  unet    the UNet (and, slowly, the text encoder) on the cached latents

Run it (from the repository root; about two hours and a quarter, in the background):

    python -m pip install -r scripts/requirements.txt
    nohup python scripts/train/train_shapes.py --work shapes-run > shapes-run.log 2>&1 &

Run the same line again after an interruption: every stage goes on from its last
checkpoint.  The result, with averaged weights, is the diffusers checkpoint
shapes-run/checkpoint, rewritten at every evaluation; then

    python scripts/export.py shapes-run/checkpoint models/shapes --dtype half --short-names
    python scripts/train/store_int8.py models/shapes
    cp shapes-run/training-log.csv shapes-run/loss.png models/shapes/

The small decoder (small_decoder.py) is taught by the exported model, and put beside it:

    python scripts/train/train_shapes.py --stage small-decoder --model models/shapes

--minutes-ae, --minutes-text and --minutes-unet set how long each stage takes;
the learning rates follow the clock, so a slower machine trains less, not longer.
"""

import argparse
import copy
import csv
import json
import math
import os
import random
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw

import shapes_world as world

MAX_LENGTH = 24
PAD = "<|endoftext|>"


def parse_args():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--work", default="shapes-run", help="folder for checkpoints, log and result")
    p.add_argument("--stage", choices=["all", "ae", "text", "cache", "unet", "small-decoder"], default="all")
    p.add_argument("--minutes-ae", type=float, default=14)
    p.add_argument("--minutes-text", type=float, default=5)
    p.add_argument("--minutes-unet", type=float, default=120)
    p.add_argument("--minutes-small-decoder", type=float, default=9)
    p.add_argument("--model", default="models/shapes", help="where the exported model is, for the small decoder")
    p.add_argument("--lessons", type=int, default=8000, help="latents that the small decoder learns from")
    p.add_argument("--scenes", type=int, default=24000, help="scenes in the latent cache")
    p.add_argument("--batch", type=int, default=32, help="batch of the UNet stage, for each worker")
    p.add_argument("--workers", type=int, default=2, help="processes of the UNet stage")
    p.add_argument("--lr", type=float, default=1e-3, help="highest learning rate of the UNet")
    p.add_argument("--eval-minutes", type=float, default=14)
    p.add_argument("--guidance", type=float, default=3.0, help="guidance scale of the evaluations")
    p.add_argument("--threads", type=int, default=2)
    p.add_argument("--seed", type=int, default=0)
    return p.parse_args()


# ---------------------------------------------------------------- log


class Log:
    """training-log.csv: one line a report; resumes by appending."""

    FIELDS = ["stage", "step", "seconds", "loss", "lr", "note"]

    def __init__(self, path):
        self.path = path
        if not os.path.exists(path):
            with open(path, "w", newline="") as f:
                csv.writer(f).writerow(self.FIELDS)

    def line(self, stage, step, seconds, loss, lr, note=""):
        with open(self.path, "a", newline="") as f:
            csv.writer(f).writerow([stage, step, f"{seconds:.0f}", f"{loss:.5f}", f"{lr:.2e}", note])
        print(f"{time.strftime('%H:%M:%S')} {stage} step {step} {seconds:.0f}s loss {loss:.5f} lr {lr:.2e} {note}", flush=True)

    def plot(self, path):
        """The loss curves, one panel a stage, drawn with Pillow alone."""
        rows = [r for r in csv.DictReader(open(self.path)) if r["note"] == "" or r["note"].startswith("psnr")]
        stages = [s for s in ("ae", "text", "unet") if any(r["stage"] == s for r in rows)]
        w, h, m = 260, 200, 34
        image = Image.new("RGB", (w * len(stages), h), "white")
        pen = ImageDraw.Draw(image)
        for i, stage in enumerate(stages):
            pts = [(float(r["seconds"]) / 60, float(r["loss"])) for r in rows if r["stage"] == stage]
            pts = [(x, math.log10(max(y, 1e-6))) for x, y in pts]
            xs, ys = [p[0] for p in pts], [p[1] for p in pts]
            x1, y0, y1 = max(xs) or 1, min(ys), max(ys) + 1e-3
            left, right, top, bottom = i * w + m, (i + 1) * w - 8, 22, h - 24
            at = lambda p: (left + p[0] / x1 * (right - left), bottom - (p[1] - y0) / (y1 - y0) * (bottom - top))
            pen.rectangle([left, top, right, bottom], outline="#888888")
            if len(pts) > 1:
                pen.line([at(p) for p in pts], fill="#1f4fbf", width=1)
            pen.text((left, 6), f"{stage}: loss (log scale)", fill="black")
            pen.text((left, bottom + 6), f"0 to {x1:.0f} minutes", fill="black")
            pen.text((i * w + 2, top), f"{10**y1:.2g}", fill="black")
            pen.text((i * w + 2, bottom - 10), f"{10**y0:.2g}", fill="black")
        image.quantize(32).save(path, optimize=True)


def save(obj, path):
    torch.save(obj, path + ".part")
    os.replace(path + ".part", path)


def to_tensor(images):
    a = np.stack([np.asarray(i) for i in images]).astype(np.float32) / 127.5 - 1
    return torch.from_numpy(a).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)


class Ema:
    def __init__(self, model, decay):
        self.decay, self.step = decay, 0
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.targets = list(self.model.parameters())
        self.sources = list(model.parameters())

    @torch.no_grad()
    def update(self):
        self.step += 1
        d = min(self.decay, (1 + self.step) / (10 + self.step))
        torch._foreach_lerp_(self.targets, [s.detach() for s in self.sources], 1 - d)


# ---------------------------------------------------------------- optimiser


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal by Newton-Schulz steps, for weights that are matrices
    (a convolution is one, with a column for every tap); scaled to Adam's usual step.
    Every worker makes its share of the matrices orthogonal and has the rest from the
    others."""

    def __init__(self, params, lr, together=None, momentum=0.95, weight_decay=0.01):
        super().__init__(params, dict(lr=lr, momentum=momentum, weight_decay=weight_decay))
        self.together = together or Alone()
        self.updates = torch.zeros(sum(p.numel() for g in self.param_groups for p in g["params"]))

    @torch.no_grad()
    def step(self):
        self.updates.zero_()
        weights = [(group, p) for group in self.param_groups for p in group["params"]]
        parts = self.updates.split([p.numel() for _, p in weights])
        for turn, ((group, p), part) in enumerate(zip(weights, parts)):
            buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
            buffer.lerp_(p.grad, 1 - group["momentum"])
            if turn % self.together.count == self.together.rank:
                part.copy_(orthogonal(p.grad.lerp(buffer, group["momentum"]).flatten(1)).flatten())
        self.together.add_up(self.updates)
        for (group, p), part in zip(weights, parts):
            p.mul_(1 - group["lr"] * group["weight_decay"])
            p.add_(part.view_as(p), alpha=-group["lr"] * 0.2 * math.sqrt(max(len(p), p[0].numel())))


def orthogonal(x):
    """Nearly the closest matrix with singular values of 1, by five Newton-Schulz steps."""
    rows, columns = x.shape
    if rows > columns:
        return orthogonal(x.T).T
    x = x / (x.norm() + 1e-12)
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return x


class Alone:
    """A worker without others."""

    rank, count = 0, 1

    def add_up(self, buffer):
        pass


def matrices_and_others(module):
    """Parameters for Muon, and those for AdamW: vectors, and the layers at both ends."""
    ends = ("conv_in", "conv_out", "encoder.conv_in", "encoder.conv_out", "decoder.conv_in", "decoder.conv_out",
            "quant_conv", "post_quant_conv")
    is_matrix = lambda name, p: p.ndim >= 2 and len(p) > 1 and not name.startswith(ends)
    matrices = [p for name, p in module.named_parameters() if is_matrix(name, p)]
    return matrices, [p for name, p in module.named_parameters() if not is_matrix(name, p)]


# ---------------------------------------------------------------- autoencoder


def new_vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 48),
        layers_per_block=1,
        latent_channels=4,
        norm_num_groups=8,
        sample_size=world.SIZE,
        mid_block_add_attention=False,
    )


def busy_picture(rng):
    """For the autoencoder: half ordinary scenes, half crowded ones."""
    if rng.random() < 0.5:
        return world.draw(world.random_scene(rng))
    scale = world.SUPERSAMPLE
    image = Image.new("RGB", (world.SIZE * scale,) * 2, world.COLOURS[rng.choice(world.COLOUR_NAMES)])
    pen = ImageDraw.Draw(image)
    for _ in range(rng.randint(4, 8)):
        r = rng.uniform(6, 14)
        x, y = rng.uniform(0, world.SIZE), rng.uniform(0, world.SIZE)
        colour = world.COLOURS[rng.choice(world.COLOUR_NAMES)]
        world.draw_shape(pen, rng.choice(world.SHAPES), x, y, r, colour, scale)
    return image.reduce(scale)


def crop(rng, image, side=32):
    x, y = (rng.randrange(world.SIZE - side + 1) for _ in range(2))
    return image.crop((x, y, x + side, y + side))


def psnr(vae, seed=99, count=64):
    rng = random.Random(seed)
    x = to_tensor([world.draw(world.random_scene(rng)) for _ in range(count)])
    with torch.no_grad():
        y = vae.decode(vae.encode(x).latent_dist.mode()).sample.clamp(-1, 1)
    mse = (x - y).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / mse)).mean().item()


def train_ae(args, log):
    path = os.path.join(args.work, "ae.pt")
    vae = new_vae().to(memory_format=torch.channels_last)
    ema = Ema(vae, 0.99)
    print(f"autoencoder: {sum(p.numel() for p in vae.parameters())} parameters")
    matrices, others = matrices_and_others(vae)
    adam = torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    muon = Muon(matrices, lr=2e-3)
    budget, spent, step = args.minutes_ae * 60, 0.0, 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=False)
        vae.load_state_dict(state["model"]); ema.model.load_state_dict(state["ema"])
        adam.load_state_dict(state["adam"]); muon.load_state_dict(state["muon"])
        spent, step = state["spent"], state["step"]
        ema.step = step
        if state.get("done"):
            return
    rng = random.Random(args.seed + 1000 + step)
    total, count, last = 0.0, 0, time.time()
    next_report = spent + 30
    while spent < budget:
        frac = spent / budget
        lr = 2e-3 * min(1, (step + 1) / 50) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * frac)))
        for g in adam.param_groups + muon.param_groups:
            g["lr"] = lr
        images = [busy_picture(rng) for _ in range(12)]
        if frac < 0.7:  # crops first, at a quarter of the price, then whole pictures
            images = [crop(rng, image) for image in images for _ in range(2)]
        x = to_tensor(images)
        post = vae.encode(x).latent_dist
        y = vae.decode(post.sample()).sample
        # L1 keeps the flats flat, squares hold the edges; KL as a mean over elements. Its
        # weight makes the posterior a third as wide as the latents, so that what tells one
        # shape from another stands well above the errors a UNet makes.
        rec = F.mse_loss(y, x) + 0.5 * F.l1_loss(y, x)
        kl = 0.5 * (post.mean.square() + post.var - 1 - post.logvar).mean()
        loss = rec + 1e-2 * kl
        adam.zero_grad(set_to_none=True); muon.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        adam.step(); muon.step()
        ema.update()
        step += 1
        total += rec.item(); count += 1
        now = time.time(); spent += now - last; last = now
        if spent >= next_report or spent >= budget:
            next_report = spent + 60
            log.line("ae", step, spent, total / count, lr, f"psnr {psnr(ema.model):.2f} kl {kl.item():.2f}")
            total, count = 0.0, 0
            save(dict(model=vae.state_dict(), ema=ema.model.state_dict(), adam=adam.state_dict(), muon=muon.state_dict(), spent=spent, step=step, done=spent >= budget), path)
            last = time.time()


def load_vae(args):
    vae = new_vae()
    state = torch.load(os.path.join(args.work, "ae.pt"), weights_only=False)
    vae.load_state_dict(state["ema"])
    vae = vae.eval().requires_grad_(False).to(memory_format=torch.channels_last)
    scale = os.path.join(args.work, "scale.json")
    if os.path.exists(scale):
        vae.register_to_config(scaling_factor=json.load(open(scale))["scaling_factor"])
    return vae


# ---------------------------------------------------------------- tokenizer


def build_tokenizer(args):
    """A CLIP tokenizer (byte-level BPE) whose merges make each caption word one token."""
    from transformers import CLIPTokenizerFast
    from transformers.models.clip.tokenization_clip import bytes_to_unicode

    folder = os.path.join(args.work, "tokenizer")
    if os.path.exists(os.path.join(folder, "tokenizer.json")):
        return CLIPTokenizerFast.from_pretrained(folder)
    rng = random.Random(5)
    counts = {}
    for _ in range(4000):
        scene = world.random_scene(rng)
        for word in world.caption(scene, rng.random() < 0.5, rng.random() < 0.7).split():
            counts[word] = counts.get(word, 0) + 1
    words = {w: list(w[:-1]) + [w[-1] + "</w>"] for w in sorted(counts)}
    merges = []
    while True:
        pairs = {}
        for w, parts in words.items():
            for pair in zip(parts, parts[1:]):
                pairs[pair] = pairs.get(pair, 0) + counts[w]
        if not pairs:
            break
        best = max(sorted(pairs), key=pairs.get)
        merges.append(best)
        for w, parts in words.items():
            out, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    out.append(parts[i] + parts[i + 1]); i += 2
                else:
                    out.append(parts[i]); i += 1
            words[w] = out
    letters = list(bytes_to_unicode().values())
    vocab = letters + [c + "</w>" for c in letters] + ["".join(m) for m in merges]
    vocab += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(vocab)) == len(vocab)
    os.makedirs(folder, exist_ok=True)
    vocab_file, merges_file = os.path.join(folder, "vocab.json"), os.path.join(folder, "merges.txt")
    json.dump({t: i for i, t in enumerate(vocab)}, open(vocab_file, "w"), ensure_ascii=False)
    with open(merges_file, "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    tokenizer = CLIPTokenizerFast(
        vocab_file, merges_file, unk_token=PAD, pad_token=PAD, model_max_length=MAX_LENGTH,
    )
    tokenizer.save_pretrained(folder)
    for w in counts:
        assert len(tokenizer(w)["input_ids"]) == 3, w
    return tokenizer


# ---------------------------------------------------------------- text encoder


def new_text_encoder(tokenizer):
    from transformers import CLIPTextConfig, CLIPTextModel

    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=512,
        num_hidden_layers=3,
        num_attention_heads=4,
        projection_dim=128,
        max_position_embeddings=MAX_LENGTH,
        hidden_act="quick_gelu",
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
    )
    return CLIPTextModel(config)


def tokens(tokenizer, captions):
    enc = tokenizer(captions, padding="max_length", max_length=MAX_LENGTH, truncation=True, return_tensors="pt")
    return enc.input_ids


# The targets of the heads, which read the last token states.  "Side a" is the left or
# upper thing of two, or the only one; "own" is the thing whose shape word it is.
HEADS = {
    "colour_a": 8, "shape_a": 4, "size_a": 3,
    "colour_b": 9, "shape_b": 5, "size_b": 4,
    "axis": 3, "background": 9,
    "own_colour": 8, "own_shape": 4, "own_size": 3,
}


def meanings(scene, with_sizes, with_background):
    """The class of every head for a caption, but the own_ ones: those are per thing."""
    things = list(zip(scene.things, with_sizes))
    own = [
        (world.COLOUR_NAMES.index(t.colour), world.SHAPES.index(t.shape), world.SIZES.index(t.size) if s else 2)
        for t, s in things
    ]
    axis = 0
    side = list(own)
    if len(own) == 2:
        axis = 1 if scene.relation in ("to the left of", "to the right of") else 2
        if scene.relation in ("to the right of", "below"):
            side.reverse()
    a = side[0]
    b = side[1] if len(side) == 2 else (8, 4, 3)
    bg = world.COLOUR_NAMES.index(scene.background) if with_background else 8
    return list(a) + list(b) + [axis, bg], own


def random_flags(rng, scene):
    p = rng.random()
    if p < 0.4:
        sizes = [False] * len(scene.things)
    elif p < 0.8:
        sizes = [True] * len(scene.things)
    else:
        sizes = [rng.random() < 0.5 for _ in scene.things]
    return sizes, rng.random() < 0.75


def train_text(args, log, tokenizer):
    path = os.path.join(args.work, "text.pt")
    model = new_text_encoder(tokenizer)
    width = model.config.hidden_size
    heads = torch.nn.ModuleDict({k: torch.nn.Linear(width, n) for k, n in HEADS.items()})
    print(f"text encoder: {sum(p.numel() for p in model.parameters())} parameters, {len(tokenizer)} tokens")
    params = list(model.parameters()) + list(heads.parameters())
    opt = torch.optim.AdamW(params, lr=1e-3, betas=(0.9, 0.98), weight_decay=0.01)
    budget, spent, step = args.minutes_text * 60, 0.0, 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=False)
        model.load_state_dict(state["model"]); heads.load_state_dict(state["heads"])
        opt.load_state_dict(state["opt"]); spent, step = state["spent"], state["step"]
        if state.get("done"):
            return
    rng = random.Random(args.seed + 2000 + step)
    shape_ids = torch.tensor([tokenizer.convert_tokens_to_ids(s + "</w>") for s in world.SHAPES])
    names = list(HEADS)
    total, hits, count, last = 0.0, 0.0, 0, time.time()
    next_report = spent + 20
    while spent < budget:
        frac = spent / budget
        lr = 1e-3 * min(1, (step + 1) / 100) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * frac)))
        for g in opt.param_groups:
            g["lr"] = lr
        captions, labels, owns = [], [], []
        for _ in range(128):
            scene = random_caption_scene(rng)
            sizes, bg = random_flags(rng, scene)
            label, own = meanings(scene, sizes, bg)
            captions.append(world.caption(scene, sizes, bg)); labels.append(label); owns += own
        ids = tokens(tokenizer, captions)
        states = model(ids).last_hidden_state
        labels, owns = torch.tensor(labels), torch.tensor(owns)
        rows = torch.arange(len(ids))
        eos = (ids == tokenizer.eos_token_id).int().argmax(1)
        pad = torch.minimum(eos + torch.randint(1, 8, eos.shape), torch.tensor(MAX_LENGTH - 1))
        loss, right = 0.0, torch.ones(len(ids), dtype=torch.bool)
        for at in (eos, pad):
            h = states[rows, at]
            for i, k in enumerate(names[:8]):
                out = heads[k](h)
                loss = loss + F.cross_entropy(out, labels[:, i])
                if at is eos:
                    right &= out.argmax(1) == labels[:, i]
        h = states[torch.isin(ids, shape_ids)]
        for i, k in enumerate(names[8:]):
            loss = loss + F.cross_entropy(heads[k](h), owns[:, i])
        loss = loss / 19
        opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        opt.step()
        step += 1
        total += loss.item(); hits += right.float().mean().item(); count += 1
        now = time.time(); spent += now - last; last = now
        solved = count >= 20 and total / count < 5e-3 and hits == count
        if spent >= next_report or spent >= budget or solved:
            next_report = spent + 20
            log.line("text", step, spent, total / count, lr, "")
            print(f"    captions understood in every point: {hits / count:.4f}", flush=True)
            done = spent >= budget or solved
            total, hits, count = 0.0, 0.0, 0
            save(dict(model=model.state_dict(), heads=heads.state_dict(), opt=opt.state_dict(), spent=spent, step=step, done=done), path)
            if done:
                break
            last = time.time()


def random_caption_scene(rng):
    """As world.random_scene, without placing the things."""
    while True:
        two = rng.random() < 0.7
        things = tuple(world.random_thing(rng) for _ in range(2 if two else 1))
        background = rng.choice(world.COLOUR_NAMES)
        if any(t.colour == background for t in things):
            continue
        scene = world.Scene(things, background, rng.choice(world.RELATIONS) if two else None)
        if not world.held_out(scene):
            return scene


# ---------------------------------------------------------------- latent cache


def build_cache(args):
    """cache.pt: scenes, their latents, and for the first quarter the latents of a
    recoloured twin (see train_unet)."""
    path = os.path.join(args.work, "cache.pt")
    if os.path.exists(path):
        return
    vae = load_vae(args)
    rng = random.Random(args.seed + 3000)
    scenes = [world.random_scene(rng) for _ in range(args.scenes)]
    twins = [world.recoloured(rng, s) for s in scenes[: args.scenes // 4]]
    start = time.time()

    def encode(items):
        out = []
        with torch.no_grad():
            for i in range(0, len(items), 100):
                x = to_tensor([world.draw(s) for s in items[i : i + 100]])
                out.append(vae.encode(x).latent_dist.mode().half())
        return torch.cat(out)

    latents, twin_latents = encode(scenes), encode(twins)
    std = latents.float().std().item()
    channels = latents.float().std(dim=(0, 2, 3)).tolist(), latents.float().mean(dim=(0, 2, 3)).tolist()
    print(f"cache: {len(scenes)} scenes in {time.time() - start:.0f} s, latent std {std:.4f}, by channel std/mean {channels}", flush=True)
    json.dump({"scaling_factor": round(1 / std, 5)}, open(os.path.join(args.work, "scale.json"), "w"))
    save(dict(scenes=scenes, latents=latents, twins=twin_latents), path)


# ---------------------------------------------------------------- UNet


def new_unet():
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=world.SIZE // 4,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 96),
        layers_per_block=1,
        attention_head_dim=4,  # heads, as in SD 1.x
        cross_attention_dim=128,
        norm_num_groups=16,
        # The caption reaches every block twice: by cross-attention, and pooled into the
        # time embedding, which scales and shifts. Without the second a UNet this small
        # learns colours late and shapes hardly at all.
        addition_embed_type="text",
        addition_embed_type_num_heads=8,
        resnet_time_scale_shift="scale_shift",
    )


def new_scheduler():
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=True,
        steps_offset=1,
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        rescale_betas_zero_snr=True,
    )


def make_pipeline(args, unet, text_encoder, tokenizer, vae):
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=new_scheduler(),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


class Together:
    """Gradients averaged over the workers, one thread each: on a busy machine two
    processes that meet once a step do twice the work of two threads that meet in
    every operation."""

    def __init__(self, rank, count, folder, params):
        import torch.distributed as dist

        self.dist, self.rank, self.count, self.params = dist, rank, count, params
        self.buffer = torch.zeros(sum(p.numel() for p in params) + 2)
        if count > 1:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
            meet = "file://" + os.path.abspath(os.path.join(folder, "meeting-point"))
            dist.init_process_group("gloo", init_method=meet, rank=rank, world_size=count)

    def add_up(self, buffer):
        if self.count > 1:
            self.dist.all_reduce(buffer)

    def average(self, loss, spent):
        """Every worker's gradients become their mean; also the mean loss, and the
        first worker's clock."""
        if self.count == 1:
            return loss, spent
        grads = [p.grad for p in self.params]
        torch.cat([g.flatten() for g in grads] + [torch.tensor([loss, spent if self.rank == 0 else 0.0])], out=self.buffer)
        self.add_up(self.buffer)
        at = 0
        for g in grads:
            g.copy_(self.buffer[at : at + g.numel()].view_as(g)).div_(self.count)
            at += g.numel()
        return self.buffer[-2].item() / self.count, self.buffer[-1].item()


def train_unet_worker(rank, args):
    torch.set_num_threads(1 if args.workers > 1 else args.threads)
    train_unet(args, Log(os.path.join(args.work, "training-log.csv")), build_tokenizer(args), rank)


def train_unet(args, log, tokenizer, rank=0):
    path = os.path.join(args.work, "unet.pt")
    unet = new_unet()
    text = new_text_encoder(tokenizer)
    text.load_state_dict(torch.load(os.path.join(args.work, "text.pt"), weights_only=False)["model"])
    first = rank == 0
    if first:
        print(f"unet: {sum(p.numel() for p in unet.parameters())} parameters", flush=True)
    unet_ema, text_ema = Ema(unet, 0.998), Ema(text, 0.998)
    matrices, others = matrices_and_others(unet)
    adam = torch.optim.AdamW(
        [dict(params=others, rate=args.lr), dict(params=text.parameters(), rate=args.lr / 10)],
        lr=args.lr, betas=(0.9, 0.99), weight_decay=0.01, fused=True,
    )
    together = Together(rank, args.workers, args.work, [*unet.parameters(), *text.parameters()])
    muon = Muon([dict(params=matrices, rate=args.lr * 1.5)], lr=args.lr * 1.5, together=together)
    budget, spent, step = args.minutes_unet * 60, 0.0, 0
    if os.path.exists(path):
        state = torch.load(path, weights_only=False)
        unet.load_state_dict(state["unet"]); unet_ema.model.load_state_dict(state["unet_ema"])
        text.load_state_dict(state["text"]); text_ema.model.load_state_dict(state["text_ema"])
        adam.load_state_dict(state["adam"]); muon.load_state_dict(state["muon"])
        spent, step = state["spent"], state["step"]
        unet_ema.step = text_ema.step = step
        if first:
            print(f"resumed at step {step}, {spent:.0f} s")
    cache = torch.load(os.path.join(args.work, "cache.pt"), weights_only=False)
    vae = load_vae(args)
    scenes = cache["scenes"]
    latents = (cache["latents"].float() * vae.config.scaling_factor).contiguous(memory_format=torch.contiguous_format)
    twins = (cache["twins"].float() * vae.config.scaling_factor).contiguous(memory_format=torch.contiguous_format)
    alphas = new_scheduler().alphas_cumprod.float()
    rng = random.Random(args.seed + 4000 + step + 1000003 * rank)
    torch.manual_seed(args.seed + step + 1000003 * rank)
    total, count, last, started = 0.0, 0, time.time(), time.time()
    next_report = spent + 30
    parent = os.getppid()
    next_eval = spent + (args.eval_minutes * 60 if spent else 300)
    while spent < budget:
        frac = spent / budget
        if os.getppid() != parent:
            sys.exit("the program that started this worker is gone")
        warm = min(1, (step + 1) / 150)
        shape = 0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * max(0, 2 * frac - 1)))
        for g in adam.param_groups + muon.param_groups:
            g["lr"] = g["rate"] * warm * shape
        picks = [rng.randrange(len(scenes)) for _ in range(args.batch)]
        captions = []
        for i in picks:
            sizes, bg = random_flags(rng, scenes[i])
            captions.append("" if rng.random() < 0.1 else world.caption(scenes[i], sizes, bg))
        x0 = latents[picks]
        # Outlines are made in the middle, and what stands on which side near the noisy
        # end; of the other end there is little to learn.
        t = torch.where(torch.rand(args.batch) < 0.6, torch.randint(100, 820, (args.batch,)), torch.randint(600, 1000, (args.batch,)))
        noise = torch.randn_like(x0)
        # For image-to-image: a start picture shows other colours than the caption
        # names, and what is left of them looks like noise with a trace of the other
        # picture in it.  In every tenth sample or so that trace is put there.
        for row, i in enumerate(picks):
            if i < len(twins) and captions[row] and rng.random() < 0.7 and t[row] < 600:
                noise[row] += rng.uniform(0, 0.7) * (twins[i] - x0[row])
        a = alphas[t].view(-1, 1, 1, 1)
        xt = a.sqrt() * x0 + (1 - a).sqrt() * noise
        target = a.sqrt() * noise - (1 - a).sqrt() * x0
        states = text(tokens(tokenizer, captions)).last_hidden_state
        loss = F.mse_loss(unet(xt, t, states).sample, target)
        adam.zero_grad(set_to_none=True); muon.zero_grad(set_to_none=True)
        loss.backward()
        now = time.time(); spent += now - last; last = now
        mean, spent = together.average(loss.item(), spent)
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        torch.nn.utils.clip_grad_norm_(text.parameters(), 1.0)
        adam.step(); muon.step()
        step += 1
        finished = spent >= budget
        if not first:
            continue
        unet_ema.update(); text_ema.update()
        total += mean; count += 1
        if spent >= next_report or finished:
            next_report = spent + 30
            log.line("unet", step, spent, total / count, muon.param_groups[0]["lr"])
            total, count = 0.0, 0
        if spent >= next_eval or finished:
            save(dict(unet=unet.state_dict(), unet_ema=unet_ema.model.state_dict(), text=text.state_dict(),
                      text_ema=text_ema.model.state_dict(), adam=adam.state_dict(), muon=muon.state_dict(), spent=spent, step=step), path)
            pipe = make_pipeline(args, unet_ema.model, text_ema.model, tokenizer, vae)
            pipe.save_pretrained(os.path.join(args.work, "checkpoint"))
            import judge_shapes

            torch.set_num_threads(args.threads)
            note = judge_shapes.quick(pipe, 24, args.guidance, os.path.join(args.work, f"eval-{step}.png"))
            torch.set_num_threads(1 if args.workers > 1 else args.threads)
            next_eval = spent + args.eval_minutes * 60
            log.line("unet", step, spent, loss.item(), muon.param_groups[0]["lr"], "eval " + note)
    if first:
        print(f"unet: {step} steps of {args.batch * args.workers} pictures, {spent / 60:.1f} minutes")


def main():
    args = parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    os.makedirs(args.work, exist_ok=True)
    log = Log(os.path.join(args.work, "training-log.csv"))
    if args.stage == "small-decoder":
        import small_decoder

        return small_decoder.train(args, log)
    every = args.stage == "all"
    if every or args.stage == "ae":
        train_ae(args, log)
    if every or args.stage in ("text", "unet"):
        tokenizer = build_tokenizer(args)
    if every or args.stage == "text":
        train_text(args, log, tokenizer)
    if every or args.stage == "cache":
        build_cache(args)
    if every or args.stage == "unet":
        meeting = os.path.join(args.work, "meeting-point")
        if os.path.exists(meeting):
            os.remove(meeting)
        torch.multiprocessing.spawn(train_unet_worker, (args,), nprocs=args.workers)
    log.plot(os.path.join(args.work, "loss.png"))


if __name__ == "__main__":
    main()
