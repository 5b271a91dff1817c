"""One evaluation of denoisers of full width, by ldm-ort, ONNX Runtime and OpenVINO: SDXL at 1024×1024, and blocks of FLUX.1.

    python scripts/bench/denoisers.py FOLDER                    # 8 GB, some minutes, 16 GB of memory
    python scripts/bench/denoisers.py FOLDER --model flux --rounds 3

Random weights of a fixed seed, exported as Optimum exports them (TorchScript exporter, axes free, float32). So that the
export fits 16 GB, SDXL has two transformer layers where the original has ten, and FLUX.1 one double and two single blocks:
all shapes are the original's. Engines take turns, each run of each a new process; the ratios are of the fastest runs.
Needs torch, diffusers, onnx, onnxruntime and openvino; cargo builds ldm-ort's part.
"""

import argparse
import json
import os
import subprocess
import sys

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
AXES = {
    "sdxl": {"batch_size": 2, "height": 128, "width": 128, "sequence_length": 77},
    "flux": {"batch_size": 1, "packed_height_width": 4096, "sequence_length": 512, "step": 1},
}
SHAPES = {
    "sdxl": {"sample": [2, 4, 128, 128], "timestep": [1], "encoder_hidden_states": [2, 77, 2048], "text_embeds": [2, 1280], "time_ids": [2, 6]},
    "flux": {"hidden_states": [1, 4096, 64], "encoder_hidden_states": [1, 512, 4096], "pooled_projections": [1, 768], "timestep": [1], "img_ids": [4096, 3], "txt_ids": [512, 3]},
}


def module(name):
    import torch
    from diffusers import FluxTransformer2DModel, UNet2DConditionModel

    torch.manual_seed(4)
    if name == "flux":
        # The exporter has no operator for it.
        torch.nn.RMSNorm.forward = lambda self, x: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + (self.eps or 1e-6)) * self.weight
        return FluxTransformer2DModel(num_layers=1, num_single_layers=2, guidance_embeds=False), list(SHAPES[name])
    unet = UNet2DConditionModel(
        block_out_channels=(320, 640, 1280),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2, 2),
        attention_head_dim=(5, 10, 20),
        cross_attention_dim=2048,
        addition_embed_type="text_time",
        addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
        use_linear_projection=True,
        sample_size=128,
    )

    class Flat(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.unet = unet

        def forward(self, sample, timestep, encoder_hidden_states, text_embeds, time_ids):
            added = {"text_embeds": text_embeds, "time_ids": time_ids}
            return self.unet(sample, timestep, encoder_hidden_states, added_cond_kwargs=added, return_dict=False)

    return Flat(), list(SHAPES[name])


def export(name, folder):
    """Writes the graph and its inputs."""
    import torch

    small = {"sdxl": {128: 16}, "flux": {}}[name]  # FLUX.1 is exported for one number of tokens: rotary embeddings hold it
    made, names = module(name)
    made.eval()
    shapes = SHAPES[name]

    def example(key):
        shape = [small.get(n, n) if at in free(name, key) else n for at, n in enumerate(shapes[key])]
        return torch.zeros(shape) if "ids" in key else torch.randn(shape) * 0.5 + 0.5

    examples = tuple(example(key) for key in names)
    axes = {key: free(name, key) for key in names}
    if name == "flux":
        examples = {key: value for key, value in zip(names, examples)}
    os.makedirs(folder, exist_ok=True)
    with torch.no_grad():
        torch.onnx.export(made, (examples,) if name == "flux" else examples, os.path.join(folder, "model.onnx"), input_names=names, output_names=["out"], dynamic_axes=axes, opset_version=18, dynamo=False)
    numbers = np.random.default_rng(5)
    for key in names:
        value = numbers.standard_normal(shapes[key]).astype(np.float32)
        if key == "time_ids":
            value = np.tile(np.array([1024, 1024, 0, 0, 1024, 1024], np.float32), (2, 1))
        if key == "timestep":
            value = np.array([0.5 if name == "flux" else 500], np.float32)
        if key == "txt_ids":
            value = np.zeros_like(value)
        if key == "img_ids":
            value = np.array([[0, y, x] for y in range(64) for x in range(64)], np.float32)
        np.save(os.path.join(folder, key + ".npy"), value)
    open(os.path.join(folder, "complete"), "w").close()


def free(name, key):
    """The free axes of an input, by place."""
    if name == "sdxl":
        return {"sample": {0: "batch_size", 2: "height", 3: "width"}, "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"}, "text_embeds": {0: "batch_size"}, "time_ids": {0: "batch_size"}}.get(key, {})
    return {"hidden_states": {0: "batch_size", 1: "packed_height_width"}, "encoder_hidden_states": {0: "batch_size", 1: "sequence_length"}, "pooled_projections": {0: "batch_size"}, "img_ids": {0: "packed_height_width"}, "txt_ids": {0: "sequence_length"}}.get(key, {})


def peer(name, folder, engine, runs):
    """Runs a peer in this process; prints what benches/graph.rs prints."""
    import time

    inputs = {key: np.load(os.path.join(folder, key + ".npy")) for key in SHAPES[name]}
    path, start = os.path.join(folder, "model.onnx"), time.perf_counter()
    if engine == "ort":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        known = {i.name for i in session.get_inputs()}
        inputs = {key: value for key, value in inputs.items() if key in known}
        run = lambda: session.run(None, inputs)[0]
    else:
        import openvino

        core = openvino.Core()
        model = core.read_model(path)
        inputs = {key: value for key, value in inputs.items() if any(key in i.get_names() for i in model.inputs)}
        model.reshape({key: list(value.shape) for key, value in inputs.items()})
        hint = {"INFERENCE_PRECISION_HINT": "f32"} if engine == "openvino-float32" else {}
        compiled = core.compile_model(model, "CPU", {"PERFORMANCE_HINT": "LATENCY", **hint})
        run = lambda: compiled(inputs)[0]
    opened, seconds = time.perf_counter() - start, []
    for _ in range(runs):
        start = time.perf_counter()
        out = run()
        seconds.append(round(time.perf_counter() - start, 3))
    np.save(os.path.join(folder, engine + ".npy"), out)
    print(json.dumps({"precision": engine, "open": round(opened, 3), "seconds": seconds}))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("folder")
    p.add_argument("--model", choices=AXES, action="append")
    p.add_argument("--rounds", type=int, default=2)
    p.add_argument("--runs", type=int, default=3)
    p.add_argument("--engines", default="float32,bf16,int8,onnxruntime,ort,openvino,openvino-float32")
    p.add_argument("--only", help=argparse.SUPPRESS)
    args = p.parse_args()
    for name in args.model or AXES:
        folder = os.path.join(args.folder, name)
        if args.only == "export":
            return export(name, folder)
        if args.only:
            return peer(name, folder, args.only, args.runs)
        if not os.path.exists(os.path.join(folder, "complete")):
            subprocess.run([sys.executable, __file__, args.folder, "--model", name, "--only", "export"], check=True, stdout=sys.stderr)
        compare(name, folder, args)


def compare(name, folder, args):
    axes = [f"{axis}={length}" for axis, length in AXES[name].items()]
    told = {}
    for _ in range(args.rounds):
        for engine in args.engines.split(","):
            own = engine in ("float32", "bf16", "int8", "onnxruntime")
            ours = ["cargo", "bench", "-q", "--bench", "graph", "--", os.path.abspath(folder), engine, str(args.runs), *axes]
            theirs = [sys.executable, os.path.abspath(__file__), args.folder, "--model", name, "--only", engine, "--runs", str(args.runs)]
            run = subprocess.run(ours if own else theirs, cwd=ROOT if own else None, capture_output=True, text=True)
            if run.returncode:
                sys.exit(f"{engine}: {run.stderr[-2000:]}")
            line = json.loads(run.stdout.strip().splitlines()[-1])
            print(json.dumps(line), file=sys.stderr, flush=True)
            told.setdefault(engine, []).append(line)
    reference = np.load(os.path.join(folder, "ort.npy" if "ort" in told else "float32.npy")).astype(np.float64)
    print(f"{name}: {' '.join(axes)}\n\n| engine | open s | evaluation s | of ONNX Runtime | relative L2 |\n|---|---|---|---|---|")
    best = {engine: min(s for line in lines for s in line["seconds"]) for engine, lines in told.items()}
    for engine, lines in told.items():
        out = np.load(os.path.join(folder, engine + ".npy")).astype(np.float64)
        apart = np.linalg.norm(out - reference) / np.linalg.norm(reference)
        ratio = best[engine] / best.get("ort", best["float32"])
        print(f"| {engine} | {min(line['open'] for line in lines):.2f} | {best[engine]:.2f} | {ratio:.2f} | {apart:.1e} |")


if __name__ == "__main__":
    main()
