"""Store the weights of the text encoder and the VAE of an exported models/shapes in 8 bits, in place.

    python scripts/train/store_int8.py models/shapes

export.py stores them in half precision, each behind a Cast. Here a weight becomes rows of 64 8-bit values with a scale
each, the largest magnitude over 127, and a Cast, a Mul and a Reshape restore it. ONNX Runtime computes these once, when
it opens the graph, so that a run is as fast as before (after `ldm-ort quantize` weights stay small in memory too, and are
dequantized at every run). Embedding tables, small weights and those that no 64 divides stay in half precision.
The UNet's weights do too: it runs 20 times an image, and its errors add up. Needs numpy and onnx.
"""

import os
import sys

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

COMPONENTS = ["text_encoder", "vae_encoder", "vae_decoder"]
BLOCK = 64
LEAST = 1024


def int8_storage(model):
    """Replaces what can be replaced. Returns the number of weights, and their relative error."""
    graph = model.graph
    readers = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    halves = {i.name: i for i in graph.initializer if i.data_type == TensorProto.FLOAT16}
    nodes, count, error, total = [], 0, 0.0, 0.0
    for node in graph.node:
        tensor = halves.get(node.input[0]) if node.op_type == "Cast" and len(readers[node.input[0]]) == 1 else None
        table = any(reader.op_type == "Gather" for reader in readers.get(node.output[0], []))
        size = int(np.prod(tensor.dims)) if tensor is not None else 0
        if table or size < LEAST or size % BLOCK:
            nodes.append(node)
            continue
        name, dims = node.output[0], list(tensor.dims)
        values = numpy_helper.to_array(tensor).astype(np.float32).reshape(-1, BLOCK)
        scales = np.maximum(np.abs(values).max(axis=1, keepdims=True), 1e-12) / np.float32(127)
        codes = np.clip(np.rint(values / scales), -127, 127).astype(np.int8)
        error += float(((codes * scales - values) ** 2).sum())
        total += float((values**2).sum())
        count += 1
        graph.initializer.remove(tensor)
        graph.initializer.extend(
            [
                numpy_helper.from_array(codes, f"{name}_codes"),
                numpy_helper.from_array(scales, f"{name}_scales"),
                numpy_helper.from_array(np.array(dims, np.int64), f"{name}_dims"),
            ]
        )
        nodes += [
            helper.make_node("Cast", [f"{name}_codes"], [f"{name}_numbers"], to=TensorProto.FLOAT),
            helper.make_node("Mul", [f"{name}_numbers", f"{name}_scales"], [f"{name}_rows"]),
            helper.make_node("Reshape", [f"{name}_rows", f"{name}_dims"], [name]),
        ]
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(nodes)
    return count, (error / total) ** 0.5 if total else 0.0


def main():
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    for component in COMPONENTS:
        path = os.path.join(sys.argv[1], component, "model.onnx")
        before = os.path.getsize(path)
        model = onnx.load(path)
        count, error = int8_storage(model)
        if not count:
            sys.exit(f"{path} has no weight in half precision behind a Cast: export it with --dtype half first")
        onnx.checker.check_model(model)
        onnx.save(model, path)
        print(f"{component}: {count} weights, off by {error:.1e}; {before:,} bytes before, {os.path.getsize(path):,} now")


if __name__ == "__main__":
    main()
