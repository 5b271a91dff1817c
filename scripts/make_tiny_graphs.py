#!/usr/bin/env python3
"""Makes the tiny graphs of tests/fixtures/graphs, a few hundred bytes each.

Run:  python scripts/make_tiny_graphs.py
Needs: onnx (any version from 1.15 on). The result does not depend on the machine.
"""

from pathlib import Path

from onnx import TensorProto, helper

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "graphs"
LATENT = ["batch", 4, "height", "width"]


def info(name, dtype, shape):
    return helper.make_tensor_value_info(name, dtype, shape)


def save(name, nodes, inputs, outputs, initializers=()):
    graph = helper.make_graph(nodes, name, inputs, outputs, list(initializers))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], producer_name="ldm-ort tests")
    model.ir_version = 8
    data = model.SerializeToString(deterministic=True)
    (OUT / f"{name}.onnx").write_bytes(data)
    return data


def identities():
    """One input and one output of each element type that diffusion graphs have at their edges."""
    types = {
        "f32": TensorProto.FLOAT,
        "f16": TensorProto.FLOAT16,
        "bf16": TensorProto.BFLOAT16,
        "f64": TensorProto.DOUBLE,
        "i64": TensorProto.INT64,
        "i32": TensorProto.INT32,
        "bool": TensorProto.BOOL,
    }
    for name, dtype in types.items():
        node = helper.make_node("Identity", ["x"], ["y"])
        save(f"identity_{name}", [node], [info("x", dtype, LATENT)], [info("y", dtype, LATENT)])


def scalar():
    """A timestep that is a scalar, as some exporters make it."""
    node = helper.make_node("Identity", ["timestep"], ["y"])
    save("scalar", [node], [info("timestep", TensorProto.INT64, [])], [info("y", TensorProto.INT64, [])])


def unet():
    """Three inputs of three types and two outputs: what a UNet's edges look like."""
    nodes = [
        helper.make_node("Cast", ["timestep"], ["t"], to=TensorProto.FLOAT),
        helper.make_node("Unsqueeze", ["t", "axes"], ["t4"]),
        helper.make_node("Cast", ["scale"], ["s"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["sample", "s"], ["scaled"]),
        helper.make_node("Add", ["scaled", "t4"], ["out_sample"]),
        helper.make_node("ReduceSum", ["sample"], ["sum"], keepdims=0),
    ]
    axes = helper.make_tensor("axes", TensorProto.INT64, [3], [1, 2, 3])
    inputs = [
        info("sample", TensorProto.FLOAT, LATENT),
        info("timestep", TensorProto.INT32, ["batch"]),
        info("scale", TensorProto.FLOAT16, []),
    ]
    outputs = [info("out_sample", TensorProto.FLOAT, LATENT), info("sum", TensorProto.FLOAT, [])]
    save("unet", nodes, inputs, outputs, [axes])


def endless():
    """Runs as many rounds of a loop as it is told: something to interrupt."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["carried", "one"], ["next"]),
        ],
        "round",
        [info("i", TensorProto.INT64, []), info("go", TensorProto.BOOL, []), info("carried", TensorProto.FLOAT, [])],
        [info("go_on", TensorProto.BOOL, []), info("next", TensorProto.FLOAT, [])],
        [helper.make_tensor("one", TensorProto.FLOAT, [], [1.0])],
    )
    node = helper.make_node("Loop", ["rounds", "", "zero"], ["y"], body=body)
    zero = helper.make_tensor("zero", TensorProto.FLOAT, [], [0.0])
    save("loop", [node], [info("rounds", TensorProto.INT64, [])], [info("y", TensorProto.FLOAT, [])], [zero])


def broken():
    """Writes files that are not valid graphs."""
    weights = helper.make_tensor("w", TensorProto.FLOAT, [64], [float(i) for i in range(64)])
    node = helper.make_node("Add", ["x", "w"], ["y"])
    whole = save(
        "truncated", [node], [info("x", TensorProto.FLOAT, [64])], [info("y", TensorProto.FLOAT, [64])], [weights]
    )
    (OUT / "truncated.onnx").write_bytes(whole[: len(whole) // 2])
    (OUT / "garbage.onnx").write_bytes(bytes((i * 37 + 11) % 256 for i in range(200)))
    (OUT / "page.onnx").write_text("<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>\n")
    pointer = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 1234\n"
    (OUT / "pointer.onnx").write_text(pointer)
    (OUT / "empty.onnx").write_bytes(b"")


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    identities()
    scalar()
    unet()
    endless()
    broken()


if __name__ == "__main__":
    main()
