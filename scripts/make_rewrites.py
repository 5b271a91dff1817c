#!/usr/bin/env python3
"""Makes tests/fixtures/rewrite: forms of one computation that exporters write and src/rewrite has to know.

Run from the root of the repository:

    python -m pip install -r scripts/requirements.txt
    python scripts/make_rewrites.py

    baddbmm    attention with its heads within the batch: diffusers' AttnProcessor
    dynamo     self- and cross-attention from torch's newer exporter
    half-pixel, asymmetric
               an enlargement and a convolution, by the two conventions that agree, with the weights in a file beside
    winograd   a convolution of 256 channels, whose weights are products of few numbers
    widened    the same of numbers stored in 8 bits, which are widened at every run
"""

import os
import warnings

import numpy as np
import onnx
import torch
from diffusers.models.attention_processor import Attention, AttnProcessor
from onnx import TensorProto, helper, numpy_helper

warnings.filterwarnings("ignore")
ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "rewrite")


def path(name):
    return os.path.join(ROOT, name + ".onnx")


def save(name, nodes, inputs, stored, **options):
    def info(n, shape):
        return helper.make_tensor_value_info(n, TensorProto.FLOAT, shape)

    tensors = [numpy_helper.from_array(value, key) for key, value in stored.items()]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", None, None, None])]
    graph = helper.make_graph(nodes, name, [info(*i) for i in inputs], outputs, tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, path(name), **options)


def attention(processor, cross):
    torch.manual_seed(0)
    return Attention(16, cross_attention_dim=cross, heads=2, dim_head=8, processor=processor).eval()


def baddbmm():
    x = torch.randn(2, 6, 16)
    axes = {"x": {0: "batch", 1: "tokens"}, "y": {0: "batch", 1: "tokens"}}
    module = attention(AttnProcessor(), None)
    torch.onnx.export(
        module, (x,), path("baddbmm"), input_names=["x"], output_names=["y"], dynamic_axes=axes, opset_version=17, dynamo=False
    )


def dynamo():
    class Both(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.own, self.cross = attention(None, None), attention(None, 12)

        def forward(self, x, text):
            x = x + self.own(x)
            return x + self.cross(x, encoder_hidden_states=text)

    batch, tokens, words = torch.export.Dim("batch", min=2), torch.export.Dim("tokens", min=2), torch.export.Dim("words", min=2)
    program = torch.onnx.export(
        Both(),
        (torch.randn(3, 6, 16), torch.randn(3, 5, 12)),
        input_names=["x", "text"],
        output_names=["y"],
        dynamic_shapes={"x": {0: batch, 1: tokens}, "text": {0: batch, 1: words}},
        opset_version=18,
        dynamo=True,
    )
    program.save(path("dynamo"))


def enlargements(rng):
    conventions = {"half-pixel": ("half_pixel", "round_prefer_floor"), "asymmetric": ("asymmetric", "floor")}
    stored = {
        "scales": np.array([1, 1, 2, 2], np.float32),
        "weight": rng.standard_normal((5, 3, 3, 3)).astype(np.float32),
        "bias": rng.standard_normal(5).astype(np.float32),
    }
    for name, (transformation, rounding) in conventions.items():
        options = {"mode": "nearest", "coordinate_transformation_mode": transformation, "nearest_mode": rounding}
        nodes = [
            helper.make_node("Resize", ["x", "", "scales"], ["large"], **options),
            helper.make_node("Conv", ["large", "weight", "bias"], ["y"], pads=[1, 1, 1, 1]),
        ]
        beside = {"save_as_external_data": True, "location": name + ".weights", "size_threshold": 100}
        save(name, nodes, [("x", ["batch", 3, "height", "width"])], stored, **beside)


def winograd(rng):
    stored = {
        "out": rng.standard_normal((256, 1, 3, 3)).astype(np.float32),
        "in": rng.standard_normal((1, 256, 1, 1)).astype(np.float32),
        "bias": rng.standard_normal(256).astype(np.float32),
        "wide": rng.standard_normal((256, 1, 1, 1)).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["x", "wide"], ["many"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["out", "in"], ["weight"]),
        helper.make_node("Conv", ["many", "weight", "bias"], ["y"], pads=[1, 1, 1, 1]),
    ]
    save("winograd", nodes, [("x", ["batch", 1, "height", "width"])], stored)
    stored = {
        "narrow": rng.integers(-127, 128, (1, 256, 3, 3)).astype(np.int8),
        "scale": np.array(0.01, np.float32),
        "wide": stored["wide"],
    }
    nodes = [
        helper.make_node("DequantizeLinear", ["narrow", "scale"], ["kernel"]),
        helper.make_node("Conv", ["x", "wide"], ["many"], kernel_shape=[1, 1]),
        helper.make_node("Mul", ["kernel", "wide"], ["weight"]),
        helper.make_node("Conv", ["many", "weight"], ["y"], pads=[1, 1, 1, 1]),
    ]
    save("widened", nodes, [("x", ["batch", 1, "height", "width"])], stored)


if __name__ == "__main__":
    os.makedirs(ROOT, exist_ok=True)
    for make in [baddbmm, dynamo]:
        make()
    for make in [enlargements, winograd]:
        make(np.random.default_rng(0))
