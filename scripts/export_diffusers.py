"""What scripts/export.py does with a folder of diffusers. Not run by itself."""

import json
import os
import shutil

import torch

from export_graphs import Part, export, fail, write_json


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


def main(args):
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

    from transformers import CLIPTextConfig

    first = CLIPTextConfig.from_pretrained(at("text_encoder"))
    pooled = CLIPTextConfig.from_pretrained(at("text_encoder_2")).projection_dim if xl else 0

    def parts():
        yield text_part("text_encoder", at("text_encoder"), False, xl or args.hidden_states)
        if xl:
            yield text_part("text_encoder_2", at("text_encoder_2"), True, True)
        yield unet_part(at("unet"), first.max_position_embeddings, pooled)
        yield from vae_parts(at("vae"))

    export(parts(), args)

    for folder in ["scheduler", "tokenizer"] + (["tokenizer_2"] if xl else []):
        shutil.copytree(at(folder), os.path.join(args.out, folder), dirs_exist_ok=True)
    part = ["diffusers", "OnnxRuntimeModel"]
    kept = {k: v for k, v in index.items() if k.startswith("_") or k in ("scheduler", "tokenizer", "tokenizer_2", "force_zeros_for_empty_prompt", "requires_aesthetics_score")}
    kept.pop("_name_or_path", None)
    for k in ["text_encoder", "unet", "vae_encoder", "vae_decoder"] + (["text_encoder_2"] if xl else []):
        kept[k] = part
    write_json(os.path.join(args.out, "model_index.json"), kept)
    if index.get("safety_checker", [None])[0]:
        print("note: the checkpoint's safety checker is not exported")
    print(f"written to {args.out}")


