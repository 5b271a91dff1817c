"""Export a diffusers checkpoint to the ONNX layout that ldm-ort reads (Optimum's).

    python -m pip install -r scripts/requirements.txt
    python scripts/export.py CHECKPOINT OUT                    # float32 weights
    python scripts/export.py CHECKPOINT OUT --dtype half       # half the size

CHECKPOINT is a folder in the layout of StableDiffusionPipeline (SD 1.x, 2.x and
models of that form) or StableDiffusionXLPipeline: model_index.json, text_encoder,
tokenizer, unet, vae, scheduler, and for XL text_encoder_2 and tokenizer_2.
models/shapes was made with

    python scripts/export.py shapes-run/checkpoint models/shapes --dtype half

What is written to OUT, every batch, size and sequence axis free:

    text_encoder/model.onnx    input_ids (int64) -> last_hidden_state, pooler_output
                               (XL: and hidden_states.0 ... hidden_states.N)
    text_encoder_2/model.onnx  XL: input_ids -> text_embeds, last_hidden_state, hidden_states.i
    unet/model.onnx            sample, timestep ([batch], float), encoder_hidden_states
                               (XL: text_embeds, time_ids; LCM: timestep_cond) -> out_sample
    vae_encoder/model.onnx     sample -> latent_parameters (mean and log variance)
    vae_decoder/model.onnx     latent_sample -> sample

with each part's config.json, scheduler/, tokenizer/ and model_index.json copied.

--dtype half stores the weights as float16 and casts each one up in the graph;
inputs, outputs and arithmetic stay float32, so the CPU provider runs it (ONNX
Runtime folds the casts when it loads the model).  Weights that float16 cannot hold
stay float32.

Weights of more than --external-data-mb go to model.onnx_data beside model.onnx.
Each graph is then run with ONNX Runtime against PyTorch on random inputs, in two
sizes and two batches, and the largest difference is printed; --no-check skips
that, --tolerance sets what is too much.
"""

import argparse
import json
import os
import shutil
import sys
import tempfile
import warnings

warnings.filterwarnings("ignore")

try:
    import numpy as np
    import onnx
    import torch
    from onnx import TensorProto, helper, numpy_helper
except ImportError as e:
    sys.exit(f"{e}. Install what the scripts need: python -m pip install -r scripts/requirements.txt")


def fail(message):
    sys.exit("export.py: " + message)


# ---------------------------------------------------------------- one graph each


class TextEncoder(torch.nn.Module):
    def __init__(self, model, with_projection, hidden_states):
        super().__init__()
        self.model, self.with_projection, self.hidden_states = model, with_projection, hidden_states

    def forward(self, input_ids):
        out = self.model(input_ids, output_hidden_states=self.hidden_states, return_dict=True)
        if self.with_projection:
            result = [out.text_embeds, out.last_hidden_state]
        else:
            result = [out.last_hidden_state, out.pooler_output]
        if self.hidden_states:
            result += list(out.hidden_states)
        return tuple(result)


class Unet(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, sample, timestep, encoder_hidden_states, *more):
        more = dict(zip(self.names[3:], more))
        added = {k: more[k] for k in ("text_embeds", "time_ids") if k in more}
        return self.model(
            sample,
            timestep,
            encoder_hidden_states,
            timestep_cond=more.get("timestep_cond"),
            added_cond_kwargs=added or None,
            return_dict=False,
        )[0]


class VaeEncoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        h = self.vae.encoder(sample)
        return self.vae.quant_conv(h) if self.vae.quant_conv is not None else h


class VaeDecoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        z = latent_sample
        if self.vae.post_quant_conv is not None:
            z = self.vae.post_quant_conv(z)
        return self.vae.decoder(z)


class Part:
    """A graph to export: the module, its inputs by (batch, scale), its axes."""

    def __init__(self, name, module, inputs, outputs, make, axes, config):
        self.name, self.module, self.inputs, self.outputs = name, module.eval().requires_grad_(False), inputs, outputs
        self.make, self.axes, self.config = make, axes, config


def text_part(name, folder, with_projection, hidden_states):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    kind = CLIPTextModelWithProjection if with_projection else CLIPTextModel
    model = kind.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    config: CLIPTextConfig = model.config
    longest = config.max_position_embeddings

    def make(batch, scale):
        length = longest if scale == 1 else max(longest // 2, 4)
        ids = torch.randint(0, config.vocab_size - 2, (batch, length))
        for row in range(batch):  # an end of text at a different place in every row
            ids[row, length - 1 - row % 3] = config.eos_token_id
        return (ids,)

    n = config.num_hidden_layers + 1
    outputs = ["text_embeds", "last_hidden_state"] if with_projection else ["last_hidden_state", "pooler_output"]
    sequences = ["last_hidden_state"]
    if hidden_states:
        outputs += [f"hidden_states.{i}" for i in range(n)]
        sequences += outputs[2:]
    axes = {"input_ids": {0: "batch", 1: "sequence"}}
    for o in outputs:
        axes[o] = {0: "batch", 1: "sequence"} if o in sequences else {0: "batch"}
    return Part(name, TextEncoder(model, with_projection, hidden_states), ["input_ids"], outputs, make, axes, folder)


def unet_part(folder, text_length, pooled_width):
    from diffusers import UNet2DConditionModel

    unet = UNet2DConditionModel.from_pretrained(folder, torch_dtype=torch.float32)
    c = unet.config
    if c.class_embed_type is not None or c.num_class_embeds:
        fail(f"{folder}: a UNet with class embeddings is not supported")
    # "text" pools the caption that the UNet is given anyhow.
    if c.addition_embed_type not in (None, "text", "text_time"):
        fail(f"{folder}: addition_embed_type {c.addition_embed_type!r} is not supported, only text and SDXL's text_time")
    inputs = ["sample", "timestep", "encoder_hidden_states"]
    xl = c.addition_embed_type == "text_time"
    if xl:
        inputs += ["text_embeds", "time_ids"]
        per_id = c.addition_time_embed_dim
        ids = (c.projection_class_embeddings_input_dim - pooled_width) // per_id
    if c.time_cond_proj_dim is not None:
        inputs += ["timestep_cond"]
    steps = 2 ** (len(c.down_block_types) - 1)

    def make(batch, scale):
        h, w = (2 * steps, 4 * steps) if scale == 1 else (3 * steps, 2 * steps)
        length = text_length if scale == 1 else text_length * 2
        out = [
            torch.randn(batch, c.in_channels, h, w),
            torch.rand(batch) * 999,
            torch.randn(batch, length, c.cross_attention_dim),
        ]
        if xl:
            out += [torch.randn(batch, pooled_width), torch.rand(batch, ids) * 1024]
        if c.time_cond_proj_dim is not None:
            out += [torch.randn(batch, c.time_cond_proj_dim)]
        return tuple(out)

    size = {0: "batch", 2: "height", 3: "width"}
    axes = {
        "sample": size,
        "timestep": {0: "batch"},
        "encoder_hidden_states": {0: "batch", 1: "sequence"},
        "text_embeds": {0: "batch"},
        "time_ids": {0: "batch"},
        "timestep_cond": {0: "batch"},
        "out_sample": size,
    }
    axes = {k: v for k, v in axes.items() if k in inputs or k == "out_sample"}
    return Part("unet", Unet(unet, inputs), inputs, ["out_sample"], make, axes, folder)


def vae_parts(folder):
    from diffusers import AutoencoderKL

    vae = AutoencoderKL.from_pretrained(folder, torch_dtype=torch.float32)
    c = vae.config
    f = 2 ** (len(c.down_block_types) - 1)

    def picture(batch, scale):
        h, w = (8 * f, 6 * f) if scale == 1 else (4 * f, 10 * f)
        return (torch.rand(batch, c.in_channels, h, w) * 2 - 1,)

    def latent(batch, scale):
        h, w = (8, 6) if scale == 1 else (4, 10)
        return (torch.randn(batch, c.latent_channels, h, w),)

    size = {0: "batch", 2: "height", 3: "width"}
    small = {0: "batch", 2: "latent_height", 3: "latent_width"}
    return [
        Part("vae_encoder", VaeEncoder(vae), ["sample"], ["latent_parameters"], picture, {"sample": size, "latent_parameters": small}, folder),
        Part("vae_decoder", VaeDecoder(vae), ["latent_sample"], ["sample"], latent, {"latent_sample": small, "sample": size}, folder),
    ]


# ---------------------------------------------------------------- writing


def half_storage(model):
    """Float32 weights as float16, each behind a Cast; the values may be those of
    initializers or of Constant nodes.  Returns how many stayed float32."""
    graph, casts, kept = model.graph, [], 0
    for tensor in list(graph.initializer):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        array = numpy_helper.to_array(tensor)
        if array.size < 2:
            continue
        if not np.isfinite(array).all() or np.abs(array).max() > 65000:
            kept += 1
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16), name + "_half"))
        casts.append(helper.make_node("Cast", [name + "_half"], [name], name=f"half/{name}", to=TensorProto.FLOAT))
    constants = []
    for node in graph.node:
        if node.op_type == "Constant" and node.attribute and node.attribute[0].name == "value":
            tensor = node.attribute[0].t
            array = numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.size >= 64 and np.abs(array).max() <= 65000:
                name = node.output[0]
                node.output[0] = name + "_half"
                tensor.CopyFrom(numpy_helper.from_array(array.astype(np.float16)))
                constants.append((node, helper.make_node("Cast", [name + "_half"], [name], name=f"half/{name}", to=TensorProto.FLOAT)))
    nodes = list(casts)
    after = {id(node): cast for node, cast in constants}
    for node in graph.node:
        nodes.append(node)
        if id(node) in after:
            nodes.append(after[id(node)])
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    return kept


def weight_bytes(model):
    total = 0
    for t in model.graph.initializer:
        total += len(t.raw_data) if t.raw_data else numpy_helper.to_array(t).nbytes
    return total


def write(part, out, args):
    folder = os.path.join(out, part.name)
    os.makedirs(folder, exist_ok=True)
    target = os.path.join(folder, "model.onnx")
    for old in ("model.onnx", "model.onnx_data"):
        if os.path.exists(os.path.join(folder, old)):
            os.remove(os.path.join(folder, old))
    # a folder of its own: weights over 2 GB come as a file each
    with tempfile.TemporaryDirectory(dir=out) as temp:
        raw = os.path.join(temp, "model.onnx")
        with torch.no_grad():
            torch.onnx.export(
                part.module,
                part.make(2, 1),
                raw,
                input_names=part.inputs,
                output_names=part.outputs,
                dynamic_axes=part.axes,
                opset_version=args.opset,
                do_constant_folding=True,
                dynamo=False,
            )
        model = onnx.load(raw)
    found = [i.name for i in model.graph.input]
    if found != part.inputs:
        fail(f"{part.name}: the exported graph takes {found}, not {part.inputs}")
    if args.dtype == "half":
        kept = half_storage(model)
        if kept:
            print(f"  {part.name}: {kept} weights do not fit float16 and stay float32")
    model.producer_name = "ldm-ort export.py"
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
        if node.op_type in ("Constant", "Cast", "Identity"):
            node.name = ""  # thousands of them, and nothing refers to a node's name
    size = weight_bytes(model)
    if size > args.external_data_mb * 1e6:
        onnx.save_model(model, target, save_as_external_data=True, all_tensors_to_one_file=True, location="model.onnx_data", size_threshold=1024)
    else:
        onnx.save_model(model, target)
    onnx.checker.check_model(target)
    shutil.copyfile(os.path.join(part.config, "config.json"), os.path.join(folder, "config.json"))
    return target, size


def check(part, path, args):
    """The largest difference from PyTorch over two sizes and two batches, in units of
    the output's own largest value."""
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    names = [o.name for o in session.get_outputs()]
    if names != part.outputs:
        fail(f"{part.name}: the exported graph gives {names}, not {part.outputs}")
    worst = 0.0
    torch.manual_seed(0)
    for batch in (1, 3):
        for scale in (1, 2):
            inputs = part.make(batch, scale)
            with torch.no_grad():
                wanted = part.module(*inputs)
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            got = session.run(None, {n: v.numpy() for n, v in zip(part.inputs, inputs)})
            for name, w, g in zip(names, wanted, got):
                if tuple(w.shape) != g.shape:
                    fail(f"{part.name}: {name} is {g.shape} in ONNX Runtime and {tuple(w.shape)} in PyTorch")
                if not np.isfinite(g).all():
                    fail(f"{part.name}: {name} is not finite in ONNX Runtime")
                worst = max(worst, float(np.abs(w.numpy() - g).max() / max(1.0, w.abs().max().item())))
    limit = args.tolerance if args.tolerance is not None else (2e-2 if args.dtype == "half" else 1e-3)
    if worst > limit:
        fail(f"{part.name}: differs from PyTorch by {worst:.2e}, more than {limit:.0e}")
    return worst


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", help="folder of a diffusers checkpoint")
    p.add_argument("out", help="folder to write; files of earlier exports in it are replaced")
    p.add_argument("--dtype", choices=["float32", "half"], default="float32", help="how weights are stored")
    p.add_argument("--opset", type=int, default=17)
    p.add_argument("--external-data-mb", type=float, default=1500, help="weights larger than this go to model.onnx_data")
    p.add_argument("--hidden-states", action="store_true", help="give every hidden state of text_encoder, as XL always does (for clip skip)")
    p.add_argument("--no-check", action="store_true", help="do not compare with PyTorch")
    p.add_argument("--tolerance", type=float, help="largest difference from PyTorch (default 1e-3; half 2e-2)")
    args = p.parse_args()

    at = lambda *names: os.path.join(args.checkpoint, *names)
    if not os.path.isdir(args.checkpoint):
        fail(f"there is no folder {args.checkpoint}")
    if not os.path.exists(at("model_index.json")):
        fail(f"{args.checkpoint} has no model_index.json: it is not a diffusers checkpoint "
             "(a single .safetensors file must first be opened and saved with diffusers)")
    index = json.load(open(at("model_index.json"), encoding="utf-8"))
    xl = os.path.isdir(at("text_encoder_2"))
    for needed in ["unet", "vae", "scheduler", "text_encoder", "tokenizer"] + (["tokenizer_2"] if xl else []):
        if not os.path.isdir(at(needed)):
            fail(f"{args.checkpoint} has no {needed} folder; only checkpoints of Stable Diffusion's and SDXL's form are exported")
    kind = json.load(open(at("text_encoder", "config.json"))).get("model_type", "clip_text_model")
    if kind != "clip_text_model":
        fail(f"the text encoder is of type {kind!r}, only CLIP's is supported")
    os.makedirs(args.out, exist_ok=True)

    # one part in memory at a time
    from transformers import CLIPTextConfig

    first = CLIPTextConfig.from_pretrained(at("text_encoder"))
    pooled = CLIPTextConfig.from_pretrained(at("text_encoder_2")).projection_dim if xl else 0
    makers = [lambda: [text_part("text_encoder", at("text_encoder"), False, xl or args.hidden_states)]]
    if xl:
        makers.append(lambda: [text_part("text_encoder_2", at("text_encoder_2"), True, True)])
    makers.append(lambda: [unet_part(at("unet"), first.max_position_embeddings, pooled)])
    makers.append(lambda: vae_parts(at("vae")))
    for maker in makers:
        for part in maker():
            path, size = write(part, args.out, args)
            line = f"{part.name}: {size / 1e6:.2f} MB of weights"
            if not args.no_check:
                line += f", largest difference from PyTorch {check(part, path, args):.1e}"
            print(line, flush=True)

    for folder in ["scheduler", "tokenizer"] + (["tokenizer_2"] if xl else []):
        shutil.copytree(at(folder), os.path.join(args.out, folder), dirs_exist_ok=True)
    part = ["diffusers", "OnnxRuntimeModel"]
    kept = {k: v for k, v in index.items() if k.startswith("_") or k in ("scheduler", "tokenizer", "tokenizer_2", "force_zeros_for_empty_prompt", "requires_aesthetics_score")}
    kept.pop("_name_or_path", None)
    for k in ["text_encoder", "unet", "vae_encoder", "vae_decoder"] + (["text_encoder_2"] if xl else []):
        kept[k] = part
    with open(os.path.join(args.out, "model_index.json"), "w", encoding="utf-8") as f:
        json.dump(kept, f, indent=2, sort_keys=True)
        f.write("\n")
    if index.get("safety_checker", [None])[0]:
        print("note: the checkpoint's safety checker is not exported")
    print(f"written to {args.out}")


if __name__ == "__main__":
    main()
