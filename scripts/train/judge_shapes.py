"""Score models/shapes by the pixels of the pictures that `ldm-ort` makes with it.

    python scripts/train/judge_shapes.py target/release/ldm-ort            # all three tests
    python scripts/train/judge_shapes.py target/release/ldm-ort one two    # some of them

It writes pipeline files, runs `ldm-ort run FILE.toml --json`, and looks at the
pictures: the background is what is along the border; what differs from it and
hangs together is an object; an object's colour is the nearest named one to its
middle, its shape the nearest of four outlines, its size by its area, its place
its centroid.  Nothing else is known to it.

  one       200 prompts of one object, whose (colour, shape, background) was held
            out of training
  two       200 prompts of two objects, whose pair of (colour, shape) was held out:
            both there and nothing else, colours, shapes, sides
  img2img   50 drawn pictures of one object, strength 0.5, another colour in the
            prompt: still where it was, same shape, and of that colour

--json FILE keeps every verdict, --sheet FOLDER a contact sheet of each test.
--torch CHECKPOINT scores a diffusers checkpoint in PyTorch instead.
--self-check judges drawings instead: right ones, which must score 100 % or nearly,
and wrong ones (another colour, shape, side; a missing or an extra object), which
must score nothing.  Needs numpy, scipy and pillow; with --torch, diffusers too.
"""

import argparse
import json
import math
import os
import random
import subprocess
import sys
import tempfile
from dataclasses import replace
from functools import lru_cache

import numpy as np
from PIL import Image, ImageDraw
from scipy import ndimage

import shapes_world as world

PALETTE = np.array([world.COLOURS[c] for c in world.COLOUR_NAMES], dtype=np.float64)
LEAST_DIFFERENCE = 45.0  # from the background, of an object's pixels (0 to 441)
LEAST_AREA = 30.0  # of an object, in pixels; smaller specks from 6 on spoil a picture
SPECK = 6.0
ANGLES = np.linspace(0, 2 * math.pi, 90, endpoint=False)
# Area of each shape with the circle around it of radius 1.
UNIT_AREA = {
    "circle": math.pi * world.ROUND**2,
    "square": 4 * (0.86 * world.ROUND) ** 2,
    "triangle": 3 * math.sqrt(3) / 4,
    "star": 10 * 0.5 * world.STAR_INNER * math.sin(math.pi / 5),
}
SMALL_OR_LARGE = 12.0  # radius between the small ones' largest and the large ones' smallest
NOT_A_SHAPE = 0.16  # root mean square difference of outlines from which it is none of the four


# ---------------------------------------------------------------- looking


def nearest_colour(rgb):
    return world.COLOUR_NAMES[int(((PALETTE - rgb) ** 2).sum(1).argmin())]


def outline(alpha):
    """The distance from centroid to edge in every direction, over its mean: half
    coverage is the edge, found between pixels."""
    h, w = alpha.shape
    total = alpha.sum()
    ys, xs = np.mgrid[0:h, 0:w]
    cy, cx = (alpha * ys).sum() / total, (alpha * xs).sum() / total
    r = np.arange(0, 30, 0.1)
    yy = cy - np.cos(ANGLES)[:, None] * r
    xx = cx + np.sin(ANGLES)[:, None] * r
    ray = ndimage.map_coordinates(alpha, [yy, xx], order=1, mode="constant")
    outside = ray < 0.5
    edge = r[np.where(outside.any(1), outside.argmax(1), len(r) - 1)]
    return edge / max(edge.mean(), 1e-6), (cx + 0.5, cy + 0.5)


@lru_cache(maxsize=None)
def templates():
    out = []
    for shape in world.SHAPES:
        for radius in (9.8, 10.4, 11.0, 12.0, 13.0, 13.6, 14.2):
            for dx, dy in ((0, 0), (0.5, 0.25)):
                thing = world.Thing("black", shape, "small", 32 + dx, 32 + dy, radius)
                image = world.draw(world.Scene((thing,), "white"))
                grey = np.asarray(image.convert("L")).astype(np.float64)
                alpha = (245 - grey) / 230
                out.append((shape, outline(alpha.clip(0, 1))[0]))
    return out


def look(image):
    """The content of an image: background, objects (colour, shape, size, x, y), specks."""
    rgb = np.asarray(image.convert("RGB")).astype(np.float64)
    if rgb.shape[:2] != (world.SIZE, world.SIZE):
        raise SystemExit(f"a picture is {rgb.shape[1]}x{rgb.shape[0]}, not {world.SIZE}x{world.SIZE}")
    border = np.concatenate([rgb[:2].reshape(-1, 3), rgb[-2:].reshape(-1, 3), rgb[:, :2].reshape(-1, 3), rgb[:, -2:].reshape(-1, 3)])
    background = np.median(border, axis=0)
    difference = np.sqrt(((rgb - background) ** 2).sum(2))
    labels, n = ndimage.label(difference > LEAST_DIFFERENCE)
    objects, specks = [], 0
    for k in range(1, n + 1):
        mask = labels == k
        area = mask.sum()
        if area < LEAST_AREA:
            specks += area >= SPECK
            continue
        inner = ndimage.binary_erosion(mask, iterations=2)
        if inner.sum() < 6:
            inner = ndimage.binary_erosion(mask)
        if inner.sum() < 3:
            inner = mask
        middle = np.median(rgb[inner], axis=0)
        # coverage: how far each pixel is from the background's colour to the object's
        way = middle - background
        near = ndimage.binary_dilation(mask, iterations=2) & ((labels == k) | (labels == 0))
        alpha = (((rgb - background) @ way) / max(way @ way, 1e-6)).clip(0, 1) * near
        shape_line, (x, y) = outline(alpha)
        scores = sorted((math.sqrt(((shape_line - t) ** 2).mean()), s) for s, t in templates())
        shape = scores[0][1] if scores[0][0] < NOT_A_SHAPE else "none"
        area = float(alpha.sum())
        radius = math.sqrt(area / UNIT_AREA.get(shape, math.pi))
        objects.append(
            dict(colour=nearest_colour(middle), shape=shape, size="small" if radius < SMALL_OR_LARGE else "large",
                 x=round(x, 2), y=round(y, 2), area=round(area, 1), misfit=round(scores[0][0], 3))
        )
    return dict(background=nearest_colour(background), objects=objects, specks=int(specks))


def on_side(first, second, relation):
    dx, dy = second["x"] - first["x"], second["y"] - first["y"]
    along, across = (dx, dy) if relation in ("to the left of", "to the right of") else (dy, dx)
    if relation in ("to the right of", "below"):
        along = -along
    return along > 6 and along > abs(across)


def judge_one(image, scene, with_sizes):
    seen = look(image)
    alone = len(seen["objects"]) == 1 and seen["specks"] == 0
    o = seen["objects"][0] if alone else {}
    t = scene.things[0]
    v = dict(background=seen["background"] == scene.background, colour=alone and o["colour"] == t.colour,
             shape=alone and o["shape"] == t.shape, size=alone and (not with_sizes[0] or o["size"] == t.size))
    v["colours"] = v["colour"] and v["background"]
    v["right"] = v["colours"] and v["shape"]
    v["right and size"] = v["right"] and v["size"]
    return v, seen


def judge_two(image, scene, with_sizes):
    seen = look(image)
    first, second = scene.things
    count = len(seen["objects"]) == 2 and seen["specks"] == 0
    v = dict(background=seen["background"] == scene.background, count=count)
    best = dict(colours=False, shapes=False, side=False, size=False)
    if count:
        a, b = seen["objects"]
        # which is which is read off the sides, never chosen to suit
        if not on_side(a, b, scene.relation):
            a, b = b, a
        best["side"] = on_side(a, b, scene.relation)
        best["colours"] = best["side"] and a["colour"] == first.colour and b["colour"] == second.colour
        best["shapes"] = best["side"] and a["shape"] == first.shape and b["shape"] == second.shape
        best["size"] = best["side"] and all(not s or o["size"] == t.size for o, t, s in zip((a, b), scene.things, with_sizes))
        # both there, but the other way round
        v["swapped"] = (a["colour"], a["shape"], b["colour"], b["shape"]) == (second.colour, second.shape, first.colour, first.shape)
    v.update(best)
    v["right"] = v["colours"] and v["shapes"] and v["side"]
    v["right and size"] = v["right"] and v["size"]
    v["right and background"] = v["right"] and v["background"]
    return v, seen


def judge_img2img(image, scene, before):
    """`scene` has the prompt's colour, and the place of the start picture's object."""
    seen = look(image)
    alone = len(seen["objects"]) == 1 and seen["specks"] == 0
    o, t = (seen["objects"][0] if alone else {}), scene.things[0]
    v = dict(background=seen["background"] == scene.background, colour=alone and o["colour"] == t.colour,
             shape=alone and o["shape"] == t.shape, place=False)
    if alone:
        was = before["objects"][0]
        v["place"] = math.hypot(o["x"] - was["x"], o["y"] - was["y"]) <= 4 and 0.6 < o["area"] / was["area"] < 1.6
    v["right"] = v["place"] and v["colour"]
    v["right and shape"] = v["right"] and v["shape"] and v["background"]
    return v, seen


# ---------------------------------------------------------------- making pictures


class Engine:
    """ldm-ort as a subprocess, `flags` behind those of every run."""

    def __init__(self, binary, model, guidance, rescale, steps, flags=()):
        self.binary, self.model, self.guidance, self.rescale, self.steps = binary, os.path.abspath(model), guidance, rescale, steps
        self.flags = flags

    def run(self, folder, name, table, seed):
        extra = f"guidance_rescale = {self.rescale}\n" if self.rescale else ""
        path = os.path.join(folder, name + ".toml")
        with open(path, "w") as f:
            f.write(
                f"[model]\npath = {json.dumps(self.model)}\n\n{table}guidance_scale = {self.guidance}\n{extra}\n"
                f"[run]\nsteps = {self.steps}\nseed = {seed}\n\n[output]\ndir = {json.dumps(os.path.join(folder, name))}\n"
            )
        done = subprocess.run([self.binary, "run", path, "--json", *self.flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"ldm-ort failed ({done.returncode}) on {path}:\n{done.stderr[-2000:]}")
        rows = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
        rows = [r for r in rows if "path" in r]
        rows.sort(key=lambda r: r["seed"])
        images = []
        for r in rows:
            at = r["path"]
            if not os.path.exists(at):
                at = os.path.join(folder, r["path"])
            images.append(Image.open(at).convert("RGB"))
        return images

    def text(self, prompts, seed):
        with tempfile.TemporaryDirectory() as folder:
            table = f"[task.text-to-image]\nprompt = {json.dumps(prompts)}\n"
            images = self.run(folder, "text", table, seed)
        if len(images) != len(prompts):
            raise SystemExit(f"ldm-ort made {len(images)} pictures of {len(prompts)} prompts")
        return images

    def image(self, starts, prompts, strength, seed):
        out = []
        with tempfile.TemporaryDirectory() as folder:
            for i, (start, prompt) in enumerate(zip(starts, prompts)):
                png = os.path.join(folder, f"start{i}.png")
                start.save(png)
                table = f"[task.image-to-image]\nimage = {json.dumps(png)}\nstrength = {strength}\nprompt = {json.dumps(prompt)}\n"
                out += self.run(folder, f"image{i}", table, seed + i)[:1]
        return out


class Torch:
    """A diffusers pipeline, in batches, with a seed for every picture."""

    def __init__(self, pipe, guidance, rescale, steps):
        self.pipe, self.guidance, self.rescale, self.steps = pipe, guidance, rescale, steps

    def go(self, pipe, prompts, seed, **more):
        import torch

        out = []
        for i in range(0, len(prompts), 25):
            part = prompts[i : i + 25]
            generators = [torch.Generator().manual_seed(seed + i + k) for k in range(len(part))]
            own = {k: v[i : i + 25] if isinstance(v, list) else v for k, v in more.items()}
            out += pipe(part, num_inference_steps=self.steps, guidance_scale=self.guidance, generator=generators, **own).images
        return out

    def text(self, prompts, seed):
        return self.go(self.pipe, prompts, seed, guidance_rescale=self.rescale)

    def image(self, starts, prompts, strength, seed):
        from diffusers import StableDiffusionImg2ImgPipeline

        pipe = StableDiffusionImg2ImgPipeline(**self.pipe.components, requires_safety_checker=False)
        pipe.set_progress_bar_config(disable=True)
        return self.go(pipe, prompts, seed, image=starts, strength=strength)


class Drawing:
    """The self-check's: draws the scene that is asked for, or spoils it first."""

    def __init__(self, spoil):
        self.spoil, self.rng = spoil, random.Random(3)

    def draw(self, scene):
        rng = self.rng
        placed = replace(scene, things=world.place_two(rng, *scene.things, scene.relation)) if len(scene.things) == 2 else (
            scene if scene.things[0].radius else replace(scene, things=(world.place_one(rng, scene.things[0]),)))
        return world.draw(self.spoil(rng, placed)) if self.spoil else world.draw(placed)


def other(rng, names, *but):
    return rng.choice([n for n in names if n not in but])


def change_last(scene, **change):
    return replace(scene, things=scene.things[:-1] + (replace(scene.things[-1], **change),))


def free_corner(scene):
    far = lambda c: min(math.hypot(c[0] - t.x, c[1] - t.y) - t.radius for t in scene.things)
    x, y = max(((x, y) for x in (6, world.SIZE - 6) for y in (6, world.SIZE - 6)), key=far)
    return dict(x=x, y=y)


SPOILS = {
    "another colour": lambda rng, s: change_last(s, colour=other(rng, world.COLOUR_NAMES, s.background, s.things[-1].colour)),
    "another shape": lambda rng, s: change_last(s, shape=other(rng, world.SHAPES, s.things[-1].shape)),
    "nothing drawn": lambda rng, s: replace(s, things=s.things[:-1]),
    "one too many": lambda rng, s: replace(s, things=s.things + (replace(s.things[0], radius=5.0, **free_corner(s)),)),
}
SPOILS_TWO = {
    "sides swapped": lambda rng, s: replace(
        s, things=tuple(replace(t, x=world.SIZE - t.x, y=world.SIZE - t.y) for t in s.things)),
    "colours swapped": lambda rng, s: replace(
        s, things=(replace(s.things[0], colour=s.things[1].colour), replace(s.things[1], colour=s.things[0].colour)))
        if s.things[0].colour != s.things[1].colour else change_last(s, colour=other(rng, world.COLOUR_NAMES, s.background, s.things[1].colour)),
}


# ---------------------------------------------------------------- tests


def sheet(images, path, across=20):
    cell = world.SIZE + 2
    down = -(-len(images) // across)
    out = Image.new("RGB", (min(across, len(images)) * cell, down * cell), (128, 128, 128))
    for i, image in enumerate(images):
        out.paste(image, (i % across * cell + 1, i // across * cell + 1))
    out.save(path)


def image_tries(count, seed=13):
    """A start picture, and the scene with another colour that the prompt asks for."""
    rng = random.Random(seed)
    out = []
    while len(out) < count:
        scene = world.random_scene(rng, two=False, allow_held_out=True)
        colour = other(rng, world.COLOUR_NAMES, scene.background, scene.things[0].colour)
        if not world.triple_held_out(colour, scene.things[0].shape, scene.background):
            continue
        out.append((scene, change_last(scene, colour=colour)))
    return out


def percent(verdicts, key):
    return 100 * sum(bool(v.get(key)) for v, _ in verdicts) / len(verdicts)


def run_test(name, maker, count, seed):
    """Pictures and verdicts of one test; `maker` is an Engine, a Torch or a Drawing."""
    if name in ("one", "two"):
        prompts = (world.one_prompts if name == "one" else world.two_prompts)(count)
        if isinstance(maker, Drawing):
            images = [maker.draw(scene) for scene, _, _ in prompts]
        else:
            images = maker.text([text for _, text, _ in prompts], seed)
        judge = judge_one if name == "one" else judge_two
        verdicts = [judge(i, scene, sizes) for i, (scene, _, sizes) in zip(images, prompts)]
        return images, verdicts, [text for _, text, _ in prompts]
    tries = image_tries(count)
    starts = [world.draw(a) for a, _ in tries]
    texts = [world.caption(b, sizes=False) for _, b in tries]
    if isinstance(maker, Drawing):
        images = [maker.draw(b) for _, b in tries]
    else:
        images = maker.image(starts, texts, 0.5, seed)
    verdicts = [judge_img2img(i, b, look(s)) for i, (_, b), s in zip(images, tries, starts)]
    return [x for pair in zip(starts, images) for x in pair], verdicts, texts


TESTS = {
    # name: (pictures, first seed, [(verdict, percentage asked for)])
    "one": (200, 1000, [("colours", 95), ("right", 90), ("right and size", None), ("background", None), ("colour", None), ("shape", None)]),
    "two": (200, 2000, [("right", 75), ("right and background", None), ("right and size", None), ("background", None), ("count", None), ("side", None), ("colours", None), ("shapes", None), ("swapped", None)]),
    "img2img": (50, 3000, [("right", 80), ("right and shape", None), ("place", None), ("colour", None), ("shape", None), ("background", None)]),
}


def quick(pipe, count, guidance, path=None):
    """For training: the main numbers on the first prompts of both text tests."""
    maker = Torch(pipe, guidance, 0.0, 20)
    images, parts = [], []
    for name in ("one", "two"):
        made, verdicts, _ = run_test(name, maker, count, TESTS[name][1])
        images += made
        parts.append(f"{name}: colours {percent(verdicts, 'colours'):.0f} right {percent(verdicts, 'right'):.0f} background {percent(verdicts, 'background'):.0f}")
    made, verdicts, _ = run_test("img2img", maker, max(count // 2, 8), TESTS["img2img"][1])
    images += made
    parts.append(f"img2img: right {percent(verdicts, 'right'):.0f}")
    if path:
        sheet(images, path, across=16)
    return "; ".join(parts)


def self_check():
    print("right drawings:")
    ok = True
    for name, (count, seed, keys) in TESTS.items():
        _, verdicts, _ = run_test(name, Drawing(None), count, seed)
        key = {"one": "right and size", "two": "right and size", "img2img": "right and shape"}[name]
        p = percent(verdicts, key)
        b = percent(verdicts, "background")
        ok &= p >= 99 and b == 100
        print(f"  {name:8} {key} {p:.1f} %, background {b:.1f} %")
        for v, seen in verdicts:
            if not v[key]:
                print("    misjudged:", seen)
    print("wrong drawings, counted as right:")
    for name, (count, seed, keys) in TESTS.items():
        spoils = dict(SPOILS, **(SPOILS_TWO if name == "two" else {}))
        if name == "img2img":
            del spoils["another shape"]  # that test asks for place and colour
        for what, spoil in spoils.items():
            _, verdicts, _ = run_test(name, Drawing(spoil), count, seed)
            p = percent(verdicts, "right")
            ok &= p <= 1
            print(f"  {name:8} {what:16} {p:.1f} %")
    print("self-check " + ("passed" if ok else "FAILED"))
    return ok


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary", nargs="?", help="the ldm-ort program")
    p.add_argument("tests", nargs="*", help="one, two, img2img; all when none is named")
    p.add_argument("--model", default=os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "models", "shapes"))
    p.add_argument("--torch", metavar="CHECKPOINT", help="score a diffusers checkpoint in PyTorch (no program is named then)")
    p.add_argument("--guidance", type=float, default=4.0)
    p.add_argument("--guidance-rescale", type=float, default=0.0)
    p.add_argument("--steps", type=int, default=20)
    p.add_argument("--precision", help="the program's --precision")
    p.add_argument("--count", type=int, help="fewer prompts, for a quick look")
    p.add_argument("--json", metavar="FILE")
    p.add_argument("--sheet", metavar="FOLDER")
    p.add_argument("--self-check", action="store_true")
    args = p.parse_args()
    if args.self_check:
        sys.exit(0 if self_check() else 1)
    tests = list(args.tests)
    if args.torch:
        if args.binary:
            tests.insert(0, args.binary)
        import torch
        from diffusers import StableDiffusionPipeline

        torch.set_grad_enabled(False)
        pipe = StableDiffusionPipeline.from_pretrained(args.torch)
        pipe.set_progress_bar_config(disable=True)
        maker = Torch(pipe, args.guidance, args.guidance_rescale, args.steps)
    else:
        if not args.binary:
            p.error("name the ldm-ort program, or --torch CHECKPOINT, or --self-check")
        if not os.path.exists(args.binary):
            p.error(f"there is no program {args.binary}")
        flags = ["--precision", args.precision] if args.precision else []
        maker = Engine(os.path.abspath(args.binary), args.model, args.guidance, args.guidance_rescale, args.steps, flags)
    for t in tests:
        if t not in TESTS:
            p.error(f"no test {t!r}: there are {', '.join(TESTS)}")
    report, reached = {}, True
    for name in tests or TESTS:
        count, seed, keys = TESTS[name]
        count = min(count, args.count or count)
        images, verdicts, texts = run_test(name, maker, count, seed)
        print(f"{name}: {count} pictures, seeds {seed} to {seed + count - 1}, {args.steps} steps, guidance {args.guidance}")
        for key, asked in keys:
            got = percent(verdicts, key)
            line = f"  {key:22} {got:5.1f} %"
            if asked:
                reached &= got >= asked
                line += f"  (asked for: {asked} %, {'reached' if got >= asked else 'NOT reached'})"
            print(line, flush=True)
        report[name] = [dict(prompt=t, seed=seed + i, verdict={k: bool(x) for k, x in v.items()}, seen=s) for i, (t, (v, s)) in enumerate(zip(texts, verdicts))]
        if args.sheet:
            os.makedirs(args.sheet, exist_ok=True)
            sheet(images, os.path.join(args.sheet, name + ".png"))
    if args.json:
        json.dump(report, open(args.json, "w"), indent=1)
    sys.exit(0 if reached else 2)


if __name__ == "__main__":
    main()
