"""PyTorch modules that open the checkpoints of the latent diffusion paper's own code (CompVis/latent-diffusion).

Not run by itself: scripts/export.py exports what this opens, scripts/goldens/golden_systems.py samples from it.

    model = compvis.load("model.ckpt", "model.yaml")
    model.unet(sample, timestep, encoder_hidden_states, class_labels)
    model.first_stage.encode(picture), model.first_stage.decode(latent)
    model.conditioner            # None, ClassEmbedder, TransformerEncoder or SpatialRescaler
    model.system, model.scale_factor, model.betas

The modules carry the parameter names of those checkpoints and are built from the parameters in the YAML, so weights are
loaded strictly: a name or a shape that does not fit is an error. Where the YAML asks for it (`use_ema`, on unless
switched off) the averaged weights are the ones loaded. A parameter that is of use in training only is ignored, an
unknown one is an error.

Beyond the original parameters, which leave no room for a model of a few kilobytes, `norm_groups` (32) is understood in
unet_config and in ddconfig, and `heads` (8) and `dim_head` (64) for the transformer encoder.
"""

import math
import pickle
import types

import torch
import torch.nn.functional as F
from torch import nn


class Unsupported(Exception):
    """A configuration or checkpoint that these modules cannot stand for, and why."""


def take(params, where, known, ignored=()):
    """The parameters named in `known` (name: default; ... where there is none), refusing any that would be missed."""
    left = {k: v for k, v in params.items() if k not in known and k not in ignored}
    if left:
        raise Unsupported(f"{where}: does not know {', '.join(sorted(left))}")
    missing = [k for k, default in known.items() if default is ... and k not in params]
    if missing:
        raise Unsupported(f"{where}: lacks {', '.join(missing)}")
    return types.SimpleNamespace(**{k: params.get(k, default) for k, default in known.items()})


# ---------------------------------------------------------------- the UNet


def norm(channels, groups, eps=1e-5):
    return nn.GroupNorm(groups, channels, eps=eps)


class Up(nn.Module):
    def __init__(self, channels, learned):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1) if learned else nn.Identity()

    def forward(self, x):
        return self.conv(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class Down(nn.Module):
    def __init__(self, channels, learned):
        super().__init__()
        self.op = nn.Conv2d(channels, channels, 3, stride=2, padding=1) if learned else nn.AvgPool2d(2)

    def forward(self, x):
        return self.op(x)


class ResBlock(nn.Module):
    """A residual block told of the timestep, by a shift or by scale and shift; may halve or double the picture."""

    def __init__(self, channels, out, time, groups, scale_shift, resample=None):
        super().__init__()
        self.scale_shift = scale_shift
        self.resample = resample(channels, False) if resample else nn.Identity()
        self.in_layers = nn.Sequential(norm(channels, groups), nn.SiLU(), nn.Conv2d(channels, out, 3, padding=1))
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(time, out * (2 if scale_shift else 1)))
        self.out_layers = nn.Sequential(norm(out, groups), nn.SiLU(), nn.Identity(), nn.Conv2d(out, out, 3, padding=1))
        self.skip_connection = nn.Identity() if channels == out else nn.Conv2d(channels, out, 1)

    def forward(self, x, time):
        h = self.in_layers[2](self.resample(self.in_layers[1](self.in_layers[0](x))))
        time = self.emb_layers(time)[:, :, None, None]
        if self.scale_shift:
            scale, shift = time.chunk(2, dim=1)
            h = self.out_layers[0](h) * (1 + scale) + shift
        else:
            h = self.out_layers[0](h + time)
        h = self.out_layers[3](self.out_layers[1](h))
        return self.skip_connection(self.resample(x)) + h


class AttentionBlock(nn.Module):
    """Self-attention among positions. `interleaved`: queries, keys and values stand side by side in each head."""

    def __init__(self, channels, heads, groups, interleaved):
        super().__init__()
        self.heads, self.interleaved = heads, interleaved
        self.norm = norm(channels, groups)
        self.qkv = nn.Conv1d(channels, 3 * channels, 1)
        self.proj_out = nn.Conv1d(channels, channels, 1)

    def forward(self, x):
        b, c, h, w = x.shape
        flat = x.reshape(b, c, h * w)
        qkv = self.qkv(self.norm(flat))
        if self.interleaved:
            q, k, v = qkv.reshape(b, self.heads, -1, h * w).chunk(3, dim=2)
        else:
            q, k, v = (part.reshape(b, self.heads, -1, h * w) for part in qkv.chunk(3, dim=1))
        scale = (c // self.heads) ** -0.25
        weights = ((q * scale).transpose(2, 3) @ (k * scale)).softmax(dim=-1)
        mixed = (v @ weights.transpose(2, 3)).reshape(b, c, h * w)
        return (flat + self.proj_out(mixed)).reshape(b, c, h, w)


class CrossAttention(nn.Module):
    def __init__(self, width, context, heads, dim_head):
        super().__init__()
        self.heads, inner = heads, heads * dim_head
        self.to_q = nn.Linear(width, inner, bias=False)
        self.to_k = nn.Linear(context, inner, bias=False)
        self.to_v = nn.Linear(context, inner, bias=False)
        self.to_out = nn.Sequential(nn.Linear(inner, width))

    def forward(self, x, context):
        split = lambda t: t.reshape(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.to_q(x)), split(self.to_k(context)), split(self.to_v(context))
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.to_out((weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class GatedGelu(nn.Module):

    def __init__(self, width, out):
        super().__init__()
        self.proj = nn.Linear(width, out * 2)

    def forward(self, x):
        x, gate = self.proj(x).chunk(2, dim=-1)
        return x * F.gelu(gate)


class FeedForward(nn.Module):
    def __init__(self, width, gated):
        super().__init__()
        first = GatedGelu(width, width * 4) if gated else nn.Sequential(nn.Linear(width, width * 4), nn.GELU())
        self.net = nn.Sequential(first, nn.Identity(), nn.Linear(width * 4, width))

    def forward(self, x):
        return self.net(x)


class TransformerBlock(nn.Module):
    def __init__(self, width, heads, dim_head, context):
        super().__init__()
        self.attn1 = CrossAttention(width, width, heads, dim_head)
        self.ff = FeedForward(width, gated=True)
        self.attn2 = CrossAttention(width, context, heads, dim_head)
        self.norm1, self.norm2, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x, context):
        h = self.norm1(x)
        x = self.attn1(h, h) + x
        x = self.attn2(self.norm2(x), context) + x
        return self.ff(self.norm3(x)) + x


class SpatialTransformer(nn.Module):
    def __init__(self, channels, heads, dim_head, depth, context, groups):
        super().__init__()
        inner = heads * dim_head
        self.norm = norm(channels, groups, eps=1e-6)
        self.proj_in = nn.Conv2d(channels, inner, 1)
        self.transformer_blocks = nn.ModuleList(TransformerBlock(inner, heads, dim_head, context) for _ in range(depth))
        self.proj_out = nn.Conv2d(inner, channels, 1)

    def forward(self, x, context):
        b, _, h, w = x.shape
        tokens = self.proj_in(self.norm(x)).flatten(2).transpose(1, 2)
        for block in self.transformer_blocks:
            tokens = block(tokens, context)
        return self.proj_out(tokens.transpose(1, 2).reshape(b, -1, h, w)) + x


class Block(nn.Sequential):
    """Layers in sequence, each given what it asks for."""

    def forward(self, x, time, context):
        for layer in self:
            if isinstance(layer, ResBlock):
                x = layer(x, time)
            elif isinstance(layer, SpatialTransformer):
                x = layer(x, context)
            else:
                x = layer(x)
        return x


class UNet(nn.Module):
    def __init__(self, params):
        super().__init__()
        p = self.params = take(
            params,
            "unet_config",
            dict(
                image_size=...,
                in_channels=...,
                model_channels=...,
                out_channels=...,
                num_res_blocks=...,
                attention_resolutions=...,
                channel_mult=(1, 2, 4, 8),
                conv_resample=True,
                dims=2,
                num_classes=None,
                num_heads=-1,
                num_head_channels=-1,
                num_heads_upsample=-1,
                use_scale_shift_norm=False,
                resblock_updown=False,
                use_new_attention_order=False,
                use_spatial_transformer=False,
                transformer_depth=1,
                context_dim=None,
                n_embed=None,
                legacy=True,
                norm_groups=32,
            ),
            ignored=("dropout", "use_checkpoint", "use_fp16"),
        )
        if p.dims != 2 or p.n_embed is not None:
            raise Unsupported("unet_config: only pictures (dims 2) and no prediction of codebook entries (n_embed)")
        if p.num_heads == -1 and p.num_head_channels == -1:
            raise Unsupported("unet_config: neither num_heads nor num_head_channels is given")
        if p.use_spatial_transformer != (p.context_dim is not None):
            raise Unsupported("unet_config: use_spatial_transformer and context_dim go together")
        time = p.model_channels * 4
        self.time_embed = nn.Sequential(nn.Linear(p.model_channels, time), nn.SiLU(), nn.Linear(time, time))
        if p.num_classes is not None:
            self.label_emb = nn.Embedding(p.num_classes, time)

        def residual(channels, out, resample=None):
            return ResBlock(channels, out, time, p.norm_groups, p.use_scale_shift_norm, resample)

        def attention(channels, rising=False):
            heads = p.num_heads if p.num_head_channels == -1 else channels // p.num_head_channels
            if p.use_spatial_transformer:
                depth, context = p.transformer_depth, p.context_dim
                return SpatialTransformer(channels, heads, channels // heads, depth, context, p.norm_groups)
            if rising and p.num_heads_upsample != -1 and p.num_head_channels == -1 and p.legacy:
                heads = p.num_heads_upsample
            return AttentionBlock(channels, heads, p.norm_groups, not p.use_new_attention_order)

        def resampled(channels, kind):
            return residual(channels, channels, kind) if p.resblock_updown else kind(channels, p.conv_resample)

        widths = [p.model_channels * m for m in p.channel_mult]
        last = len(widths) - 1
        channels = p.model_channels
        self.input_blocks = nn.ModuleList([Block(nn.Conv2d(p.in_channels, channels, 3, padding=1))])
        skips = [channels]
        for level, width in enumerate(widths):
            for _ in range(p.num_res_blocks):
                layers = [residual(channels, width)]
                if 2**level in p.attention_resolutions:
                    layers.append(attention(width))
                self.input_blocks.append(Block(*layers))
                channels = width
                skips.append(channels)
            if level < last:
                self.input_blocks.append(Block(resampled(channels, Down)))
                skips.append(channels)
        self.middle_block = Block(residual(channels, channels), attention(channels), residual(channels, channels))
        self.output_blocks = nn.ModuleList()
        for level, width in reversed(list(enumerate(widths))):
            for i in range(p.num_res_blocks + 1):
                layers = [residual(channels + skips.pop(), width)]
                channels = width
                if 2**level in p.attention_resolutions:
                    layers.append(attention(width, rising=True))
                if level and i == p.num_res_blocks:
                    layers.append(resampled(width, Up))
                self.output_blocks.append(Block(*layers))
        self.out = nn.Sequential(
            norm(channels, p.norm_groups), nn.SiLU(), nn.Conv2d(p.model_channels, p.out_channels, 3, padding=1)
        )

    def forward(self, sample, timestep, encoder_hidden_states=None, class_labels=None):
        half = self.params.model_channels // 2
        rates = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32) / half).to(sample.device)
        angles = timestep.float()[:, None] * rates
        wave = torch.cat([angles.cos(), angles.sin()], dim=1)
        time = self.time_embed(F.pad(wave, (0, self.params.model_channels % 2)))
        if class_labels is not None:
            time = time + self.label_emb(class_labels)
        h, skips = sample, []
        for block in self.input_blocks:
            h = block(h, time, encoder_hidden_states)
            skips.append(h)
        h = self.middle_block(h, time, encoder_hidden_states)
        for block in self.output_blocks:
            h = block(torch.cat([h, skips.pop()], dim=1), time, encoder_hidden_states)
        return self.out(h)


# ---------------------------------------------------------------- first stages


class Residual(nn.Module):
    def __init__(self, channels, out, groups):
        super().__init__()
        self.norm1, self.conv1 = norm(channels, groups, 1e-6), nn.Conv2d(channels, out, 3, padding=1)
        self.norm2, self.conv2 = norm(out, groups, 1e-6), nn.Conv2d(out, out, 3, padding=1)
        if channels != out:
            self.nin_shortcut = nn.Conv2d(channels, out, 1)

    def forward(self, x):
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return (self.nin_shortcut(x) if hasattr(self, "nin_shortcut") else x) + h


class Attention(nn.Module):
    """Self-attention with a single head as wide as the picture has channels."""

    def __init__(self, channels, groups):
        super().__init__()
        self.norm = norm(channels, groups, 1e-6)
        self.q, self.k, self.v, self.proj_out = (nn.Conv2d(channels, channels, 1) for _ in range(4))

    def forward(self, x):
        h = self.norm(x)
        q, k, v = self.q(h).flatten(2), self.k(h).flatten(2), self.v(h).flatten(2)
        weights = (q.transpose(1, 2) @ k * x.shape[1] ** -0.5).softmax(dim=-1)
        return x + self.proj_out((v @ weights.transpose(1, 2)).reshape(x.shape))


class Halve(nn.Module):
    def __init__(self, channels, learned):
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2) if learned else None

    def forward(self, x):  # one row and one column more, below and to the right
        return F.avg_pool2d(x, 2) if self.conv is None else self.conv(F.pad(x, (0, 1, 0, 1)))


def stage_params(params):
    known = dict(
        ch=...,
        out_ch=...,
        ch_mult=(1, 2, 4, 8),
        num_res_blocks=...,
        attn_resolutions=...,
        resamp_with_conv=True,
        in_channels=...,
        resolution=...,
        z_channels=...,
        double_z=True,
        tanh_out=False,
        give_pre_end=False,
        use_linear_attn=False,
        attn_type="vanilla",
        norm_groups=32,
    )
    p = take(params, "ddconfig", known, ignored=("dropout",))
    if p.use_linear_attn or p.attn_type not in ("vanilla", "none") or p.give_pre_end:
        raise Unsupported("ddconfig: attn_type must be vanilla or none, and give_pre_end off")
    return p


def stage_attention(p, channels):
    return nn.Identity() if p.attn_type == "none" else Attention(channels, p.norm_groups)


def middle(p, channels):
    made = nn.Module()
    made.block_1 = Residual(channels, channels, p.norm_groups)
    made.attn_1 = stage_attention(p, channels)
    made.block_2 = Residual(channels, channels, p.norm_groups)
    return made


def level_of(p, channels, width, blocks, resolution):
    """One level of blocks at one resolution, each followed by attention where that resolution has it."""
    made = nn.Module()
    made.block, made.attn = nn.ModuleList(), nn.ModuleList()
    for _ in range(blocks):
        made.block.append(Residual(channels, width, p.norm_groups))
        channels = width
        if resolution in p.attn_resolutions:
            made.attn.append(stage_attention(p, width))
    return made


def through(level, h):
    for i, block in enumerate(level.block):
        h = block(h)
        if len(level.attn):
            h = level.attn[i](h)
    return h


class Encoder(nn.Module):
    def __init__(self, params):
        super().__init__()
        p = stage_params(params)
        self.conv_in = nn.Conv2d(p.in_channels, p.ch, 3, padding=1)
        self.down = nn.ModuleList()
        channels = p.ch
        for i, mult in enumerate(p.ch_mult):
            level = level_of(p, channels, p.ch * mult, p.num_res_blocks, p.resolution >> i)
            channels = p.ch * mult
            if i < len(p.ch_mult) - 1:
                level.downsample = Halve(channels, p.resamp_with_conv)
            self.down.append(level)
        self.mid = middle(p, channels)
        self.norm_out = norm(channels, p.norm_groups, 1e-6)
        self.conv_out = nn.Conv2d(channels, p.z_channels * (2 if p.double_z else 1), 3, padding=1)

    def forward(self, x):
        h = self.conv_in(x)
        for level in self.down:
            h = through(level, h)
            if hasattr(level, "downsample"):
                h = level.downsample(h)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))
        return self.conv_out(F.silu(self.norm_out(h)))


class Decoder(nn.Module):
    def __init__(self, params):
        super().__init__()
        p = stage_params(params)
        last = len(p.ch_mult) - 1
        channels = p.ch * p.ch_mult[last]
        self.tanh_out = p.tanh_out
        self.conv_in = nn.Conv2d(p.z_channels, channels, 3, padding=1)
        self.mid = middle(p, channels)
        levels = []
        for i in range(last, -1, -1):
            level = level_of(p, channels, p.ch * p.ch_mult[i], p.num_res_blocks + 1, p.resolution >> i)
            channels = p.ch * p.ch_mult[i]
            if i:
                level.upsample = Up(channels, p.resamp_with_conv)
            levels.insert(0, level)
        self.up = nn.ModuleList(levels)
        self.norm_out = norm(channels, p.norm_groups, 1e-6)
        self.conv_out = nn.Conv2d(channels, p.out_ch, 3, padding=1)

    def forward(self, z):
        h = self.conv_in(z)
        h = self.mid.block_2(self.mid.attn_1(self.mid.block_1(h)))
        for level in reversed(self.up):
            h = through(level, h)
            if hasattr(level, "upsample"):
                h = level.upsample(h)
        h = self.conv_out(F.silu(self.norm_out(h)))
        return h.tanh() if self.tanh_out else h


def distances(z, book):
    """The squared distance of each position of z to each entry of a codebook, [positions, entries]."""
    flat = z.permute(0, 2, 3, 1).reshape(-1, z.shape[1])
    return (flat**2).sum(dim=1, keepdim=True) + (book**2).sum(dim=1) - 2 * (flat @ book.t())


def quantised(z, book):
    """The entry of a codebook that is nearest to each position of z."""
    b, c, h, w = z.shape
    return book[distances(z, book).argmin(dim=1)].reshape(b, h, w, c).permute(0, 3, 1, 2)


class Quantizer(nn.Module):
    def __init__(self, entries, width):
        super().__init__()
        self.embedding = nn.Embedding(entries, width)

    def forward(self, z):
        return quantised(z, self.embedding.weight)


class FirstStage(nn.Module):
    """A VQ or a KL autoencoder. `encode` gives the latents before they are quantised, or mean and log variance;
    `decode` takes latents that were divided by the scale factor, and quantises where there is a codebook."""

    def __init__(self, target, params):
        super().__init__()
        self.kind = "vq" if target.endswith(("VQModelInterface", "VQModel")) else "kl"
        if self.kind == "kl" and not target.endswith("AutoencoderKL"):
            raise Unsupported(f"first_stage_config: {target} is neither a VQModelInterface nor an AutoencoderKL")
        known = dict(ddconfig=..., embed_dim=..., remap=None)
        if self.kind == "vq":
            known["n_embed"] = ...
        training = "lossconfig ckpt_path ignore_keys image_key colorize_nlabels monitor batch_resize_range".split()
        training += ["scheduler_config", "lr_g_factor", "sane_index_shape", "use_ema"]
        p = self.params = take(params, "first_stage_config", known, ignored=training)
        if p.remap is not None:
            raise Unsupported("first_stage_config: a remapped codebook")
        self.stage = stage_params(p.ddconfig)
        self.encoder, self.decoder = Encoder(p.ddconfig), Decoder(p.ddconfig)
        double = 2 if self.stage.double_z else 1
        if (double == 2) != (self.kind == "kl"):
            raise Unsupported("ddconfig: double_z goes with AutoencoderKL, and only with it")
        if self.kind == "vq":
            self.quantize = Quantizer(p.n_embed, p.embed_dim)
        self.quant_conv = nn.Conv2d(double * self.stage.z_channels, double * p.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(p.embed_dim, self.stage.z_channels, 1)

    def encode(self, picture):
        return self.quant_conv(self.encoder(picture))

    def decode(self, latent):
        z = self.quantize(latent) if self.kind == "vq" else latent
        return self.decoder(self.post_quant_conv(z))


# ---------------------------------------------------------------- conditioners


class ClassEmbedder(nn.Module):
    def __init__(self, params):
        super().__init__()
        p = take(params, "cond_stage_config", dict(embed_dim=..., n_classes=1000), ignored=("key",))
        self.n_classes, self.width = p.n_classes, p.embed_dim
        self.embedding = nn.Embedding(p.n_classes, p.embed_dim)

    def forward(self, class_ids):
        return self.embedding(class_ids[:, None])


class EncoderAttention(nn.Module):
    def __init__(self, width, heads, dim_head):
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = (nn.Linear(width, heads * dim_head, bias=False) for _ in range(3))
        self.to_out = nn.Linear(heads * dim_head, width)

    def forward(self, x):
        split = lambda t: t.reshape(t.shape[0], t.shape[1], self.heads, -1).transpose(1, 2)
        q, k, v = split(self.to_q(x)), split(self.to_k(x)), split(self.to_v(x))
        weights = (q @ k.transpose(2, 3) * q.shape[-1] ** -0.5).softmax(dim=-1)
        return self.to_out((weights @ v).transpose(1, 2).reshape(x.shape[0], x.shape[1], -1))


class TransformerEncoder(nn.Module):
    """Tokens through a transformer with learned positions and nothing masked: the encoder of captions, whose tokens
    are BERT's, and of layouts."""

    def __init__(self, params):
        super().__init__()
        known = dict(n_embed=..., n_layer=..., vocab_size=30522, max_seq_len=77, use_tokenizer=True, heads=8, dim_head=64)
        p = self.params = take(params, "cond_stage_config", known, ignored=("device", "embedding_dropout"))
        inner = self.transformer = nn.Module()
        inner.token_emb = nn.Embedding(p.vocab_size, p.n_embed)
        inner.pos_emb = nn.Module()
        inner.pos_emb.emb = nn.Embedding(p.max_seq_len, p.n_embed)
        inner.attn_layers = nn.Module()
        inner.attn_layers.layers = nn.ModuleList()
        for _ in range(p.n_layer):
            for layer in (EncoderAttention(p.n_embed, p.heads, p.dim_head), FeedForward(p.n_embed, gated=False)):
                inner.attn_layers.layers.append(nn.ModuleList([nn.LayerNorm(p.n_embed), layer]))
        inner.norm = nn.LayerNorm(p.n_embed)
        inner.to_logits = nn.Linear(p.n_embed, p.vocab_size)  # in every checkpoint; not used here

    def forward(self, tokens):
        inner = self.transformer
        x = inner.token_emb(tokens) + inner.pos_emb.emb(torch.arange(tokens.shape[1], device=tokens.device))
        for before, layer in inner.attn_layers.layers:
            x = layer(before(x)) + x
        return inner.norm(x)


class SpatialRescaler(nn.Module):
    """Shrinks a label map and mixes its channels."""

    def __init__(self, params):
        super().__init__()
        known = dict(n_stages=1, method="bilinear", multiplier=0.5, in_channels=3, out_channels=None, bias=False)
        p = self.params = take(params, "cond_stage_config", known)
        if p.out_channels is not None:
            self.channel_mapper = nn.Conv2d(p.in_channels, p.out_channels, 1, bias=p.bias)

    def forward(self, x):
        for _ in range(self.params.n_stages):
            x = F.interpolate(x, scale_factor=self.params.multiplier, mode=self.params.method)
        return x if self.params.out_channels is None else self.channel_mapper(x)


# ---------------------------------------------------------------- the whole

CONDITIONERS = {
    "ClassEmbedder": ClassEmbedder,
    "BERTEmbedder": TransformerEncoder,
    "TransformerEmbedder": TransformerEncoder,
    "SpatialRescaler": SpatialRescaler,
}


class LatentDiffusion:
    """A latent diffusion model as its YAML describes it, without weights."""

    def __init__(self, config):
        known = dict(
            first_stage_config=...,
            cond_stage_config=...,
            unet_config=...,
            linear_start=1e-4,
            linear_end=2e-2,
            cosine_s=8e-3,
            beta_schedule="linear",
            timesteps=1000,
            image_size=256,
            channels=3,
            conditioning_key=None,
            concat_mode=True,
            cond_stage_key="image",
            scale_factor=1.0,
            scale_by_std=False,
            use_ema=True,
            parameterization="eps",
        )
        p = self.params = types.SimpleNamespace(
            **{k: config["model"]["params"].get(k, default) for k, default in known.items()}
        )
        for name in ("unet_config", "first_stage_config", "cond_stage_config"):
            if getattr(p, name) is ...:
                raise Unsupported(f"the configuration has no {name}: is it a latent diffusion model's?")
        stage, cond = p.first_stage_config, p.cond_stage_config
        self.key = p.conditioning_key or ("concat" if p.concat_mode else "crossattn")
        self.conditioner, target = None, cond
        if cond == "__is_unconditional__":
            self.key = None
        elif isinstance(cond, dict):
            target = cond["target"].rsplit(".", 1)[1]
            if target in CONDITIONERS:
                params = dict(cond.get("params") or {})
                if target == "TransformerEmbedder":  # the same without a tokenizer
                    params = {"use_tokenizer": False} | params
                self.conditioner = CONDITIONERS[target](params)
            elif target != "Identity":
                raise Unsupported(f"cond_stage_config: {cond['target']} is not known")
        self.system = self.name_of(target)
        self.unet = UNet(p.unet_config["params"])
        self.first_stage = FirstStage(stage["target"], stage["params"])
        self.scale_factor = p.scale_factor

    def name_of(self, target):
        """Identifies the system of the paper."""
        if self.key is None:
            return "unconditional"
        if self.key == "adm" or target == "ClassEmbedder":
            return "class-conditional"
        if self.key == "crossattn" and target == "Identity":
            return "retrieval"
        if self.key == "crossattn" and isinstance(self.conditioner, TransformerEncoder):
            return "text-to-image" if self.conditioner.params.use_tokenizer else "layout"
        if self.key == "concat" and target == "SpatialRescaler":
            return "semantic"
        if self.key == "concat" and target == "__is_first_stage__":
            return "inpaint"
        if self.key == "concat" and target == "Identity":
            return "super-resolution"
        raise Unsupported(f"a model with conditioning_key {self.key!r} and cond_stage_config {target}")

    def parts(self):
        """Every module by the prefix of its names in a checkpoint."""
        parts = {"model.diffusion_model.": self.unet, "first_stage_model.": self.first_stage}
        if self.conditioner is not None:
            parts["cond_stage_model."] = self.conditioner
        return parts

    @property
    def betas(self):
        p, n = self.params, self.params.timesteps
        line = lambda a, b: torch.linspace(a, b, n, dtype=torch.float64)
        if p.beta_schedule == "linear":
            return line(p.linear_start**0.5, p.linear_end**0.5) ** 2
        if p.beta_schedule == "sqrt_linear":
            return line(p.linear_start, p.linear_end)
        if p.beta_schedule == "sqrt":
            return line(p.linear_start, p.linear_end) ** 0.5
        if p.beta_schedule == "cosine":
            at = torch.arange(n + 1, dtype=torch.float64) / n + p.cosine_s
            bars = torch.cos(at / (1 + p.cosine_s) * math.pi / 2) ** 2
            return (1 - bars[1:] / bars[:-1]).clamp(0, 0.999)
        raise Unsupported(f"beta_schedule {p.beta_schedule!r} is not known")

    def load_state(self, state):
        """Takes a checkpoint's weights. The averaged ones stand in it under names without dots."""
        for prefix, module in self.parts().items():
            wanted = {k: v.shape for k, v in module.state_dict().items()}
            if prefix == "model.diffusion_model." and self.params.use_ema:
                shadows = {k: "model_ema." + ("diffusion_model." + k).replace(".", "") for k in wanted}
                names = {k: s if s in state else prefix + k for k, s in shadows.items()}
                missing = sum(n.startswith(prefix) for n in names.values())
                if 0 < missing < len(names):
                    raise Unsupported(f"the checkpoint averages some of the UNet's weights and lacks {missing} others")
            else:
                names = {k: prefix + k for k in wanted}
            lacking = [n for n in names.values() if n not in state]
            if lacking:
                raise Unsupported(f"the checkpoint lacks {len(lacking)} weights: {', '.join(lacking[:3])} …")
            odd = [n for k, n in names.items() if state[n].shape != wanted[k]]
            if odd:
                name = next(k for k, n in names.items() if n == odd[0])
                shapes = f"{tuple(state[odd[0]].shape)} in the checkpoint, {tuple(wanted[name])} by the configuration"
                raise Unsupported(f"{odd[0]} is {shapes} ({len(odd)} weights do not fit)")
            left = [k for k in state if k.startswith(prefix) and k[len(prefix) :] not in wanted]
            left = [k for k in left if ".loss." not in k and not k.startswith(prefix + "model_ema.")]
            if left:
                raise Unsupported(f"the checkpoint holds {left[0]} and {len(left) - 1} more that the model has no place for")
            module.load_state_dict({k: state[n].float() for k, n in names.items()}, strict=True)
            module.eval().requires_grad_(False)
        if self.params.scale_by_std:
            if "scale_factor" not in state:
                raise Unsupported("the configuration says scale_by_std, but the checkpoint holds no scale_factor")
            self.scale_factor = float(state["scale_factor"])
        return self


# ---------------------------------------------------------------- files


class Placeholder:
    """Stands for objects in a checkpoint that are not weights: nothing that it names is run."""

    def __init__(self, *_, **__):
        pass

    def __setstate__(self, _):
        pass


class OnlyWeights(pickle.Unpickler):
    def find_class(self, module, name):
        if module.split(".")[0] == "torch" and (module, name) in {
            ("torch._utils", "_rebuild_tensor_v2"),
            ("torch._utils", "_rebuild_parameter"),
            ("torch", "Size"),
        }:
            return super().find_class(module, name)
        if module in ("torch", "torch.storage") and name.endswith("Storage"):
            return super().find_class(module, name)
        if (module, name) in {("collections", "OrderedDict"), ("builtins", "dict"), ("builtins", "set")}:
            return super().find_class(module, name)
        return Placeholder


def read_state(path):
    """The weights in a .safetensors or .ckpt file. Checkpoints of the time also hold the objects of their training
    framework, which are skipped and not run."""
    if path.endswith(".safetensors"):
        from safetensors.torch import load_file

        return load_file(path)
    try:
        holds = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        load = lambda f, **keys: OnlyWeights(f, **keys).load()
        reader = types.SimpleNamespace(Unpickler=OnlyWeights, load=load, __name__="only_weights")
        holds = torch.load(path, map_location="cpu", pickle_module=reader, weights_only=False)
    return holds.get("state_dict", holds)


def load(checkpoint, config):
    """A model with its weights."""
    import yaml

    with open(config, encoding="utf-8") as f:
        model = LatentDiffusion(yaml.safe_load(f))
    return model.load_state(read_state(checkpoint))
