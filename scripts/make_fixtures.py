#!/usr/bin/env python3
"""Makes the tiny models under tests/fixtures/models: real graphs of the real classes, with random weights.

Run from the root of the repository, with torch 2.8, diffusers 0.39, transformers 4.57 and onnx:

    python scripts/make_fixtures.py

Every weight comes from a fixed seed, so the folder is made anew as it was. scripts/golden_pipelines.py imports the
models from here and runs them in PyTorch.

    sd1         Optimum's layout: int64 ids, scalar float32 timestep, an encoder that answers with moments
    sd1-legacy  diffusers' old layout with the weights of sd1: int32 ids, [batch] timestep, weights.pb beside the UNet,
                an encoder that draws inside the graph, no config.json
    sd2v        v-prediction, padding with "!", a first stage that shrinks by 4 instead of 8
    pixel       a UNet over pixels and a scheduler, nothing else
    variants/   graphs that a pipeline names as `[model.unet] graph` or `[model.text_encoder] graph` to put in the place
                of those of sd1
"""

import json
import os
import shutil
import sys
import warnings

import onnx
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel, UNet2DModel
from onnx import TensorProto, helper
from transformers import CLIPTextConfig, CLIPTextModel

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "models")
OPSET = 17
CONTEXT = 16
MERGES = 120

# The text that the tokenizer's merges are learned from. Words that the tests use are in it, so that prompts have tokens of
# one and of several pieces.
CORPUS = """
a photograph of a red circle above a blue square on a white background, highly detailed, a painting of a small
yellow star to the left of a large green triangle, an astronaut riding a horse on the moon, portrait of an old
fisherman with a very long beard, the mountain in the evening light, a black cat under the table, blurry, low quality
"""


def bytes_to_unicode():
    """The printable stand-in of each byte, in the order in which CLIP's vocabulary begins."""
    keep = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    rest = [b for b in range(256) if b not in keep]
    return [chr(b) for b in keep] + [chr(256 + i) for i in range(len(rest))]


def learn_merges(count):
    """Learns byte-pair merges from the corpus: the commonest pair first, ties in alphabetical order."""
    words = {}
    for word in CORPUS.split():
        pieces = tuple(word[:-1]) + (word[-1] + "</w>",)
        words[pieces] = words.get(pieces, 0) + 1
    merges = []
    for _ in range(count):
        pairs = {}
        for pieces, n in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] = pairs.get(pair, 0) + n
        best = min(pairs, key=lambda p: (-pairs[p], p))
        merges.append(best)
        joined = {}
        for pieces, n in words.items():
            out, i = [], 0
            while i < len(pieces):
                if pieces[i : i + 2] == best:
                    out.append("".join(best))
                    i += 2
                else:
                    out.append(pieces[i])
                    i += 1
            joined[tuple(out)] = joined.get(tuple(out), 0) + n
        words = joined
    return merges


def write_tokenizer(folder, pad):
    """Writes CLIP's four tokenizer files; returns the size of the vocabulary."""
    os.makedirs(folder, exist_ok=True)
    alphabet = bytes_to_unicode()
    merges = learn_merges(MERGES)
    tokens = alphabet + [c + "</w>" for c in alphabet] + ["".join(m) for m in merges]
    tokens += ["<|startoftext|>", "<|endoftext|>"]
    assert len(set(tokens)) == len(tokens)
    with open(f"{folder}/vocab.json", "w", encoding="utf-8") as f:
        json.dump({t: i for i, t in enumerate(tokens)}, f, ensure_ascii=False, separators=(",", ":"))
    with open(f"{folder}/merges.txt", "w", encoding="utf-8") as f:
        f.write("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))

    def token(content):
        return {"content": content, "lstrip": False, "normalized": content != "!", "rstrip": False, "single_word": False}

    start, end = "<|startoftext|>", "<|endoftext|>"
    write_json(
        f"{folder}/special_tokens_map.json",
        {"bos_token": token(start), "eos_token": token(end), "pad_token": token(pad), "unk_token": token(end)},
    )
    write_json(
        f"{folder}/tokenizer_config.json",
        {
            "add_prefix_space": False,
            "bos_token": start,
            "do_lower_case": True,
            "eos_token": end,
            "errors": "replace",
            "model_max_length": CONTEXT,
            "pad_token": pad,
            "tokenizer_class": "CLIPTokenizer",
            "unk_token": end,
        },
    )
    return len(tokens)


VOCABULARY = 512 + MERGES + 2


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1, sort_keys=True)
        f.write("\n")


# ---- the models ----------------------------------------------------------------------------------------------------


def seeded(seed, make, loud=(), gain=1.0):
    """Makes a model from a seed. The weights of the layers named in `loud` are multiplied by `gain`, since untrained
    networks hardly listen to their inputs and a wrong prompt or timestep would not show."""
    torch.manual_seed(seed)
    model = make().eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if any(l in name for l in loud):
                p.mul_(gain)
    return model.requires_grad_(False)


def text_encoder(seed, layers=2, act="quick_gelu"):
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=layers,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        hidden_act=act,
        projection_dim=16,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
        attn_implementation="eager",
    )
    return seeded(seed, lambda: CLIPTextModel(config), loud=("embedding.weight",), gain=20.0)


def normed(model):
    """Gives a text encoder a last norm of its own: an untrained one multiplies by 1 and adds 0."""
    norm = model.text_model.final_layer_norm
    torch.manual_seed(52)
    norm.weight.copy_(1.0 + 0.5 * torch.randn(norm.weight.shape))
    norm.bias.copy_(0.5 * torch.randn(norm.bias.shape))
    return model


def unet(seed, levels=2, linear=False):
    down = ("DownBlock2D", "CrossAttnDownBlock2D")[-levels:]
    return seeded(
        seed,
        lambda: UNet2DConditionModel(
            sample_size=8,
            in_channels=4,
            out_channels=4,
            block_out_channels=(8, 16)[:levels],
            layers_per_block=1,
            down_block_types=down,
            up_block_types=tuple(b.replace("Down", "Up") for b in reversed(down)),
            norm_num_groups=4,
            cross_attention_dim=16,
            attention_head_dim=4,
            use_linear_projection=linear,
        ),
        loud=("attn2.to_v", "attn2.to_out.0.weight", "proj_out.weight", "time_emb_proj.weight"),
        gain=2.0,
    )


def first_stage(seed, blocks):
    channels = (8,) * blocks
    return seeded(
        seed,
        lambda: AutoencoderKL(
            block_out_channels=channels,
            down_block_types=("DownEncoderBlock2D",) * blocks,
            up_block_types=("UpDecoderBlock2D",) * blocks,
            layers_per_block=1,
            norm_num_groups=4,
            latent_channels=4,
            sample_size=64,
            scaling_factor=0.18215,
        ),
        loud=("decoder.conv_out.weight", "encoder.conv_out.weight"),
        gain=2.0,
    )


def pixel_unet(seed):
    return seeded(
        seed,
        lambda: UNet2DModel(
            sample_size=32,
            in_channels=3,
            out_channels=3,
            block_out_channels=(8, 8),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            attention_head_dim=4,
            norm_num_groups=4,
        ),
        loud=("time_emb_proj.weight",),
        gain=2.0,
    )


def models():
    """All models by name, each with its components."""
    sd1 = {"text_encoder": text_encoder(11), "unet": unet(12), "vae": first_stage(13, 4)}
    return {
        "sd1": sd1,
        "sd1-legacy": sd1,
        "sd2v": {
            "text_encoder": text_encoder(21, layers=1, act="gelu"),
            "unet": unet(22, linear=True),
            "vae": first_stage(23, 3),
        },
        "pixel": {"unet": pixel_unet(31)},
        "unet-fixed-batch": sd1 | {"unet": unet(41, levels=1)},
        "unet-int64-timestep": sd1 | {"unet": unet(41, levels=1)},
        "unet-half": sd1 | {"unet": unet(41, levels=1).half()},
        "text-encoder-hidden": sd1 | {"text_encoder": normed(text_encoder(51, layers=3))},
    }


SCHEDULERS = {
    "sd1": {
        "_class_name": "PNDMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "num_train_timesteps": 1000,
        "set_alpha_to_one": False,
        "skip_prk_steps": True,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "sd2v": {
        "_class_name": "DDIMScheduler",
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "beta_start": 0.00085,
        "clip_sample": False,
        "num_train_timesteps": 1000,
        "prediction_type": "v_prediction",
        "set_alpha_to_one": False,
        "steps_offset": 1,
        "trained_betas": None,
    },
    "pixel": {
        "_class_name": "DDPMScheduler",
        "beta_end": 0.02,
        "beta_schedule": "linear",
        "beta_start": 0.0001,
        "clip_sample": True,
        "num_train_timesteps": 1000,
        "variance_type": "fixed_small",
    },
}


# ---- the graphs ----------------------------------------------------------------------------------------------------


class Call(torch.nn.Module):
    """A module whose forward is a function, to export just what a graph is to do."""

    def __init__(self, model, forward):
        super().__init__()
        self.model, self.function = model, forward

    def forward(self, *inputs):
        return self.function(self.model, *inputs)


def export(path, model, forward, inputs, outputs, external=None, modules=False):
    """Exports `forward(model, *inputs)`. `inputs` maps a name to (example, names of its free axes); `outputs` maps a
    name to the names of its free axes. With `modules` the graph goes on telling which module a weight belongs to."""
    os.makedirs(os.path.dirname(path), exist_ok=True)
    axes = {n: dict(a) for n, (_, a) in inputs.items()} | {n: dict(a) for n, a in outputs.items()}
    scratch = path + ".scratch"
    torch.onnx.export(
        Call(model, forward),
        tuple(v for v, _ in inputs.values()),
        scratch,
        input_names=list(inputs),
        output_names=list(outputs),
        dynamic_axes={n: a for n, a in axes.items() if a},
        opset_version=OPSET,
        dynamo=False,
    )
    proto = shorten(onnx.load(scratch), modules)
    os.remove(scratch)
    if external:
        data = os.path.join(os.path.dirname(path), external)
        if os.path.exists(data):
            os.remove(data)
        onnx.save(
            proto,
            path,
            save_as_external_data=True,
            all_tensors_to_one_file=True,
            location=external,
            size_threshold=64,
        )
    else:
        onnx.save(proto, path)


def shorten(proto, modules=False):
    """Gives every inner tensor a short name and drops what only a reader needs: half of a tiny graph is names.

    With `modules` it keeps what LoRAs find their weights by: the name under which a weight is stored and, where the
    exporter stored it transposed under a name that tells nothing, the path of the MatMul that reads it."""
    graph = proto.graph
    kept = {v.name for v in (*graph.input, *graph.output)}
    stored = {i.name for i in graph.initializer}
    pathed = []
    if modules:
        kept |= {n.input[1] for n in graph.node if n.op_type in ("Conv", "Gemm") and n.input[1] in stored}
        pathed = [n for n in graph.node if n.op_type == "MatMul" and n.input[1] in stored]
    paths = [n.name for n in pathed]
    short = {}

    def name(old):
        if not old or old in kept:
            return old
        return short.setdefault(old, f"{len(short):x}")

    for initializer in graph.initializer:
        initializer.name = name(initializer.name)
    for node in graph.node:
        node.name = node.doc_string = ""
        node.input[:] = [name(n) for n in node.input]
        node.output[:] = [name(n) for n in node.output]
        assert not any(a.HasField("g") for a in node.attribute), "a subgraph would need its names changed as well"
    for node, path in zip(pathed, paths):
        node.name = path
    del graph.value_info[:]
    graph.name, graph.doc_string, proto.doc_string = "main", "", ""
    onnx.checker.check_model(proto)
    return proto


def export_text_encoder(folder, model, ids, batch="batch_size", sequence="sequence_length"):
    export(
        f"{folder}/text_encoder/model.onnx",
        model,
        lambda m, input_ids: tuple(m(input_ids=input_ids, return_dict=False)[:2]),
        {"input_ids": (torch.zeros(2, CONTEXT, dtype=ids), {0: batch, 1: sequence})},
        {"last_hidden_state": {0: batch, 1: sequence}, "pooler_output": {0: batch}},
        modules=True,
    )


def export_text_encoder_hidden(path, model):
    """Exports a text encoder with the states after each layer, as scripts/export.py does with --hidden-states."""
    axes = {0: "batch_size", 1: "sequence_length"}

    def forward(m, input_ids):
        out = m(input_ids=input_ids, output_hidden_states=True)
        return (out.last_hidden_state, out.pooler_output, *out.hidden_states)

    count = model.config.num_hidden_layers + 1
    export(
        path,
        model,
        forward,
        {"input_ids": (torch.zeros(2, CONTEXT, dtype=torch.int64), axes)},
        {"last_hidden_state": axes, "pooler_output": {0: "batch_size"}}
        | {f"hidden_states.{i}": axes for i in range(count)},
    )


def export_unet(path, model, timestep, batch="batch_size", dtype=torch.float32, external=None):
    """`timestep` is (example, free axes). With `batch` None the batch is fixed to 1."""
    n = 2 if batch else 1
    first = {0: batch} if batch else {}
    export(
        path,
        model,
        lambda m, x, t, c: m(x, t, c, return_dict=False)[0],
        {
            "sample": (torch.randn(n, 4, 8, 8).to(dtype), first | {2: "height", 3: "width"}),
            "timestep": timestep,
            "encoder_hidden_states": (torch.randn(n, CONTEXT, 16).to(dtype), first | {1: "sequence_length"}),
        },
        {"out_sample": first | {2: "height", 3: "width"}},
        external,
        modules=True,
    )


def export_first_stage(folder, model, drawn_inside=False):
    size = lambda a, b: {0: "batch_size", 2: a, 3: b}
    if drawn_inside:
        encode, answer = (lambda m, x: m.encode(x).latent_dist.sample()), "latent_sample"
    else:
        encode, answer = (lambda m, x: m.encode(x).latent_dist.parameters), "latent_parameters"
    export(
        f"{folder}/vae_encoder/model.onnx",
        model,
        encode,
        {"sample": (torch.randn(2, 3, 32, 32), size("sample_height", "sample_width"))},
        {answer: size("latent_height", "latent_width")},
    )
    export(
        f"{folder}/vae_decoder/model.onnx",
        model,
        lambda m, z: m.decode(z, return_dict=False)[0],
        {"latent_sample": (torch.randn(2, 4, 4, 4), size("latent_height", "latent_width"))},
        {"sample": size("sample_height", "sample_width")},
    )


def config_of(model):
    """A model's config.json as a dict, without what is null or tells of this machine."""
    config = model.config.to_diff_dict() if hasattr(model.config, "to_diff_dict") else json.loads(model.to_json_string())
    return {k: v for k, v in config.items() if v is not None and k != "_name_or_path"}


def write_configs(folder, parts):
    """Writes the config.json of every component, as Optimum leaves them."""
    for name in ("text_encoder", "unet", "vae_encoder", "vae_decoder"):
        model = parts["vae" if name.startswith("vae") else name]
        write_json(f"{folder}/{name}/config.json", config_of(model))


def write_index(folder, cls, components):
    index = {"_class_name": cls, "_diffusers_version": "0.39.0"}
    write_json(f"{folder}/model_index.json", index | components)


def nan_unet(path):
    """A UNet whose every answer is NaN: what half precision does to a model that is not made for it."""
    shape = ["batch_size", 4, "height", "width"]
    value = lambda n, s, t=TensorProto.FLOAT: helper.make_tensor_value_info(n, t, s)
    graph = helper.make_graph(
        [helper.make_node("Mul", ["sample", "nan"], ["out_sample"])],
        "main",
        [
            value("sample", shape),
            value("timestep", []),
            value("encoder_hidden_states", ["batch_size", "sequence_length", 16]),
        ],
        [value("out_sample", shape)],
        [helper.make_tensor("nan", TensorProto.FLOAT, [], [float("nan")])],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    onnx.save(proto, path)


def main():
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
    if os.path.isdir(ROOT):
        shutil.rmtree(ROOT)
    made = models()
    scalar = (torch.tensor(1.0), {})

    for name in ("sd1", "sd2v"):
        folder, parts = f"{ROOT}/{name}", made[name]
        size = write_tokenizer(f"{folder}/tokenizer", "!" if name == "sd2v" else "<|endoftext|>")
        assert size == VOCABULARY, size
        export_text_encoder(folder, parts["text_encoder"], torch.int64)
        export_unet(f"{folder}/unet/model.onnx", parts["unet"], scalar)
        export_first_stage(folder, parts["vae"])
        write_configs(folder, parts)
        write_json(f"{folder}/scheduler/scheduler_config.json", SCHEDULERS[name])
        write_index(
            folder,
            "StableDiffusionPipeline",
            {
                "scheduler": ["diffusers", SCHEDULERS[name]["_class_name"]],
                "text_encoder": ["transformers", "CLIPTextModel"],
                "tokenizer": ["transformers", "CLIPTokenizer"],
                "unet": ["diffusers", "UNet2DConditionModel"],
                "vae": ["diffusers", "AutoencoderKL"],
            },
        )

    folder, parts = f"{ROOT}/sd1-legacy", made["sd1-legacy"]
    write_tokenizer(f"{folder}/tokenizer", "<|endoftext|>")
    export_text_encoder(folder, parts["text_encoder"], torch.int32, "batch", "sequence")
    export_unet(f"{folder}/unet/model.onnx", parts["unet"], (torch.ones(2), {0: "batch"}), "batch", external="weights.pb")
    export_first_stage(folder, parts["vae"], drawn_inside=True)
    write_json(f"{folder}/scheduler/scheduler_config.json", SCHEDULERS["sd1"])
    onnx_model = ["diffusers", "OnnxRuntimeModel"]
    write_index(
        folder,
        "OnnxStableDiffusionPipeline",
        {
            "scheduler": ["diffusers", "PNDMScheduler"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "text_encoder": onnx_model,
            "unet": onnx_model,
            "vae_decoder": onnx_model,
            "vae_encoder": onnx_model,
        },
    )

    folder = f"{ROOT}/pixel"
    export(
        f"{folder}/unet/model.onnx",
        made["pixel"]["unet"],
        lambda m, x, t: m(x, t, return_dict=False)[0],
        {
            "sample": (torch.randn(2, 3, 32, 32), {0: "batch", 2: "height", 3: "width"}),
            "timestep": (torch.ones(1, dtype=torch.int64), {}),
        },
        {"out_sample": {0: "batch", 2: "height", 3: "width"}},
    )
    write_json(f"{folder}/unet/config.json", config_of(made["pixel"]["unet"]))
    write_json(f"{folder}/scheduler/scheduler_config.json", SCHEDULERS["pixel"])
    write_index(
        folder,
        "DDPMPipeline",
        {"scheduler": ["diffusers", "DDPMScheduler"], "unet": ["diffusers", "UNet2DModel"]},
    )

    variants = f"{ROOT}/variants"
    export_unet(f"{variants}/unet-fixed-batch.onnx", made["unet-fixed-batch"]["unet"], (torch.ones(1), {}), batch=None)
    export_unet(
        f"{variants}/unet-int64-timestep.onnx",
        made["unet-int64-timestep"]["unet"],
        (torch.ones(1, dtype=torch.int64), {0: "steps"}),
    )
    export_unet(
        f"{variants}/unet-half.onnx",
        made["unet-half"]["unet"],
        (torch.tensor(1.0, dtype=torch.float16), {}),
        dtype=torch.float16,
    )
    nan_unet(f"{variants}/unet-nan.onnx")
    export_text_encoder_hidden(f"{variants}/text-encoder-hidden.onnx", made["text-encoder-hidden"]["text_encoder"])

    total = 0
    for base, _, files in sorted(os.walk(ROOT)):
        for f in sorted(files):
            size = os.path.getsize(os.path.join(base, f))
            total += size
            if size > 20_000:
                print(f"{size:9,}  {os.path.relpath(os.path.join(base, f), ROOT)}")
    print(f"{total:9,}  in all")


if __name__ == "__main__":
    sys.exit(main())
