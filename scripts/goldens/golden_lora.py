#!/usr/bin/env python3
"""Makes tests/golden/lora: small LoRA files in every naming, and what diffusers draws with them.

Run from the root of the repository, after scripts/fixtures/make_fixtures.py, with the packages of scripts/goldens/golden_pipelines.py
and peft:

    python scripts/goldens/golden_lora.py [CASE...]

`files/` holds the LoRAs, random ones for the tiny models, and two graphs for tests of their own. Each case is a folder
with pipeline.toml, case.json (the tolerance) and latents.npy: the final latents of the PyTorch pipeline in float32 after
`load_lora_weights` and `set_adapters`. What the LoRAs change is large, so that one left out shows in the first digit.
"""

import contextlib
import copy
import json
import os
import sys

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

import pathlib
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

from golden_case import folders, stable_diffusion, toml, write, write_toml
from golden_pipelines import InHalf
from make_fixtures import models

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "tests", "golden", "lora")

ATTENTIONS = ("down_blocks.1.attentions.0", "up_blocks.0.attentions.1")
CONVOLUTIONS = (
    "conv_in",
    "conv_out",
    "down_blocks.0.resnets.0.conv1",
    "down_blocks.0.resnets.0.time_emb_proj",
    "down_blocks.0.downsamplers.0.conv",
    "down_blocks.1.resnets.0.conv_shortcut",
    "mid_block.attentions.0.proj_in",
    "mid_block.resnets.1.conv2",
    "up_blocks.0.upsamplers.0.conv",
    "time_embedding.linear_1",
)


def layers(model, within):
    """The linear layers and convolutions of a model within some of its modules, by their names."""
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    inside = lambda n: any(n == w or n.startswith(w + ".") for w in within)
    found = {n: m for n, m in model.named_modules() if isinstance(m, kinds) and inside(n)}
    assert found, within
    return found


def factors(layer, rank, rng, size):
    """Random matrices of a layer's change, (down, up)."""
    normal = lambda *shape: torch.from_numpy(rng.standard_normal(shape).astype(np.float32)) * size
    if isinstance(layer, torch.nn.Conv2d):
        down = normal(rank, layer.in_channels, *layer.kernel_size)
        return down / np.prod(layer.kernel_size) ** 0.5, normal(layer.out_channels, rank, 1, 1)
    return normal(rank, layer.in_features), normal(layer.out_features, rank)


def sgm_name(name):
    """The name that Stability AI's code has for a module of the tiny UNet of sd1: one layer a block, two blocks."""
    stems = {
        "conv_in": "input_blocks.0.0",
        "conv_out": "out.2",
        "time_embedding.linear_1": "time_embed.0",
        "down_blocks.0.resnets.0": "input_blocks.1.0",
        "down_blocks.0.downsamplers.0.conv": "input_blocks.2.0.op",
        "down_blocks.1.resnets.0": "input_blocks.3.0",
        "down_blocks.1.attentions.0": "input_blocks.3.1",
        "mid_block.resnets.1": "middle_block.2",
        "mid_block.attentions.0": "middle_block.1",
        "up_blocks.0.attentions.1": "output_blocks.1.1",
        "up_blocks.0.upsamplers.0.conv": "output_blocks.1.2.conv",
    }
    inner = {
        ".conv1": ".in_layers.2",
        ".conv2": ".out_layers.3",
        ".time_emb_proj": ".emb_layers.1",
        ".conv_shortcut": ".skip_connection",
    }
    stem = next(s for s in stems if name == s or name.startswith(s + "."))
    rest = name[len(stem) :]
    return stems[stem] + inner.get(rest, rest)


def make_file(
    parts,
    naming,
    unet=(),
    text=(),
    text_2=(),
    rank=2,
    seed=0,
    size=0.3,
    alphas=True,
    dtype=torch.float32,
    header=None,
    alpha=None,
    strays=(),
):
    """Makes a LoRA in one naming. `rank` may be a function of a module's place in the file, `alpha` is one of a type of
    its own for all modules, and `strays` are the names of matrices of modules that the model does not have."""
    encoder = "lora_te1_" if "text_encoder_2" in parts else "lora_te_"
    flat_parts = {"unet": "lora_unet_", "text_encoder": encoder, "text_encoder_2": "lora_te2_"}
    rng = np.random.default_rng(seed)
    tensors = {}
    for part, within in (("unet", unet), ("text_encoder", text), ("text_encoder_2", text_2)):
        if not within:
            continue
        for i, (name, layer) in enumerate(layers(parts[part], within).items()):
            down, up = factors(layer, rank(i) if callable(rank) else rank, rng, size)
            ends = {"down": ".lora_down.weight", "up": ".lora_up.weight"}
            if naming in ("kohya", "sgm"):
                flat = sgm_name(name) if naming == "sgm" and part == "unet" else name
                stem = flat_parts[part] + flat.replace(".", "_")
                if alphas:
                    # diffusers 0.39 passes over an alpha of an attention or text layer that is not the commonest.
                    differs = part == "unet" and ".attn" not in name
                    tensors[f"{stem}.alpha"] = torch.tensor(float(1 + i % 3) if differs else 1.5)
            elif naming == "peft":
                stem, ends = f"{part}.{name}", {"down": ".lora_A.weight", "up": ".lora_B.weight"}
            else:
                stem, ends = f"{part}.{name}", {"down": ".lora.down.weight", "up": ".lora.up.weight"}
                if part == "text_encoder":
                    ends = {"down": ".lora_linear_layer.down.weight", "up": ".lora_linear_layer.up.weight"}
                elif ".attn" in name:
                    attention, projection = name.replace(".to_out.0", ".to_out").rsplit(".", 1)
                    stem = f"{part}.{attention}.processor.{projection}"
                    ends = {"down": "_lora.down.weight", "up": "_lora.up.weight"}
            tensors[stem + ends["down"]], tensors[stem + ends["up"]] = down, up
    tensors = {n: t.to(dtype).contiguous() for n, t in tensors.items()}
    if alpha is not None:
        tensors |= {n: alpha.clone() for n in tensors if n.endswith(".alpha")}
    for name in strays:
        shape = [3, 16] if name.endswith((".lora_down.weight", ".lora_A.weight")) else [16, 3]
        tensors[name] = torch.zeros([] if name.endswith(".alpha") else shape)
    return tensors, header


TEXT = ("text_model.encoder.layers.0.self_attn", "text_model.encoder.layers.1.mlp")
FILES = {
    "kohya": ("sd1", dict(naming="kohya", unet=ATTENTIONS, seed=1)),
    "kohya-conv": ("sd1", dict(naming="kohya", unet=CONVOLUTIONS, rank=3, seed=2)),
    "kohya-text": ("sd1", dict(naming="kohya", text=TEXT, seed=3, size=0.6)),
    "kohya-half": (
        "sd1",
        dict(naming="kohya", unet=("mid_block.attentions.0",), text=TEXT[:1], seed=4, dtype=torch.float16),
    ),
    "kohya-sgm": ("sd1", dict(naming="sgm", unet=CONVOLUTIONS + ATTENTIONS[:1], rank=1, seed=5)),
    "peft": ("sd1", dict(naming="peft", unet=("mid_block.attentions.0",) + CONVOLUTIONS[:3], text=TEXT, rank=4, seed=6)),
    "peft-ranks": ("sd1", dict(naming="peft", unet=ATTENTIONS[:1], rank=lambda i: 1 + i % 3, seed=7)),
    "peft-settings": (
        "sd1",
        dict(
            naming="peft",
            unet=("mid_block.attentions.0",),
            seed=8,
            header={
                "r": 2,
                "lora_alpha": 3,
                "rank_pattern": {},
                "alpha_pattern": {"mid_block.attentions.0.proj_in": 1},
                "target_modules": ["proj_in", "proj_out", "to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"],
            },
        ),
    ),
    "diffusers-old": ("sd1", dict(naming="old", unet=("mid_block.attentions.0.transformer_blocks.0.attn1",), text=TEXT[:1], seed=9)),
    "diffusers": ("sd1", dict(naming="old", unet=("mid_block.attentions.0.transformer_blocks.0.ff", "conv_in"), seed=10)),
    "sd2v": ("sd2v", dict(naming="kohya", unet=ATTENTIONS[:1], text=TEXT[:1], seed=11)),
    "one-level": ("unet-half", dict(naming="kohya", unet=("down_blocks.0.attentions.0",), seed=12, dtype=torch.bfloat16)),
}


STRAY = "lora_unet_down_blocks_7_attentions_0_transformer_blocks_0_attn1_to_q"
FILES |= {
    "int-alphas": (
        "sd1", dict(naming="kohya", unet=CONVOLUTIONS[:4] + ATTENTIONS[:1], text=TEXT[:1], rank=3, seed=13, alpha=torch.tensor(2))
    ),
    "double": (
        "sd1",
        dict(
            naming="kohya",
            unet=CONVOLUTIONS[:3] + ATTENTIONS[:1],
            seed=14,
            dtype=torch.float64,
            alpha=torch.tensor(1.3, dtype=torch.float64),
        ),
    ),
    "brain": (
        "sd1",
        dict(naming="kohya", unet=ATTENTIONS[1:], seed=15, dtype=torch.bfloat16, alpha=torch.tensor([1], dtype=torch.int32)),
    ),
    "strays-kohya": (
        "sd1",
        dict(
            naming="kohya",
            unet=ATTENTIONS[:1],
            text=TEXT[:1],
            seed=16,
            strays=(f"{STRAY}.lora_down.weight", f"{STRAY}.lora_up.weight", f"{STRAY}.alpha"),
        ),
    ),
    "strays-peft": (
        "sd1",
        dict(
            naming="peft",
            unet=ATTENTIONS[:1],
            text=TEXT[:1],
            seed=17,
            rank=4,
            strays=tuple(
                f"{part}.lora_{ab}.weight"
                for part in ("unet.mid_block.attentions.9.proj_in", "text_encoder.text_model.encoder.layers.9.mlp.fc1",
                             "text_encoder_2.text_model.encoder.layers.0.mlp.fc1")
                for ab in "AB"
            ),
        ),
    ),
}


def case(*loras, model="sd1", variant=None, rel=1e-5):
    """One case. A LoRA is (file, keys of its table)."""
    return {"model": model, "variant": variant, "loras": loras, "rel": rel}


CASES = {
    "kohya": case(("kohya", {})),
    "kohya-conv": case(("kohya-conv", {"scale": 0.9})),
    "kohya-text": case(("kohya-text", {})),
    "kohya-half": case(("kohya-half", {"scale": 1.3})),
    "kohya-sgm": case(("kohya-sgm", {})),
    "peft": case(("peft", {"scale": 0.8})),
    "peft-parts": case(("peft", {"unet_scale": 0.4, "text_encoder_scale": 1.5})),
    "peft-ranks": case(("peft-ranks", {})),
    "peft-settings": case(("peft-settings", {})),
    "diffusers-old": case(("diffusers-old", {})),
    "diffusers": case(("diffusers", {})),
    "several": case(("kohya", {"scale": 0.7}), ("peft", {"scale": -0.4}), ("kohya-conv", {"scale": 0.5}), ("kohya-half", {})),
    "one-of-two": case(("kohya", {"scale": 0.0}), ("kohya-conv", {"scale": 0.6})),
    "legacy": case(("kohya-conv", {"scale": 0.5}), ("kohya-half", {}), model="sd1-legacy"),
    "sd2v": case(("sd2v", {}), model="sd2v"),
    "int-alphas": case(("int-alphas", {"scale": 0.8})),
    "double": case(("double", {})),
    "brain": case(("brain", {"scale": 0.7})),
    "strays-kohya": case(("strays-kohya", {})),
    "strays-peft": case(("strays-peft", {})),
    "half": case(("one-level", {"scale": 0.8}), variant="unet-half", rel=1e-2),
    "int64-timestep": case(("one-level", {"scale": 0.8}), variant="unet-int64-timestep"),
}

PROMPT = "a red circle above a blue square"
RUN = {"steps": 3, "seed": 7, "width": 64, "height": 64}
SCHEDULER = ("ddim", {"clip_sample": False})


def pipeline_toml(spec):
    tables = [("[model]", {"path": f"../../../fixtures/models/{spec['model']}"})]
    if spec["variant"]:
        tables.append(("[model.unet]", {"graph": f"../../../fixtures/models/variants/{spec['variant']}.onnx"}))
    tables += [("[task.text-to-image]", {"prompt": PROMPT}), (f"[scheduler.{SCHEDULER[0]}]", SCHEDULER[1])]
    tables += [("[[lora]]", {"path": f"../files/{name}.safetensors"} | keys) for name, keys in spec["loras"]]
    return toml([*tables, ("[run]", RUN)])


def draw(spec, parts):
    """The final latents of one case."""
    parts = copy.deepcopy(parts)
    pipe = stable_diffusion(parts, spec["model"], SCHEDULER)
    names, scales = [], []
    for i, (name, keys) in enumerate(spec["loras"]):
        path = f"{ROOT}/files/{name}.safetensors"
        if "sgm" in name:
            # The pipeline for Stable Diffusion XL hands the UNet's configuration over like this.
            state, alphas = pipe.lora_state_dict(path, unet_config=pipe.unet.config)
            pipe.load_lora_into_unet(state, network_alphas=alphas, unet=pipe.unet, adapter_name=f"lora{i}", _pipeline=pipe)
        else:
            pipe.load_lora_weights(path, adapter_name=f"lora{i}")
        names.append(f"lora{i}")
        parted = {p: keys[f"{p}_scale"] for p in ("unet", "text_encoder") if f"{p}_scale" in keys}
        scales.append(parted or keys.get("scale", 1.0))
    if names:
        pipe.set_adapters(names, scales)
    if pipe.unet.dtype != torch.float32:
        pipe.unet = InHalf(pipe.unet)
    return pipe(
        prompt=PROMPT,
        num_inference_steps=RUN["steps"],
        width=RUN["width"],
        height=RUN["height"],
        generator=torch.Generator("cpu").manual_seed(RUN["seed"]),
        output_type="latent",
    ).images.numpy()


def fused_unet(path):
    """A UNet whose attention packs the weights of several modules into one, as optimised exports have it."""
    shape, tokens = ["batch_size", 4, "height", "width"], ["batch_size", "sequence_length", 16]
    value = lambda n, s: helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["encoder_hidden_states", "qkv"], ["packed"], name="/attn1/to_qkv/MatMul"),
            helper.make_node("MultiHeadAttention", ["packed"], ["attended"], domain="com.microsoft", num_heads=4),
            helper.make_node("Identity", ["sample"], ["out_sample"]),
        ],
        "main",
        [value("sample", shape), value("timestep", []), value("encoder_hidden_states", tokens)],
        [value("out_sample", shape)],
        [helper.make_tensor("qkv", TensorProto.FLOAT, [16, 48], np.zeros(16 * 48, np.float32).tobytes(), raw=True)],
    )
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def mixed(path):
    """Two linear layers and a convolution, y = conv(x · a · b): the weight of b lies in a file beside the graph."""
    ones = lambda n, *shape: numpy_helper.from_array(np.ones(shape, np.float32), n)
    value = lambda n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8, 2, 2])
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "onnx::MatMul_1"], ["ax"], name="/a/MatMul"),
            helper.make_node("MatMul", ["ax", "onnx::MatMul_2"], ["bx"], name="/b/MatMul"),
            helper.make_node("Conv", ["bx", "conv.weight"], ["y"], name="/conv/Conv"),
        ],
        "main",
        [value("x")],
        [value("y")],
        [ones("onnx::MatMul_1", 2, 2), ones("onnx::MatMul_2", 2, 2), ones("conv.weight", 8, 8, 1, 1)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    weight = graph.initializer[1]
    with contextlib.suppress(FileNotFoundError):
        os.remove(path + ".data")
    onnx.external_data_helper.set_external_data(model.graph.initializer[1], os.path.basename(path) + ".data", 0, 16)
    onnx.save(model, path)
    assert os.path.getsize(path + ".data") == len(weight.raw_data)


def write_file(parts, name, keys):
    tensors, settings = make_file(parts, **keys)
    header = {"lora_adapter_metadata": json.dumps({f"unet.{k}": v for k, v in settings.items()})} if settings else None
    save_file(tensors, f"{ROOT}/files/{name}.safetensors", metadata=header)


def main(only):
    made = models()
    os.makedirs(f"{ROOT}/files", exist_ok=True)
    for name, (model, keys) in FILES.items():
        write_file(made[model], name, keys)
    fused_unet(f"{ROOT}/files/fused.onnx")
    mixed(f"{ROOT}/files/mixed.onnx")
    plain = {}
    for name, spec, folder in folders(ROOT, CASES, only):
        write_toml(folder, pipeline_toml(spec))
        which = spec["variant"] or spec["model"]
        latents = draw(spec, made[which])
        if which not in plain:
            plain[which] = draw(spec | {"loras": ()}, made[which])
        write(folder, latents, rel=spec["rel"])
        changed = np.abs(latents - plain[which]).max() / np.abs(latents).max()
        print(f"{name:16} latents up to {np.abs(latents).max():.2f}, changed by {changed:.0%} of that", flush=True)


if __name__ == "__main__":
    main(set(sys.argv[1:]))
