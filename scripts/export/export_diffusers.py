"""Export of diffusers folders, imported by scripts/export.py. Not run by itself."""

import json
import os
import shutil
from unittest import mock

import torch

import compvis
from export_graphs import AXES, LATENT, SIZE, Part, config_of, export, fail, write_json
from export_transformers import StatesOnly, class_of, gemma_part, split_axis, t5_part, transformer_part


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


def residual_names(count):
    return [f"down_block_{i}_additional_residual" for i in range(count)] + ["mid_block_additional_residual"]


class Unet(torch.nn.Module):
    """A UNet whose inputs after sample and timestep are given by name, in whatever order."""

    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, sample, timestep, *more):
        more = dict(zip(self.names[2:], more))
        keys = {k: more[k] for k in ("encoder_hidden_states", "timestep_cond", "class_labels") if k in more}
        added = {k: more[k] for k in ("text_embeds", "time_ids") if k in more}
        if added:
            keys["added_cond_kwargs"] = added
        residuals = [more[k] for k in self.names if k.endswith("_additional_residual")]
        if residuals:
            keys["down_block_additional_residuals"] = tuple(residuals[:-1])
            keys["mid_block_additional_residual"] = residuals[-1]
        return self.model(sample, timestep, return_dict=False, **keys)[0]


class ControlNet(torch.nn.Module):
    def __init__(self, model, names):
        super().__init__()
        self.model, self.names = model, names

    def forward(self, sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale, *more):
        added = dict(zip(self.names[5:], more)) or None
        down, mid = self.model(
            sample,
            timestep,
            encoder_hidden_states,
            controlnet_cond,
            conditioning_scale,
            added_cond_kwargs=added,
            return_dict=False,
        )
        return (*down, mid)


class VaeEncoder(torch.nn.Module):
    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, sample):
        h = self.vae.encoder(sample)
        return self.vae.quant_conv(h) if self.vae.quant_conv is not None else h


class VaeDecoder(torch.nn.Module):
    """The decoder of a first stage; where that has a codebook the latents are quantised first."""

    def __init__(self, vae):
        super().__init__()
        self.vae = vae

    def forward(self, latent_sample):
        z = latent_sample
        if hasattr(self.vae, "quantize"):
            z = compvis.quantised(z, self.vae.quantize.embedding.weight)  # torch.cdist has no ONNX form
        if self.vae.post_quant_conv is not None:
            z = self.vae.post_quant_conv(z)
        return self.vae.decoder(z)


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


def levels_of(c):
    return 2 ** (len(c.down_block_types) - 1)


def size_of(c, scale):
    steps = levels_of(c)
    return (2 * steps, 4 * steps) if scale == 1 else (3 * steps, 2 * steps)


def added_inputs(c, pooled_width):
    """The inputs of SDXL's UNets and ControlNets besides the prompt embeddings, each with a function that creates one."""
    if c.addition_embed_type != "text_time":
        return {}
    ids = (c.projection_class_embeddings_input_dim - pooled_width) // c.addition_time_embed_dim
    return {
        "text_embeds": lambda batch: torch.randn(batch, pooled_width),
        "time_ids": lambda batch: torch.rand(batch, ids) * 1024,
    }


def class_labels(c, folder):
    """Returns a function that creates a UNet's class labels, or None."""
    kind = getattr(c, "class_embed_type", None)
    if kind is None:
        return (lambda batch: torch.randint(0, c.num_class_embeds, (batch,))) if c.num_class_embeds else None
    if kind == "timestep":
        return lambda batch: torch.randint(0, 1000, (batch,))
    if kind in ("projection", "simple_projection"):
        return lambda batch: torch.randn(batch, c.projection_class_embeddings_input_dim)
    if kind == "identity":
        return lambda batch: torch.randn(batch, c.block_out_channels[0] * 4)
    fail(f"{folder}: class_embed_type {kind!r} is not supported")


def residual_shapes(unet, h, w):
    """Channels, height and width of every skip connection and of the middle, for a picture of this size."""
    c, shapes = unet.config, [(unet.config.block_out_channels[0], h, w)]
    for i, block in enumerate(unet.down_blocks):
        shapes += [(c.block_out_channels[i], h, w)] * len(block.resnets)
        if block.downsamplers:
            h, w = h // 2, w // 2
            shapes.append((c.block_out_channels[i], h, w))
    return shapes + [shapes[-1]]


def residual_axes(names, shapes, h):
    """Every size that residuals come in has axes of its own."""
    axes = {}
    for name, shape in zip(names, shapes):
        f = h // shape[1]
        axes[name] = SIZE if f == 1 else {0: "batch", 2: f"height_{f}", 3: f"width_{f}"}
    return axes


def unet_part(folder, text_length, pooled_width, controlled=False):
    from diffusers import UNet2DConditionModel, UNet2DModel

    plain = config_of(folder).get("_class_name") == "UNet2DModel"
    unet = (UNet2DModel if plain else UNet2DConditionModel).from_pretrained(folder, torch_dtype=torch.float32)
    c = unet.config
    made = {}
    if not plain:
        # "text" pools the caption that the UNet is given anyhow.
        if c.addition_embed_type not in (None, "text", "text_time"):
            kind = c.addition_embed_type
            fail(f"{folder}: addition_embed_type {kind!r} is not supported, only text and SDXL's text_time")
        made = added_inputs(c, pooled_width)
        if c.time_cond_proj_dim is not None:
            made["timestep_cond"] = lambda batch: torch.randn(batch, c.time_cond_proj_dim)
    if class_labels(c, folder):
        made["class_labels"] = class_labels(c, folder)
    inputs = ["sample", "timestep"] + ([] if plain else ["encoder_hidden_states"]) + list(made)
    axes = {k: v for k, v in AXES.items() if k in inputs or k == "out_sample"}
    if controlled:
        h, w = size_of(c, 1)
        shapes = residual_shapes(unet, h, w)
        names = residual_names(len(shapes) - 1)
        inputs += names
        axes |= residual_axes(names, shapes, h)

    def make(batch, scale):
        h, w = size_of(c, scale)
        out = [torch.randn(batch, c.in_channels, h, w), torch.rand(batch) * 999]
        if not plain:
            out.append(torch.randn(batch, text_length * scale, c.cross_attention_dim))
        out += [value(batch) for value in made.values()]
        if controlled:
            out += [torch.randn(batch, *shape) for shape in residual_shapes(unet, h, w)]
        return tuple(out)

    return Part("unet", Unet(unet, inputs), inputs, ["out_sample"], make, axes, folder)


def controlnet_part(name, folder, text_length, pooled_width):
    from diffusers import ControlNetModel

    net = ControlNetModel.from_pretrained(folder, torch_dtype=torch.float32)
    c = net.config
    if c.addition_embed_type not in (None, "text", "text_time") or class_labels(c, folder):
        fail(f"{folder}: a ControlNet with class labels or with addition_embed_type {c.addition_embed_type!r}")
    made = added_inputs(c, pooled_width)
    inputs = ["sample", "timestep", "encoder_hidden_states", "controlnet_cond", "conditioning_scale"] + list(made)
    f = 2 ** (len(c.conditioning_embedding_out_channels) - 1)
    h, w = size_of(c, 1)
    shapes = residual_shapes(net, h, w)
    outputs = residual_names(len(shapes) - 1)

    def make(batch, scale):
        h, w = size_of(c, scale)
        out = [
            torch.randn(batch, c.in_channels, h, w),
            torch.rand(batch) * 999,
            torch.randn(batch, text_length * scale, c.cross_attention_dim),
            torch.rand(batch, c.conditioning_channels, h * f, w * f),
            torch.rand(1) + 0.5,
        ]
        return tuple(out + [value(batch) for value in made.values()])

    axes = {k: v for k, v in AXES.items() if k in inputs} | residual_axes(outputs, shapes, h)
    axes["controlnet_cond"] = {0: "batch", 2: "control_height", 3: "control_width"}
    return Part(name, ControlNet(net, inputs), inputs, outputs, make, axes, folder)


def vae_parts(folder, scaling=None):
    """The two halves of a first stage: AutoencoderKL, or VQModel, whose latents need no scaling unless its configuration
    or `scaling` says so."""
    from diffusers import AutoencoderKL, VQModel

    config = config_of(folder)
    if config.get("_class_name") == "AutoencoderDC":
        return dc_parts(folder)
    vq = config.get("_class_name") == "VQModel"
    vae = (VQModel if vq else AutoencoderKL).from_pretrained(folder, torch_dtype=torch.float32)
    c = vae.config
    f = levels_of(c)
    if vq:
        if c.norm_type != "group" or vae.quantize.remap is not None:
            fail(f"{folder}: a VQModel of norm_type {c.norm_type!r} or with a remapped codebook is not supported")
        config = {k: v for k, v in config.items() if k != "_name_or_path"}
        config["scaling_factor"] = scaling or config.get("scaling_factor", 1.0)
        if config["scaling_factor"] != 1.0:
            print(f"note: {folder} says scaling_factor {config['scaling_factor']}; the paper's VQ models have 1.0")

    def picture(batch, scale):
        h, w = (8 * f, 6 * f) if scale == 1 else (4 * f, 10 * f)
        return (torch.rand(batch, c.in_channels, h, w) * 2 - 1,)

    def latent(batch, scale):
        h, w = (8, 6) if scale == 1 else (4, 10)
        if not vq:
            return (torch.randn(batch, c.latent_channels, h, w),)
        # entries of the codebook: halfway between two, rounding would choose
        book = vae.quantize.embedding.weight
        return (book[torch.randint(0, len(book), (batch, h, w))].permute(0, 3, 1, 2).contiguous(),)

    name, answer = ("vqvae", "latent_sample") if vq else ("vae", "latent_parameters")
    config = config if vq else folder
    encode = Part(
        f"{name}_encoder", VaeEncoder(vae), ["sample"], [answer], picture, {"sample": SIZE, answer: LATENT}, config
    )
    axes = {"latent_sample": LATENT, "sample": SIZE}
    return [encode, Part(f"{name}_decoder", VaeDecoder(vae), ["latent_sample"], ["sample"], latent, axes, config)]


class DeepCompression(torch.nn.Module):
    """The encoder or the decoder of an AutoencoderDC."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, sample):
        spelt_out = {"repeat_interleave": repeat_channels, "unflatten": split_axis, "movedim": move_axis}
        with mock.patch.multiple(torch.Tensor, **spelt_out):
            return self.model(sample)


def move_axis(x, source, destination):
    """torch's movedim, of which the exporter would write a negative destination into the graph."""
    axes = [axis for axis in range(x.ndim) if axis != source % x.ndim]
    axes.insert(destination % x.ndim, source % x.ndim)
    return x.permute(axes)


def repeat_channels(x, repeats, dim, **_):
    """torch's repeat_interleave of the channels, of which the exporter would make a loop."""
    assert dim == 1, "another axis than the channels"
    n, c, h, w = x.shape
    return x[:, :, None].expand(n, c, repeats, h, w).reshape(n, c * repeats, h, w)


def dc_parts(folder):
    """The two halves of an AutoencoderDC, whose encoder gives the latents themselves."""
    from diffusers import AutoencoderDC

    vae = AutoencoderDC.from_pretrained(folder, torch_dtype=torch.float32)
    c, f = vae.config, vae.spatial_compression_ratio

    # Sizes above attention_head_dim latents: the exporter then sees the attention that is linear in their number.
    def size(scale):
        side = int(c.attention_head_dim**0.5) + 1
        return (side, 2 * side) if scale == 1 else (2 * side, side)

    picture = lambda batch, scale: (torch.rand(batch, c.in_channels, *(f * side for side in size(scale))) * 2 - 1,)
    latent = lambda batch, scale: (torch.randn(batch, c.latent_channels, *size(scale)),)
    axes = {"sample": SIZE, "latent_sample": LATENT}
    encoder, decoder = DeepCompression(vae.encoder), DeepCompression(vae.decoder)
    return [
        Part("vae_encoder", encoder, ["sample"], ["latent_sample"], picture, axes, folder),
        Part("vae_decoder", decoder, ["latent_sample"], ["sample"], latent, axes, folder),
    ]


def small_decoder_part(vae):
    """The decoder of an AutoencoderTiny (TAESD), which takes the diffusion's latents as they are."""
    c = vae.config
    make = lambda batch, scale: (torch.randn(batch, c.latent_channels, *((8, 6) if scale == 1 else (4, 10))),)
    axes = {"latent_sample": LATENT, "sample": SIZE}
    config = {k: v for k, v in c.items() if not k.startswith(("_", "encoder_", "num_encoder_"))}
    config["_class_name"] = "AutoencoderTiny"
    return Part("tiny_vae_decoder", vae.decoder, ["latent_sample"], ["sample"], make, axes, config)


def bert_part(folder):
    from diffusers.pipelines.latent_diffusion.pipeline_latent_diffusion import LDMBertModel

    model = LDMBertModel.from_pretrained(folder, torch_dtype=torch.float32)
    c = model.config

    def make(batch, scale):
        return (torch.randint(0, c.vocab_size, (batch, c.max_position_embeddings // scale)),)

    axes = {"input_ids": {0: "batch", 1: "sequence"}, "last_hidden_state": {0: "batch", 1: "sequence"}}
    return Part("text_encoder", StatesOnly(model), ["input_ids"], ["last_hidden_state"], make, axes, folder)


def copy_tokenizer(folder, out):
    """A tokenizer's files; where it is T5's and has SentencePiece's own file alone, tokenizer.json too."""
    shutil.copytree(folder, out, dirs_exist_ok=True)
    if os.path.exists(os.path.join(out, "spiece.model")) and not os.path.exists(os.path.join(out, "tokenizer.json")):
        from transformers import T5TokenizerFast

        T5TokenizerFast.from_pretrained(folder).save_pretrained(out)


# ---------------------------------------------------------------- whole pipelines

LATENT_DIFFUSION = {
    "LDMPipeline": "unconditional",
    "LDMTextToImagePipeline": "text-to-image",
    "LDMSuperResolutionPipeline": "super-resolution",
}
TEXT_ENCODERS = ["text_encoder", "text_encoder_2", "text_encoder_3"]
TOKENIZERS = ["tokenizer", "tokenizer_2", "tokenizer_3"]
COPIED = ["scheduler", "low_res_scheduler"] + TOKENIZERS
SETTINGS = ["force_zeros_for_empty_prompt", "requires_aesthetics_score"]


def main(args):
    at = lambda *names: os.path.join(args.checkpoint, *names)
    has = lambda name: os.path.isdir(at(name))
    if os.path.exists(at("config.json")) and config_of(at()).get("_class_name") == "AutoencoderTiny":
        from diffusers import AutoencoderTiny

        export([small_decoder_part(AutoencoderTiny.from_pretrained(at(), torch_dtype=torch.float32))], args)
        return print(f"written to {args.out}")
    if not os.path.exists(at("model_index.json")):
        fail(
            f"{args.checkpoint} has no model_index.json: it is not a diffusers checkpoint (a single .safetensors file "
            "of Stable Diffusion must first be opened and saved with diffusers)"
        )
    with open(at("model_index.json"), encoding="utf-8") as f:
        index = json.load(f)
    if not has("scheduler") or not has("unet") and not has("transformer"):
        fail(f"{args.checkpoint} has no scheduler folder, or neither a unet nor a transformer folder")
    for encoder, tokenizer in [*zip(TEXT_ENCODERS, TOKENIZERS), ("bert", "tokenizer")]:
        if has(encoder) and not has(tokenizer):
            fail(f"{args.checkpoint} has {encoder} but no {tokenizer} folder")
    kinds = {n: config_of(at(n)).get("model_type", "clip_text_model") for n in TEXT_ENCODERS if has(n)}
    for name, kind in kinds.items():
        if kind not in ("clip_text_model", "clip", "t5", "gemma2"):
            fail(f"{name} is of type {kind!r}, only CLIP's, T5's and Gemma 2's are supported")
    unpooled = ("t5", "gemma2")
    clips = [name for name, kind in kinds.items() if kind not in unpooled]
    system = LATENT_DIFFUSION.get(index.get("_class_name"))
    controls = [at(n) for n in ["controlnet"] + [f"controlnet_{i}" for i in range(1, 9)] if has(n)]
    controls += args.controlnet

    length, pooled = 7, 0
    if kinds.get("text_encoder", "t5") not in unpooled:
        length = config_of(at("text_encoder"))["max_position_embeddings"]
    if kinds.get("text_encoder_2", "t5") != "t5":
        pooled = config_of(at("text_encoder_2"))["projection_dim"]

    is_pixart = has("transformer") and class_of(at("transformer")) == "PixArtTransformer2DModel"

    def parts():
        if has("bert"):
            yield bert_part(at("bert"))
        for name, kind in kinds.items():
            if kind == "t5":
                yield t5_part(name, at(name), masked=is_pixart)
            elif kind == "gemma2":
                yield gemma_part(name, at(name))
            else:
                projected = index[name][1] == "CLIPTextModelWithProjection"
                yield text_part(name, at(name), projected, len(clips) > 1 or projected or args.hidden_states)
        if has("transformer"):
            yield transformer_part(at("transformer"), length)
        else:
            yield unet_part(at("unet"), length, pooled, bool(controls))
        for i, folder in enumerate(controls):
            yield controlnet_part(f"controlnet_{i}" if i else "controlnet", folder, length, pooled)
        for name in ("vae", "vqvae"):
            if has(name):
                # the pipeline for super-resolution does not scale, whatever the configuration was saved with
                yield from vae_parts(at(name), 1.0 if system == "super-resolution" else None)

    names = export(parts(), args)
    for folder in filter(has, COPIED):
        copy_tokenizer(at(folder), os.path.join(args.out, folder))
    kept = {k: v for k, v in index.items() if k.startswith("_") or k in SETTINGS or k in COPIED and has(k)}
    kept.pop("_name_or_path", None)
    if system:
        kept |= {"_class_name": "LatentDiffusion", "system": system}
    kept |= {name: ["diffusers", "OnnxRuntimeModel"] for name in names}
    write_json(os.path.join(args.out, "model_index.json"), kept)
    for left in ("safety_checker", "depth_estimator", "image_encoder"):
        if (index.get(left) or [None])[0]:
            print(f"note: the checkpoint's {left} is not exported")
    print(f"written to {args.out}")
