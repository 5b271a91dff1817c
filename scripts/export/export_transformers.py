"""Export of transformers and their T5 encoders, imported by scripts/export.py. Not run by itself."""

from unittest import mock

import torch

from export_graphs import AXES, SIZE, Part, config_of, fail


class StatesOnly(torch.nn.Module):
    """An encoder of which nothing but the states after its last layer is wanted."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None):
        told = {} if attention_mask is None else {"attention_mask": attention_mask}
        return self.model(input_ids, return_dict=False, **told)[0]


class Transformer(torch.nn.Module):
    """A transformer over latents and text, in the order in which Optimum names its inputs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep, *more):
        told = {"encoder_hidden_states": encoder_hidden_states, "pooled_projections": pooled_projections}
        told |= dict(zip(("txt_ids", "img_ids", "guidance"), more))
        with mock.patch.object(torch.Tensor, "unflatten", split_last):
            return self.model(hidden_states, timestep=timestep, return_dict=False, **told)[0]


class PixArt(torch.nn.Module):
    """PixArt's transformer, told which tokens are padding and, as alpha is at 1024 pixels, the picture's size. Its one
    squeeze is of the axis of tokens, and would become a choice between two graphs."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, encoder_hidden_states, encoder_attention_mask, timestep, *sizes):
        resolution, aspect_ratio = sizes or (None, None)
        told = {"encoder_hidden_states": encoder_hidden_states, "encoder_attention_mask": encoder_attention_mask}
        told["added_cond_kwargs"] = {"resolution": resolution, "aspect_ratio": aspect_ratio}
        with mock.patch.multiple(torch.Tensor, repeat_interleave=repeat_rows, squeeze=lambda x, dim: x):
            return self.model(hidden_states, timestep=timestep, return_dict=False, **told)[0]


class Sana(torch.nn.Module):
    """Sana's transformer, which receives the mask of its tokens as PixArt's does."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, encoder_hidden_states, encoder_attention_mask, timestep):
        with mock.patch.object(torch.Tensor, "unflatten", split_axis):
            return self.model(
                hidden_states,
                encoder_hidden_states=encoder_hidden_states,
                encoder_attention_mask=encoder_attention_mask,
                timestep=timestep,
                return_dict=False,
            )[0]


class Gemma(torch.nn.Module):
    """Gemma 2's states after its last norm, under masks that transformers would make outside of what the exporter sees."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask):
        at = torch.arange(input_ids.shape[1])
        distance = at[:, None] - at[None, :]
        is_read = (distance >= 0) & attention_mask[:, None, None, :].bool()
        bias = lambda allowed: torch.where(allowed, 0.0, torch.finfo(torch.float32).min)
        sliding = is_read & (distance < self.model.config.sliding_window)
        masks = {"full_attention": bias(is_read), "sliding_attention": bias(sliding)}
        return self.model(input_ids, attention_mask=masks, use_cache=False).last_hidden_state


def split_axis(x, dim, sizes):
    """torch's unflatten; the exporter would write the other axes' lengths of the moment into the graph."""
    dim = dim % x.ndim
    return x.reshape(*x.shape[:dim], *sizes, *x.shape[dim + 1 :])


def repeat_rows(x, repeats, dim, **_):
    """torch's repeat_interleave of the first axis, of which the exporter would make a loop."""
    assert dim == 0, "another axis than the first"
    return x[:, None].expand(-1, repeats, *(-1 for _ in x.shape[1:])).flatten(0, 1)


def split_last(x, dim, sizes):
    """torch's unflatten of the last axis; the exporter would write the other axes' lengths of the moment into the graph."""
    return x.reshape(*x.shape[:-1], sizes[0], x.shape[-1] // sizes[0])


class RmsNorm(torch.nn.Module):
    """torch's RMSNorm, spelt out in operators that opset 17 has."""

    def __init__(self, norm):
        super().__init__()
        self.weight, self.eps = norm.weight, torch.finfo(torch.float32).eps if norm.eps is None else norm.eps

    def forward(self, x):
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps)
        return x if self.weight is None else x * self.weight


class Rotary(torch.nn.Module):
    """Flux's rotary positions: cosine and sine of each number of a token times falling frequencies, each of them twice."""

    def __init__(self, embed):
        super().__init__()
        exponents = [torch.arange(0, d, 2, dtype=torch.float64) / d for d in embed.axes_dim]
        self.frequencies = [(1.0 / embed.theta**e).repeat_interleave(2) for e in exponents]

    def forward(self, ids):
        angles = [ids[:, i : i + 1].double() * f for i, f in enumerate(self.frequencies)]
        angles = torch.cat(angles, dim=-1)
        return angles.cos().float(), angles.sin().float()


class Patches(torch.nn.Module):
    """PixArt's patches, each with sines and cosines of where it stands: first the columns', then the rows'. For pictures
    of another size than the model's own, diffusers computes those outside of what the exporter sees."""

    def __init__(self, embed):
        super().__init__()
        self.proj, self.base, self.scale = embed.proj, embed.base_size, embed.interpolation_scale
        quarter = embed.pos_embed.shape[-1] // 4
        self.frequencies = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)

    def along(self, count):
        """[count, width / 2]"""
        places = torch.arange(count, dtype=torch.float32) / (count / self.base) / self.scale
        angles = places.double()[:, None] * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=1).float()

    def forward(self, latent):
        latent = self.proj(latent)
        height, width = latent.shape[-2:]
        columns = self.along(width)[None].expand(height, -1, -1)
        rows = self.along(height)[:, None].expand(-1, width, -1)
        places = torch.cat([columns, rows], dim=2).permute(2, 0, 1)
        return (latent + places).flatten(2).transpose(1, 2)


def spelt_out(model):
    """The model with what opset 17 has no operator for, or the exporter a wrong one, spelt out."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, torch.nn.RMSNorm):
                setattr(module, name, RmsNorm(child))
    if not hasattr(model, "pos_embed"):
        return model
    if hasattr(model.pos_embed, "axes_dim"):
        model.pos_embed = Rotary(model.pos_embed)
    elif model.pos_embed.pos_embed_max_size is None:
        model.pos_embed = Patches(model.pos_embed)
    return model


def class_of(folder):
    """The class of a transformer. PixArt's published files have the name from before it had a class of its own."""
    config = config_of(folder)
    old = config.get("_class_name") == "Transformer2DModel" and config.get("norm_type") == "ada_norm_single"
    return "PixArtTransformer2DModel" if old else config.get("_class_name")


def transformer_part(folder, text_length):
    """The transformer of Stable Diffusion 3, of Flux, of PixArt or of Sana."""
    import diffusers

    known = ("SD3Transformer2DModel", "FluxTransformer2DModel", "PixArtTransformer2DModel", "SanaTransformer2DModel")
    name = class_of(folder)
    if name not in known:
        fail(f"{folder}: transformers of class {name!r} are not supported, only {', '.join(known)}")
    model = spelt_out(getattr(diffusers, name).from_pretrained(folder, torch_dtype=torch.float32))
    if name == "PixArtTransformer2DModel":
        return pixart_part(model, folder, text_length)
    if name == "SanaTransformer2DModel":
        return sana_part(model, folder, text_length)
    c = model.config
    is_flux = name == "FluxTransformer2DModel"
    inputs = ["hidden_states", "encoder_hidden_states", "pooled_projections", "timestep"]
    axes = {k: AXES[k] for k in ("encoder_hidden_states", "timestep")} | {"pooled_projections": {0: "batch"}}
    if is_flux:
        inputs += ["txt_ids", "img_ids"] + (["guidance"] if c.guidance_embeds else [])
        packed = {0: "batch", 1: "packed_height_width"}
        axes |= {"txt_ids": {0: "sequence"}, "img_ids": {0: "packed_height_width"}, "guidance": {0: "batch"}}
        axes = {k: axes[k] for k in inputs if k in axes} | {"hidden_states": packed, "out_hidden_states": packed}
    else:
        axes |= {"hidden_states": SIZE, "out_hidden_states": SIZE}

    def make(batch, scale):
        h, w = (2, 4) if scale == 1 else (3, 2)
        text = torch.randn(batch, text_length * scale, c.joint_attention_dim)
        pooled = torch.randn(batch, c.pooled_projection_dim)
        if not is_flux:
            sample = torch.randn(batch, c.in_channels, h * c.patch_size, w * c.patch_size)
            return sample, text, pooled, torch.rand(batch) * 999
        sample = torch.randn(batch, h * w, c.in_channels)
        rows, columns = torch.meshgrid(torch.arange(float(h)), torch.arange(float(w)), indexing="ij")
        places = torch.stack([torch.zeros(h, w), rows, columns], dim=-1).reshape(h * w, 3)
        guidance = (torch.rand(batch) * 5,) if c.guidance_embeds else ()
        return sample, text, pooled, torch.rand(batch), torch.zeros(text.shape[1], 3), places, *guidance

    return Part("transformer", Transformer(model), inputs, ["out_hidden_states"], make, axes, folder)


def mask(batch, length):
    """Texts of different lengths, each with padding behind it."""
    return (torch.arange(length) < torch.tensor([[length - 1 - row % 3] for row in range(batch)])).long()


def pixart_part(model, folder, text_length):
    c = model.config
    sizes = ["resolution", "aspect_ratio"] if model.use_additional_conditions else []
    inputs = ["hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep"] + sizes
    axes = {k: AXES[k] for k in ("encoder_hidden_states", "timestep")} | {k: {0: "batch"} for k in sizes}
    axes |= {"encoder_attention_mask": axes["encoder_hidden_states"], "hidden_states": SIZE, "out_hidden_states": SIZE}

    def make(batch, scale):
        h, w = (2, 4) if scale == 1 else (3, 2)
        sample = torch.randn(batch, c.in_channels, h * c.patch_size, w * c.patch_size)
        length = text_length * scale
        text = torch.randn(batch, length, c.caption_channels or c.cross_attention_dim)
        told = (torch.rand(batch, 2) * 1024, torch.rand(batch, 1) + 0.5) if sizes else ()
        return sample, text, mask(batch, length), torch.rand(batch) * 999, *told

    return Part("transformer", PixArt(model), inputs, ["out_hidden_states"], make, axes, folder)


def sana_part(model, folder, text_length):
    c = model.config
    if c.guidance_embeds or c.timestep_scale != 1.0:
        fail(f"{folder}: Sana's transformers with an embedded guidance scale (Sana-Sprint) are not supported")
    inputs = ["hidden_states", "encoder_hidden_states", "encoder_attention_mask", "timestep"]
    axes = {k: AXES[k] for k in ("encoder_hidden_states", "timestep")}
    axes |= {"encoder_attention_mask": axes["encoder_hidden_states"], "hidden_states": SIZE, "out_hidden_states": SIZE}

    def make(batch, scale):
        h, w = (2, 4) if scale == 1 else (3, 2)
        sample = torch.randn(batch, c.in_channels, h * c.patch_size, w * c.patch_size)
        length = text_length * scale
        text = torch.randn(batch, length, c.caption_channels)
        return sample, text, mask(batch, length), torch.rand(batch) * 999

    return Part("transformer", Sana(model), inputs, ["out_hidden_states"], make, axes, folder)


def gemma_part(name, folder):
    from transformers import Gemma2Model

    model = Gemma2Model.from_pretrained(folder, torch_dtype=torch.float32)

    def make(batch, scale):
        return torch.randint(0, model.config.vocab_size, (batch, 24 * scale)), mask(batch, 24 * scale)

    inputs = ["input_ids", "attention_mask"]
    axes = {k: {0: "batch", 1: "sequence"} for k in (*inputs, "last_hidden_state")}
    return Part(name, Gemma(model), inputs, ["last_hidden_state"], make, axes, folder)


def t5_part(name, folder, masked):
    """T5's encoder. PixArt tells it which tokens are padding; Stable Diffusion 3 and Flux attend to those as to any."""
    from transformers import T5EncoderModel

    model = T5EncoderModel.from_pretrained(folder, torch_dtype=torch.float32)

    def make(batch, scale):
        ids = torch.randint(0, model.config.vocab_size, (batch, 24 * scale))
        return (ids, mask(batch, 24 * scale)) if masked else (ids,)

    inputs = ["input_ids", "attention_mask"] if masked else ["input_ids"]
    axes = {k: {0: "batch", 1: "sequence"} for k in (*inputs, "last_hidden_state")}
    return Part(name, StatesOnly(model), inputs, ["last_hidden_state"], make, axes, folder)
