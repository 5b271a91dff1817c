"""The world that models/shapes was trained on: scenes, captions and drawings.

One or two objects (a colour, a shape, a size) on a background of one colour,
and a caption for it.  `train_shapes.py` draws its training pictures with this
module and `judge_shapes.py` takes its prompts from it, so that both agree on
which combinations are held out of training.

It is a module of the two scripts.  Run by itself it writes a contact sheet of
training scenes with their captions, to look at:

    python scripts/train/shapes_world.py sheet.png
"""

import math
import random
import sys
import zlib
from dataclasses import dataclass, replace
from typing import Optional

from PIL import Image, ImageDraw

SIZE = 64  # pixels a side
COLOURS = {
    "red": (220, 30, 30),
    "green": (30, 160, 60),
    "blue": (30, 70, 225),
    "yellow": (250, 225, 40),
    "orange": (245, 130, 20),
    "purple": (150, 50, 180),
    "white": (245, 245, 245),
    "black": (15, 15, 15),
}
COLOUR_NAMES = list(COLOURS)
SHAPES = ["circle", "square", "triangle", "star"]
SIZES = ["small", "large"]
# The radius of the circle around the shape, in pixels of a 64-pixel picture.
RADII = {"small": (9.8, 11.0), "large": (13.0, 14.2)}
RELATIONS = ["to the left of", "to the right of", "above", "below"]
STAR_INNER = 0.42
# Circles and squares fill the circle around them, triangles and stars do not: by this
# much the former are drawn smaller.
ROUND = 0.9
SUPERSAMPLE = 4


@dataclass(frozen=True)
class Thing:
    colour: str
    shape: str
    size: str
    x: float = 0.0
    y: float = 0.0
    radius: float = 0.0


@dataclass(frozen=True)
class Scene:
    things: tuple  # one or two
    background: str
    relation: Optional[str] = None  # of the first thing to the second


# ---------------------------------------------------------------- held out


def _bucket(text):
    return zlib.crc32(text.encode()) % 100


def triple_held_out(colour, shape, background):
    """A fifth of the (colour, shape, background) triples is never trained on."""
    return _bucket(f"one/{colour}/{shape}/{background}") < 20


def pair_held_out(a, b):
    """A fifth of the pairs of (colour, shape) is never trained on, in either order."""
    return _bucket("two/" + "/".join(sorted([f"{a.colour} {a.shape}", f"{b.colour} {b.shape}"]))) < 20


def held_out(scene):
    if any(triple_held_out(t.colour, t.shape, scene.background) for t in scene.things):
        return True
    return len(scene.things) == 2 and pair_held_out(*scene.things)


# ---------------------------------------------------------------- scenes


def place_one(rng, thing):
    r = rng.uniform(*RADII[thing.size])
    lo, hi = r + 1.5, SIZE - r - 1.5
    return replace(thing, x=rng.uniform(lo, hi), y=rng.uniform(lo, hi), radius=r)


def place_two(rng, first, second, relation):
    """Positions for two things, so that `first` is `relation` `second`."""
    while True:
        r1, r2 = rng.uniform(*RADII[first.size]), rng.uniform(*RADII[second.size])
        room = SIZE - 3 - 2 * r1 - 2 * r2  # left over along the axis
        if room < 3.5:
            continue
        gap = rng.uniform(3.5, min(room, 22.0))
        start = 1.5 + rng.uniform(0, room - gap)
        # lower coordinate first: the left one, or the one above
        swap = relation in ("to the right of", "below")
        ra, rb = (r2, r1) if swap else (r1, r2)
        a = start + ra
        b = a + ra + gap + rb
        centre = rng.uniform(1.5 + max(ra, rb), SIZE - 1.5 - max(ra, rb))
        lean = rng.uniform(-6, 6)
        ca, cb = centre - lean / 2, centre + lean / 2
        if not (ra + 1.5 <= ca <= SIZE - 1.5 - ra and rb + 1.5 <= cb <= SIZE - 1.5 - rb):
            continue
        pa, pb = (a, ca), (b, cb)
        if relation in ("above", "below"):
            pa, pb = (ca, a), (cb, b)
        p1, p2 = (pb, pa) if swap else (pa, pb)
        return (
            replace(first, x=p1[0], y=p1[1], radius=r1),
            replace(second, x=p2[0], y=p2[1], radius=r2),
        )


def random_thing(rng):
    return Thing(rng.choice(COLOUR_NAMES), rng.choice(SHAPES), rng.choice(SIZES))


def random_scene(rng, two=None, allow_held_out=False):
    if two is None:
        two = rng.random() < 0.6
    while True:
        things = [random_thing(rng) for _ in range(2 if two else 1)]
        background = rng.choice(COLOUR_NAMES)
        if any(t.colour == background for t in things):
            continue
        relation = rng.choice(RELATIONS) if two else None
        scene = Scene(tuple(things), background, relation)
        if held_out(scene) and not allow_held_out:
            continue
        if two:
            return replace(scene, things=place_two(rng, *things, relation))
        return replace(scene, things=(place_one(rng, things[0]),))


def recoloured(rng, scene):
    """The same scene with other colours on its things."""
    while True:
        things = tuple(replace(t, colour=rng.choice(COLOUR_NAMES)) for t in scene.things)
        if any(t.colour == scene.background for t in things):
            continue
        if all(t.colour == s.colour for t, s in zip(things, scene.things)):
            continue
        other = replace(scene, things=things)
        if not held_out(other):
            return other


# ---------------------------------------------------------------- captions


def article(words):
    return ("an " if words[0] in "aeiou" else "a ") + words


def phrase(thing, with_size):
    return article(" ".join(([thing.size] if with_size else []) + [thing.colour, thing.shape]))


def caption(scene, sizes=True, background=True):
    """`sizes` may be one flag, or one for each thing."""
    if isinstance(sizes, bool):
        sizes = [sizes] * len(scene.things)
    text = phrase(scene.things[0], sizes[0])
    if len(scene.things) == 2:
        text += f" {scene.relation} " + phrase(scene.things[1], sizes[1])
    if background:
        text += f" on {article(scene.background)} background"
    return text


# ---------------------------------------------------------------- drawing


def polygon(shape, x, y, r):
    if shape == "square":
        h = r * 0.86 * ROUND
        return [(x - h, y - h), (x + h, y - h), (x + h, y + h), (x - h, y + h)]
    if shape == "triangle":
        # moved down so that its box, not its centroid, is centred
        y = y + r * 0.25
        return [(x + r * math.sin(a), y - r * math.cos(a)) for a in (0, 2 * math.pi / 3, 4 * math.pi / 3)]
    points = []
    for i in range(10):
        radius = r if i % 2 == 0 else r * STAR_INNER
        a = math.pi * i / 5
        points.append((x + radius * math.sin(a), y - radius * math.cos(a)))
    return points


def draw_shape(pen, shape, x, y, r, fill, scale):
    x, y, r = x * scale - 0.5, y * scale - 0.5, r * scale
    if shape == "circle":
        r *= ROUND
        pen.ellipse([x - r, y - r, x + r, y + r], fill=fill)
    else:
        pen.polygon(polygon(shape, x, y, r), fill=fill)


def draw(scene):
    """The picture of a scene, anti-aliased, SIZE by SIZE."""
    image = Image.new("RGB", (SIZE * SUPERSAMPLE,) * 2, COLOURS[scene.background])
    pen = ImageDraw.Draw(image)
    for t in scene.things:
        draw_shape(pen, t.shape, t.x, t.y, t.radius, COLOURS[t.colour], SUPERSAMPLE)
    return image.reduce(SUPERSAMPLE)


# ---------------------------------------------------------------- prompts to judge with


def one_prompts(count, seed=7):
    """Scenes of one object whose (colour, shape, background) was held out."""
    rng = random.Random(seed)
    triples = [
        (c, s, b)
        for c in COLOUR_NAMES
        for s in SHAPES
        for b in COLOUR_NAMES
        if b != c and triple_held_out(c, s, b)
    ]
    out = []
    while len(out) < count:
        rng.shuffle(triples)
        for c, s, b in triples[: count - len(out)]:
            scene = Scene((Thing(c, s, rng.choice(SIZES)),), b)
            with_size = rng.random() < 0.5
            out.append((scene, caption(scene, with_size), [with_size]))
    return out


def two_prompts(count, seed=11):
    """Scenes of two objects whose pair of (colour, shape) was held out."""
    rng = random.Random(seed)
    out, seen = [], set()
    while len(out) < count:
        a, b = random_thing(rng), random_thing(rng)
        background = rng.choice(COLOUR_NAMES)
        if background in (a.colour, b.colour) or (a.colour, a.shape) == (b.colour, b.shape):
            continue
        if not pair_held_out(a, b):
            continue
        scene = Scene((a, b), background, rng.choice(RELATIONS))
        with_sizes = [rng.random() < 0.3, rng.random() < 0.3]
        text = caption(scene, with_sizes)
        if text in seen:
            continue
        seen.add(text)
        out.append((scene, text, with_sizes))
    return out


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: python scripts/train/shapes_world.py SHEET.png")
    rng = random.Random(0)
    sheet = Image.new("RGB", (8 * (SIZE + 4), 6 * (SIZE + 4)), (128, 128, 128))
    for i in range(48):
        scene = random_scene(rng)
        print(caption(scene))
        sheet.paste(draw(scene), (i % 8 * (SIZE + 4) + 2, i // 8 * (SIZE + 4) + 2))
    sheet.save(sys.argv[1])


if __name__ == "__main__":
    main()
