#!/usr/bin/env python3
"""Finds the convolutions that ONNX Runtime's WebGPU provider computes wrongly (docs/known-issues.md).

usage: webgpu_conv.py [--plugin | --node FOLDER] [--channels N]

Each case is a graph of one node with random weights, run by WebGPU and by the CPU. It prints the wrong cases and those
of a grid of input and output channels, and exits with 1 if any is wrong. Needs numpy, onnx 1.19 and one of

  pip install onnxruntime-webgpu==1.27.0
  pip install onnxruntime==1.27.0 onnxruntime-ep-webgpu==0.4.0     with --plugin
  npm install --ignore-scripts onnxruntime-node@1.30.0             with --node FOLDER, where it was run, and onnxruntime

Without a GPU, SwiftShader of Debian's package chromium-common does: unpack it, and set VK_ICD_FILENAMES to its
vk_swiftshader_icd.json and LD_LIBRARY_PATH to its folder, which has libvulkan.so.1 too. The plugin then also needs
ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1.
"""
import argparse, json, os, subprocess, sys, tempfile

import numpy as np
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

parser = argparse.ArgumentParser()
parser.add_argument("--plugin", action="store_true")
parser.add_argument("--node", metavar="FOLDER")
parser.add_argument("--channels", type=int, default=33, help="input channels of the grid: 1 to this number")
args = parser.parse_args()
onnxruntime.set_default_logger_severity(4)

# Runs each of the graphs in a folder, whose inputs are in raw files, and prints outputs in base64.
NODE = """
const ort = require(process.argv[1] + '/node_modules/onnxruntime-node'), fs = require('fs');
(async () => {
  const lines = [];
  for (const { model, input, shape } of JSON.parse(fs.readFileSync(process.argv[2]))) {
    let line = '';
    try {
      const session = await ort.InferenceSession.create(model, { executionProviders: ['webgpu'], logSeverityLevel: 4 });
      const raw = fs.readFileSync(input);
      const values = new Float32Array(raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.length));
      const { y } = await session.run({ x: new ort.Tensor('float32', values, shape) });
      line = Buffer.from((await y.getData()).buffer).toString('base64');
      await session.release();
    } catch (error) { line = 'error ' + String(error).replace(/\\n/g, ' '); }
    lines.push(line);
  }
  process.stdout.write(lines.join('\\n') + '\\n', () => process.exit(0));
})();
"""


class Case:
    def __init__(self, name, channels_in, channels_out, window=(3, 3), side=8, batch=1, group=1, transposed=False, **attributes):
        rng = np.random.default_rng(0)
        self.name, self.channels = name, (channels_in, channels_out)
        axes = len(window)
        shape = (channels_out, channels_in // group) if not transposed else (channels_in, channels_out)
        weights = rng.standard_normal(shape + tuple(window)).astype(np.float32)
        self.x = rng.standard_normal((batch, channels_in) + (side,) * axes).astype(np.float32)
        if "auto_pad" not in attributes:
            attributes.setdefault("pads", [(n - 1) // 2 for n in window] * 2)
        node = helper.make_node("ConvTranspose" if transposed else "Conv", ["x", "w"], ["y"], kernel_shape=list(window), group=group, **attributes)
        graph = helper.make_graph(
            [node],
            "graph",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, self.x.shape)],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
            [numpy_helper.from_array(weights, "w")],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        self.model = model.SerializeToString()

    def on_cpu(self):
        return onnxruntime.InferenceSession(self.model, providers=["CPUExecutionProvider"]).run(None, {"x": self.x})[0]


def cases():
    for channels_out in (3, 4, 6, 8, 32):
        for channels_in in range(1, args.channels + 1):
            yield Case(None, channels_in, channels_out)
    for channels_in in (8, 9):
        of = lambda text: f"{channels_in} to 8 channels, {text}"
        for window in ((1,), (3,), (1, 1), (2, 2), (1, 3), (3, 1), (5, 5), (7, 7), (3, 3, 3)):
            yield Case(of(f"window {window}"), channels_in, 8, window)
        yield Case(of("window (1, 1), stride 2"), channels_in, 8, (1, 1), strides=[2, 2])
        yield Case(of("window (1, 1), padded"), channels_in, 8, (1, 1), pads=[1] * 4)
        yield Case(of("stride 2"), channels_in, 8, strides=[2, 2])
        yield Case(of("dilation 2"), channels_in, 8, dilations=[2, 2], pads=[2] * 4)
        yield Case(of("no padding"), channels_in, 8, pads=[0] * 4)
        yield Case(of("auto_pad SAME_UPPER"), channels_in, 8, auto_pad="SAME_UPPER")
        yield Case(of("batch 3"), channels_in, 8, batch=3)
        yield Case(of("the whole image is one window"), channels_in, 8, (8, 8), pads=[0] * 4)
        yield Case(of("transposed, stride 2"), channels_in, 8, transposed=True, strides=[2, 2])
        for side in (1, 5, 33):
            yield Case(of(f"image of {side} × {side}"), channels_in, 8, side=side)
    yield Case("18 to 8 channels, two groups", 18, 8, group=2)
    yield Case("9 to 12 channels, three groups", 9, 12, group=3)


def by_python(cases):
    if args.plugin:
        import onnxruntime_ep_webgpu

        onnxruntime.register_execution_provider_library("webgpu", onnxruntime_ep_webgpu.get_library_path())
        devices = [d for d in onnxruntime.get_ep_devices() if d.ep_name == onnxruntime_ep_webgpu.get_ep_name()]
        if not devices:
            sys.exit("the plugin offers no device (ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER=1 allows software)")
    elif "WebGpuExecutionProvider" not in onnxruntime.get_available_providers():
        sys.exit("this onnxruntime has no WebGPU provider")
    for case in cases:
        options = onnxruntime.SessionOptions()
        if args.plugin:
            options.add_provider_for_devices(devices[:1], {})
            session = onnxruntime.InferenceSession(case.model, options)
        else:
            session = onnxruntime.InferenceSession(case.model, options, providers=["WebGpuExecutionProvider"])
        yield session.run(None, {"x": case.x})[0].ravel()


def by_node(cases):
    import base64

    with tempfile.TemporaryDirectory() as folder:
        listed = []
        for number, case in enumerate(cases):
            model, values = f"{folder}/{number}.onnx", f"{folder}/{number}.raw"
            open(model, "wb").write(case.model)
            case.x.tofile(values)
            listed.append({"model": model, "input": values, "shape": case.x.shape})
        json.dump(listed, open(f"{folder}/cases.json", "w"))
        command = ["node", "-e", NODE, os.path.abspath(args.node), f"{folder}/cases.json"]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    for line in lines:
        if line.startswith("error"):
            sys.exit(line)
        yield np.frombuffer(base64.b64decode(line), dtype=np.float32)


all_cases = list(cases())
grid, wrong = {}, 0
for case, got in zip(all_cases, (by_node if args.node else by_python)(all_cases), strict=True):
    want = case.on_cpu().ravel()
    far = float(np.abs(got - want).max() / np.abs(want).max())
    is_wrong = not far <= 1e-4
    wrong += is_wrong
    if case.name is None:
        grid.setdefault(case.channels[1], []).extend([case.channels[0]] if is_wrong else [])
    else:
        print(f"{'WRONG' if is_wrong else 'right'}  {case.name}: {far:.0e} of the largest value")
for channels_out, channels_in in grid.items():
    print(f"3×3 to {channels_out} channels: wrong from {', '.join(map(str, channels_in)) or 'none'}")
print(f"{wrong} of {len(all_cases)} wrong")
sys.exit(wrong > 0)
