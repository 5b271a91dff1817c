"""Makes tests/golden/quantize/int8.json: digests of the weights that `ldm-ort quantize --weights int8` writes beside the
graphs of tests/fixtures/models/sd1, computed with numpy from the float32 graphs.

    python scripts/golden_quantize.py

Needs numpy and onnx (scripts/requirements.txt).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / "tests/fixtures/models/sd1"
GOLDEN = ROOT / "tests/golden/quantize/int8.json"
BLOCK = 64
PAGE, LINE = 4096, 64


def blocks(weights):
    """Blocks of 64 along the stored order, symmetric: scale = max|w| / 127, q = round(w / scale), ties to even."""
    rows = weights.reshape(-1, BLOCK)
    scale = np.abs(rows).max(axis=1) / np.float32(127)
    scale = np.where(scale > 0, scale, np.float32(1)).astype(np.float32)
    return np.clip(np.rint(rows / scale[:, None]), -127, 127).astype(np.int8), scale


def narrowed(graph):
    """The arrays that lie beside the graph, in its own order."""
    readers = {}
    for node in graph.node:
        for at, name in enumerate(node.input):
            readers.setdefault(name, []).append((node.op_type, at))
    for tensor in graph.initializer:
        weights = onnx.numpy_helper.to_array(tensor)
        if weights.dtype != np.float32 or weights.ndim < 2 or weights.size < 1024:
            continue
        by = set(readers[tensor.name])
        if by == {("Gather", 0)}:
            yield weights.astype(np.float16)
        elif by <= {("MatMul", 0), ("MatMul", 1), ("Gemm", 0), ("Gemm", 1), ("Conv", 1), ("ConvTranspose", 1)}:
            if weights.size % BLOCK:
                yield weights.astype(np.float16)
            else:
                yield from blocks(weights)


def beside(graph):
    data = bytearray()
    for array in narrowed(graph):
        step = LINE if array.nbytes < PAGE else PAGE
        data += bytes(-len(data) % step)
        data += array.astype(array.dtype.newbyteorder("<")).tobytes()
    return bytes(data)


def main():
    digests = {}
    for component in ("text_encoder", "unet"):
        graph = onnx.load(MODEL / component / "model.onnx").graph
        digests[component] = hashlib.sha256(beside(graph)).hexdigest()
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps({"sha256": digests}, indent=2) + "\n")


if __name__ == "__main__":
    main()
