"""Makes tests/golden/image/: what Pillow and diffusers make of pictures.

Run from the repository's root, with Pillow 12 or later, NumPy and diffusers 0.39:

    python scripts/goldens/golden_image.py

    load/F and load/F.rgb.png      a file of each kind, and exif_transpose() and convert("RGB") of it
    resize/source.png, WxH.png     a picture, and what resize(..., LANCZOS) makes of it
    levels.png, levels.npy         every level, and VaeImageProcessor.preprocess of it
    decoded.npy, decoded.png       values in and beyond [-1, 1], and VaeImageProcessor.postprocess of them
"""

import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import torch
from diffusers.image_processor import VaeImageProcessor
from PIL import Image, ImageOps

OUT = Path("tests/golden/image")
shutil.rmtree(OUT, ignore_errors=True)
(OUT / "load").mkdir(parents=True)
(OUT / "resize").mkdir()
rng = np.random.default_rng(7)


def scene(width, height):
    """Smooth colours with hard edges and some noise."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    rgb = np.stack([127 + 120 * np.sin(x / 3 + y / 7), 127 + 120 * np.cos(x / 5 - y / 4), 255 * x / width], -1)
    rgb[(x - width / 2) ** 2 + (y - height / 2) ** 2 < (min(width, height) / 4) ** 2] = (255, 0, 40)
    rgb[: height // 5, : width // 4] = rng.uniform(0, 255, (height // 5, width // 4, 3))
    return Image.fromarray(rgb.clip(0, 255).astype(np.uint8))


def png(width, height, depth, colour, rows, extra=b""):
    """A PNG of a kind that Pillow does not write."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + extra + chunk(b"IDAT", data) + chunk(b"IEND", b"")


rgb = scene(13, 9)
alpha = rgb.copy()
alpha.putalpha(Image.fromarray(rng.integers(0, 256, (9, 13), np.uint8)))
palette = rgb.quantize(16)
files = {
    "rgb.png": (rgb, {}),
    "rgba.png": (alpha, {}),
    "grey.png": (rgb.convert("L"), {}),
    "grey-alpha.png": (alpha.convert("LA"), {}),
    "bilevel.png": (rgb.convert("1"), {}),
    "palette.png": (palette, {}),
    "palette-transparent.png": (palette, {"transparency": bytes(range(0, 256, 16))}),
    "palette-2.png": (rgb.quantize(4), {"bits": 2}),
    "rgb-transparent.png": (rgb, {"transparency": rgb.getpixel((0, 0))}),
    "rgb.bmp": (rgb, {}),
    "grey.bmp": (rgb.convert("L"), {}),
    "palette.bmp": (palette, {}),
    "rgba.bmp": (alpha, {}),
    "lossless.webp": (rgb, {"lossless": True}),
    "lossless-alpha.webp": (alpha, {"lossless": True, "exact": True}),
    "lossy.webp": (scene(48, 40), {"quality": 90}),
    "lossy.jpg": (scene(48, 40), {"quality": 95, "subsampling": 0}),
    "lossy-420.jpg": (scene(48, 40), {"quality": 95, "subsampling": 2}),
    "lossy-progressive.jpg": (scene(48, 40), {"quality": 95, "subsampling": 0, "progressive": True}),
    "lossy-grey.jpg": (scene(48, 40).convert("L"), {"quality": 95}),
}
exif = Image.Exif()
for orientation in range(1, 9):
    exif[0x0112] = orientation
    files[f"lossy-turned-{orientation}.jpg"] = (scene(24, 16), {"quality": 95, "subsampling": 0, "exif": exif.tobytes()})
files["turned-6.png"] = (rgb, {"exif": files["lossy-turned-6.jpg"][1]["exif"]})
for name, (image, options) in files.items():
    image.save(OUT / "load" / name, **options)

wide = rng.integers(0, 65536, (5, 4 * 4), np.uint16).astype(">u2")
for name, colour, channels in [("rgb-16.png", 2, 3), ("rgba-16.png", 6, 4), ("grey-alpha-16.png", 4, 2)]:
    rows = [row[: 4 * channels].tobytes() for row in wide]
    (OUT / "load" / name).write_bytes(png(4, 5, 16, colour, rows))
(OUT / "load" / "grey-2.png").write_bytes(png(4, 2, 2, 0, [b"\x1b", b"\xe4"]))
(OUT / "load" / "grey-4.png").write_bytes(png(4, 2, 4, 0, [b"\x01\x9f", b"\x5a\xc3"]))



def add_rgb(path):
    """Decodes a file with Pillow."""
    ImageOps.exif_transpose(Image.open(path)).convert("RGB").save(f"{path}.rgb.png", optimize=True)


for path in sorted((OUT / "load").iterdir()):
    add_rgb(path)

source = scene(61, 47)
source.save(OUT / "resize" / "source.png", optimize=True)
for width, height in [(64, 64), (122, 94), (30, 23), (8, 8), (61, 20), (100, 47), (7, 90), (1, 1), (200, 3), (60, 48)]:
    source.resize((width, height), Image.LANCZOS).save(OUT / "resize" / f"{width}x{height}.png", optimize=True)

processor = VaeImageProcessor(vae_scale_factor=8)
levels = Image.fromarray(rng.permuted(np.arange(768, dtype=np.uint16) % 256).astype(np.uint8).reshape(16, 16, 3))
levels.save(OUT / "levels.png", optimize=True)
np.save(OUT / "levels.npy", processor.preprocess(levels).numpy())

decoded = rng.uniform(-1.2, 1.2, (1, 3, 24, 16)).astype(np.float32)
# Values halfway between two levels, where rounding is to the even one.
halves = ((np.arange(48, dtype=np.float32) * 5 + 0.5) / 255 - 0.5) * 2
decoded[0, :, 0, :] = halves.reshape(3, 16)
np.save(OUT / "decoded.npy", decoded)
processor.postprocess(torch.from_numpy(decoded), output_type="pil")[0].save(OUT / "decoded.png", optimize=True)

# Variants of JPEG files: sampling, sides with a partial block, scans, color spaces, restart markers.
odd = scene(37, 21)
jpegs = {
    "odd-420": (odd, {"quality": 75, "subsampling": 2}),
    "odd-422": (odd, {"quality": 85, "subsampling": 1}),
    "odd-444": (odd, {"quality": 30, "subsampling": 0}),
    "odd-progressive-420": (odd, {"quality": 85, "subsampling": 2, "progressive": True}),
    "odd-progressive-422": (odd, {"quality": 60, "subsampling": 1, "progressive": True}),
    "odd-grey-progressive": (odd.convert("L"), {"quality": 85, "progressive": True}),
    "best-420": (odd, {"quality": 100, "subsampling": 2}),
    "narrow-420": (scene(3, 19), {"quality": 80, "subsampling": 2}),
    "pixel-420": (scene(1, 1), {"quality": 80, "subsampling": 2}),
    "restart": (odd, {"quality": 75, "subsampling": 2, "restart_marker_blocks": 2}),
    "rgb": (odd, {"quality": 80, "keep_rgb": True}),
    "turned-420": (odd, {"quality": 85, "subsampling": 2, "exif": files["lossy-turned-6.jpg"][1]["exif"]}),
    "cmyk": (scene(19, 13).convert("CMYK"), {"quality": 85}),
}
for name, (image, options) in jpegs.items():
    image.save(OUT / "load" / f"lossy-{name}.jpg", **options)
    add_rgb(OUT / "load" / f"lossy-{name}.jpg")
