#!/usr/bin/env python3
"""Compares two images by their pixels, and the latents that they were decoded from.

usage: same_image.py A.png B.png A.npy B.npy

Prints the largest difference of both, and fails if a pixel differs by more than one level of 255, or a latent by more than
1e-4 of the largest. Needs no packages. PNG of 8 bits as `ldm-ort` writes it, npy of float32.
"""
import array
import ast
import sys
import zlib


def pixels(path):
    data, at, packed, width, channels = open(path, "rb").read(), 8, b"", 0, 0
    while at < len(data):
        length, kind = int.from_bytes(data[at:at + 4], "big"), data[at + 4:at + 8]
        body = data[at + 8:at + 8 + length]
        if kind == b"IHDR":
            width, channels = int.from_bytes(body[:4], "big"), {0: 1, 2: 3, 4: 2, 6: 4}[body[9]]
        elif kind == b"IDAT":
            packed += body
        at += 12 + length
    return unfilter(zlib.decompress(packed), width * channels, channels)


def paeth(left, above, corner):
    distances = [abs(above - corner), abs(left - corner), abs(left + above - 2 * corner)]
    return (left, above, corner)[distances.index(min(distances))]


def unfilter(data, stride, step):
    before, out = bytearray(stride), bytearray()
    for start in range(0, len(data), stride + 1):
        kind, row = data[start], bytearray(data[start + 1:start + 1 + stride])
        for i in range(stride):
            left = row[i - step] if i >= step else 0
            corner = before[i - step] if i >= step else 0
            guess = (0, left, before[i], (left + before[i]) // 2, paeth(left, before[i], corner))[kind]
            row[i] = (row[i] + guess) & 255
        out += row
        before = row
    return out


def latents(path):
    data = open(path, "rb").read()
    start = 10 + int.from_bytes(data[8:10], "little")
    header = ast.literal_eval(data[10:start].decode())
    if header["descr"] != "<f4":
        sys.exit(f"{path}: expected float32, found {header['descr']}")
    return array.array("f", data[start:])


def apart(a, b):
    if len(a) != len(b):
        sys.exit(f"{len(a)} values and {len(b)} values")
    return max(abs(x - y) for x, y in zip(a, b))


levels = apart(pixels(sys.argv[1]), pixels(sys.argv[2]))
first, second = latents(sys.argv[3]), latents(sys.argv[4])
difference = apart(first, second) / max(map(abs, first))
print(f"largest difference: {levels} levels of 255 in the image, {difference:.1e} of the largest latent", file=sys.stderr)
sys.exit(levels > 1 or difference > 1e-4)
