"""Makes tests/golden/quantize/int8.json: digests of the weights that `ldm-ort quantize --weights int8` writes beside the
graphs of tests/fixtures/models/sd1, computed with numpy from the float32 graphs; and dynamic-int8.json: what numpy makes
of an evaluation of that model's UNet with products of 8 bits.

    python scripts/goldens/golden_quantize.py

Needs numpy and onnx (scripts/requirements.txt).
"""

import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
from onnx.reference import ReferenceEvaluator
from onnx.reference.ops.op_matmul import MatMul as Plain

ROOT = Path(__file__).resolve().parents[2]
MODEL = ROOT / "tests/fixtures/models/sd1"
GOLDEN = ROOT / "tests/golden/quantize/int8.json"
DYNAMIC = ROOT / "tests/golden/quantize/dynamic-int8.json"
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


class MatMul(Plain):
    """Products of 8 bits where a matrix of 1024 numbers or more is multiplied by: attention's have more axes than two."""

    def _run(self, x, weights):
        if weights.ndim != 2 or weights.size < 1024:
            return super()._run(x, weights)
        columns = np.abs(weights).max(axis=0) / np.float32(127)
        columns = np.where(columns > 0, columns, np.float32(1))
        narrow = np.clip(np.rint(weights / columns), -127, 127).astype(np.int32)
        # ONNX's DynamicQuantizeLinear: uint8, from the smallest number to the largest, zero among them.
        low, high = min(x.min(), np.float32(0)), max(x.max(), np.float32(0))
        scale = np.float32((high - low) / np.float32(255))
        zero = np.clip(np.rint(-low / scale), 0, 255).astype(np.int32)
        rows = np.clip(np.rint(x / scale).astype(np.int32) + zero, 0, 255) - zero
        return ((rows @ narrow).astype(np.float32) * (scale * columns),)


def evaluated():
    path = MODEL / "unet/model.onnx"

    def numbers(*shape):
        return np.sin(np.arange(np.prod(shape), dtype=np.float64)).astype(np.float32).reshape(shape)

    inputs = {"sample": numbers(1, 4, 4, 4), "encoder_hidden_states": numbers(1, 5, 16), "timestep": np.float32(500)}
    values = ReferenceEvaluator(str(path), new_ops=[MatMul]).run(["out_sample"], inputs)[0]
    return [float(f"{value:.5g}") for value in values.reshape(-1)]


def main():
    digests = {}
    for component in ("text_encoder", "unet"):
        graph = onnx.load(MODEL / component / "model.onnx").graph
        digests[component] = hashlib.sha256(beside(graph)).hexdigest()
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(json.dumps({"sha256": digests}, indent=2) + "\n")
    DYNAMIC.write_text(json.dumps(evaluated(), separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
