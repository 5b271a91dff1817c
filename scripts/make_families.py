#!/usr/bin/env python3
"""Makes tests/fixtures/families: Stable Diffusion's relatives, each a few kilobytes of random weights.

Run from the root of the repository:

    python -m pip install -r scripts/requirements.txt
    python scripts/make_families.py [NAME...]

Each is built from diffusers' and transformers' classes, saved as a checkpoint and exported by scripts/export.py. Every
weight comes from a fixed seed and is one that float16 holds, so half precision stores it as it is;
scripts/golden_families.py runs the same modules in PyTorch.

    control    two ControlNets beside the UNet        depth      5 channels: the latent and a depth map
    inpaint    9 channels: latent, mask, masked       lcm        told of the guidance scale, as consistency models are
    instruct   8 channels: latent and picture         xl         two text encoders, sizes and crop
    upscale    7 channels and the noise's level       refiner    the second encoder alone, and an aesthetic score
    sd3        a transformer, 16 channels, three text encoders, the third T5's
    flux-dev   a transformer over samples packed into tokens, told of the guidance scale
    flux-schnell  one that is not told; its other graphs are those of flux-dev
    lcm-plain  the same as lcm under Stable Diffusion's class; its graphs are those of lcm
    sd3-clip   the same without T5; its graphs are those of sd3
    pixart-sigma  a transformer told which of T5's tokens are padding; its first stage is that of xl
    pixart-alpha  one that is told the picture's size too, and nothing else: the rest is that of pixart-sigma
    sana       a transformer with linear attention, 32 channels, an AutoencoderDC, and Gemma 2
"""

import inspect
import json
import os
import shutil
import sys
import tempfile
import warnings

import diffusers
import numpy as np
import onnx
import torch
from diffusers import AutoencoderDC, AutoencoderKL, ControlNetModel, UNet2DConditionModel
from diffusers import FluxTransformer2DModel, PixArtTransformer2DModel, SD3Transformer2DModel, SanaTransformer2DModel
from onnx import numpy_helper
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer
from transformers import Gemma2Config, Gemma2Model, GemmaTokenizerFast
from transformers import T5Config, T5EncoderModel, T5TokenizerFast

import export
from make_fixtures import CONTEXT, CORPUS, VOCABULARY, seeded, shorten, write_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "families")


def holdable(model):
    """With the weights rounded to what float16 holds."""
    return model.half().float()


def text_encoder(seed, projected=False):
    config = CLIPTextConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        projection_dim=16,
        bos_token_id=VOCABULARY - 2,
        eos_token_id=VOCABULARY - 1,
        pad_token_id=VOCABULARY - 1,
        hidden_act="gelu" if projected else "quick_gelu",
        attn_implementation="eager",
    )
    kind = CLIPTextModelWithProjection if projected else CLIPTextModel
    return holdable(seeded(seed, lambda: kind(config), loud=("embedding.weight",), gain=20.0))


LOUD = ("attn2.to_v", "attn2.to_out.0.weight", "proj_out.weight", "time_emb_proj.weight")


def unet(seed, channels=4, context=16, **more):
    make = lambda: UNet2DConditionModel(
        sample_size=8,
        in_channels=channels,
        out_channels=4,
        block_out_channels=(8, 8),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
        cross_attention_dim=context,
        attention_head_dim=4,
        **more,
    )
    return holdable(seeded(seed, make, loud=LOUD, gain=2.0))


def first_stage(seed, scaling=0.18215, channels=4, **more):
    make = lambda: AutoencoderKL(
        block_out_channels=(8, 8, 8),
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=channels,
        sample_size=32,
        scaling_factor=scaling,
        **more,
    )
    return holdable(seeded(seed, make, loud=("decoder.conv_out.weight", "encoder.conv_out.weight"), gain=2.0))


def t5(seed, width, rows=322, layers=2, head=8):
    config = T5Config(
        vocab_size=rows,
        d_model=width,
        d_kv=head,
        d_ff=4 * head,
        num_layers=layers,
        num_heads=2,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj="gated-gelu",
    )
    return holdable(seeded(seed, lambda: T5EncoderModel(config), loud=("relative_attention_bias", ".v.", ".o."), gain=4.0))


def sd3_transformer(seed, context):
    """As in version 3.5: norms over queries and keys, and a first block that attends to the picture twice."""
    make = lambda: SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=16,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=context,
        caption_projection_dim=16,
        pooled_projection_dim=32,
        out_channels=16,
        pos_embed_max_size=16,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )
    return holdable(seeded(seed, make, loud=("context_embedder", "proj_out", "linear.weight", "to_out"), gain=3.0))


def flux_transformer(seed, context, guided):
    make = lambda: FluxTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=context,
        pooled_projection_dim=16,
        guidance_embeds=guided,
        axes_dims_rope=(2, 2, 4),
    )
    return holdable(seeded(seed, make, loud=("context_embedder", "proj_out", "linear.weight", "to_out"), gain=3.0))


# The columns of the weights that times and sizes go through first repeat after so many.
PERIOD = 16


def pixart_transformer(seed, width, told_sizes):
    make = lambda: PixArtTransformer2DModel(
        sample_size=128,
        use_additional_conditions=told_sizes,
        num_layers=1,
        attention_head_dim=width // 2,
        num_attention_heads=2,
        cross_attention_dim=width,
        caption_channels=8,
    )
    loud = ("caption_projection", "proj_out", "linear.weight", "to_v", "to_out")
    model = holdable(seeded(seed, make, loud=loud, gain=3.0))
    for name, p in model.named_parameters():
        if name.endswith("embedder.linear_1.weight"):
            p.copy_(p[:, :PERIOD].repeat(1, p.shape[1] // PERIOD))
    return model


def tiled(proto):
    """With one period of the weights that repeat stored, and the rest made of it."""
    for tensor in proto.graph.initializer:
        array = numpy_helper.to_array(tensor)
        times = array.shape[1] // PERIOD if array.ndim == 2 else 1
        if times > 1 and np.array_equal(array, np.tile(array[:, :PERIOD], (1, times))):
            name, repeats = tensor.name, np.array([1, times])
            tensor.CopyFrom(numpy_helper.from_array(array[:, :PERIOD].copy(), f"{name}_period"))
            proto.graph.initializer.append(numpy_helper.from_array(repeats, f"{name}_times"))
            inputs = [f"{name}_period", f"{name}_times"]
            proto.graph.node.insert(0, onnx.helper.make_node("Tile", inputs, [name]))
    return proto


def letters():
    """The T5 tokenizer of tests/fixtures with those of its pieces that are one letter in lower case, or a mark."""
    with open(f"{ROOT}/../tokenizer-t5/tokenizer.json", encoding="utf-8") as f:
        spelt = json.load(f)
    special, pieces = spelt["model"]["vocab"][:3], spelt["model"]["vocab"][3:-2]
    kept = lambda piece: len(piece.strip("▁")) <= 1 and (piece.strip("▁").islower() or piece in ("▁", ",", "."))
    spelt["model"]["vocab"] = special + [[piece, score] for piece, score in pieces if kept(piece)]
    spelt["added_tokens"] = spelt["added_tokens"][:3]
    spelt["normalizer"]["normalizers"] = spelt["normalizer"]["normalizers"][1:]
    return T5TokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(spelt)), extra_ids=0, additional_special_tokens=[], model_max_length=512
    )


def sana_transformer(seed, width):
    make = lambda: SanaTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=width // 2,
        num_layers=2,
        num_cross_attention_heads=2,
        cross_attention_head_dim=width // 2,
        cross_attention_dim=width,
        caption_channels=16,
    )
    loud = ("caption_projection", "proj_out", "linear.weight", "to_v", "to_out", "conv_point")
    model = holdable(seeded(seed, make, loud=loud, gain=3.0))
    for name, p in model.named_parameters():
        if name.endswith("embedder.linear_1.weight"):
            p.copy_(p[:, :PERIOD].repeat(1, p.shape[1] // PERIOD))
    return model


def deep_compression(seed):
    """As Sana's: 32 pixels a side per latent, residual blocks, and where the latents are small linear attention."""
    blocks = ("ResBlock",) * 5 + ("EfficientViTBlock",)
    channels = (4, 4, 8, 8, 16, 32)
    scales = [[]] * 5 + [[5]]
    make = lambda: AutoencoderDC(
        attention_head_dim=8,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=channels,
        decoder_block_out_channels=channels,
        encoder_layers_per_block=(1,) * 6,
        decoder_layers_per_block=(1,) * 6,
        encoder_qkv_multiscales=scales,
        decoder_qkv_multiscales=scales,
        upsample_block_type="interpolate",
        downsample_block_type="Conv",
        scaling_factor=0.41407,
    )
    return holdable(seeded(seed, make, loud=("decoder.conv_out.weight", "encoder.conv_out.weight"), gain=2.0))


def gemma(seed, rows):
    config = Gemma2Config(
        vocab_size=rows,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        query_pre_attn_scalar=8,
    )
    model = seeded(seed, lambda: Gemma2Model(config), loud=("embed_tokens", "proj"), gain=20.0)
    # no weights, and not saved as such
    frequencies = model.rotary_emb.inv_freq.clone()
    model = holdable(model)
    model.rotary_emb.inv_freq.copy_(frequencies)
    return model


def instruction():
    """What Sana's pipeline puts before every prompt."""
    return "\n".join(inspect.signature(diffusers.SanaPipeline.__call__).parameters["complex_human_instruction"].default)


def gemma_tokenizer(merges=220):
    """Byte pairs over words that begin with their blank; what has no token becomes the tokens of its bytes."""
    special = ["<pad>", "<eos>", "<bos>", "<unk>"]
    text = f"{CORPUS} {instruction()}"
    letters = sorted({c for c in text + "0123456789" if c.isascii() and c.isprintable() and c != " "})
    words = {}
    for word in text.replace("\n", " ").split():
        pieces = ("▁", *word)
        words[pieces] = words.get(pieces, 0) + 1
    learnt = []
    for _ in range(merges):
        pairs = {}
        for pieces, count in words.items():
            for pair in zip(pieces, pieces[1:]):
                pairs[pair] = pairs.get(pair, 0) + count
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        learnt.append(best)
        words = {merged(pieces, best): count for pieces, count in words.items()}
    listed = special + [f"<0x{byte:02X}>" for byte in range(256)] + ["\n", "▁"] + letters
    listed += ["".join(pair) for pair in learnt]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(listed))}
    model = models.BPE(vocabulary, learnt, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return GemmaTokenizerFast(tokenizer_object=tokenizer)


def merged(pieces, pair):
    out = []
    for piece in pieces:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return tuple(out)


def controlnet(seed, of):
    """A ControlNet with a say: its last layers are zero in one that is new."""
    net = ControlNetModel.from_unet(of, conditioning_embedding_out_channels=(4, 8, 8))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn(p.shape, generator=generator) * 0.15)
    return holdable(net.eval().requires_grad_(False))


def scheduler(name="DDIMScheduler", **keys):
    betas = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
    if name == "DDIMScheduler":
        betas |= {"clip_sample": False, "set_alpha_to_one": False}
    return getattr(diffusers, name)(**(betas | keys))


def widened(proto):
    """With the weights of linear layers and convolutions in float32, so that what a LoRA adds to them is not rounded."""
    graph = proto.graph
    stored = {i.name: i for i in graph.initializer}
    casts = {n.output[0]: n for n in graph.node if n.op_type == "Cast" and n.input[0] in stored}
    for node in [n for n in graph.node if n.op_type in ("Conv", "Gemm", "MatMul")]:
        if cast := casts.pop(node.input[1], None):
            tensor = stored[cast.input[0]]
            wide = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(wide, cast.output[0]))
            graph.node.remove(cast)
    return proto


# The families whose graphs LoRAs are added to.
WITH_MODULES = ("xl",)
XL = {"addition_embed_type": "text_time", "addition_time_embed_dim": 8}


def pipelines(tokenizer):
    """Every pipeline by name, as a function that builds it."""
    plain = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    parts = lambda seed: {"text_encoder": text_encoder(seed), "tokenizer": tokenizer, "vae": first_stage(seed + 1)}

    def control():
        base = unet(503)
        nets = [controlnet(504, base), controlnet(505, base)]
        return diffusers.StableDiffusionControlNetPipeline(
            unet=base, controlnet=nets, scheduler=scheduler(), **parts(501), **plain
        )

    def inpaint():
        return diffusers.StableDiffusionInpaintPipeline(unet=unet(513, 9), scheduler=scheduler(), **parts(511), **plain)

    def instruct():
        sampler = scheduler("EulerAncestralDiscreteScheduler")
        return diffusers.StableDiffusionInstructPix2PixPipeline(unet=unet(523, 8), scheduler=sampler, **parts(521), **plain)

    def upscale():
        made = parts(531) | {"vae": first_stage(532, 0.08333)}
        return diffusers.StableDiffusionUpscalePipeline(
            unet=unet(533, 7, num_class_embeds=40),
            scheduler=scheduler(prediction_type="v_prediction", beta_schedule="scaled_linear", beta_start=1e-4, beta_end=0.02),
            low_res_scheduler=diffusers.DDPMScheduler(beta_schedule="scaled_linear", beta_start=1e-4, beta_end=0.02),
            max_noise_level=39,
            **made,
        )

    def lcm():
        sampler = diffusers.LCMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
        return diffusers.LatentConsistencyModelPipeline(
            unet=unet(543, time_cond_proj_dim=8), scheduler=sampler, **parts(541), **plain
        )

    def lcm_plain():
        parts = {name: part for name, part in lcm().components.items() if name != "image_encoder"}
        return diffusers.StableDiffusionPipeline(**parts, requires_safety_checker=False)

    def depth():
        # what estimates depth is not run: the depth map is given
        return diffusers.StableDiffusionDepth2ImgPipeline(
            unet=unet(573, 5), scheduler=scheduler(), depth_estimator=None, feature_extractor=None, **parts(571)
        )

    def xl():
        return diffusers.StableDiffusionXLPipeline(
            text_encoder_2=text_encoder(552, True),
            tokenizer_2=tokenizer,
            unet=unet(553, context=32, projection_class_embeddings_input_dim=16 + 6 * 8, **XL),
            scheduler=scheduler("EulerDiscreteScheduler", timestep_spacing="leading"),
            **(parts(551) | {"vae": first_stage(554, 0.13025)}),
        )

    def refiner():
        return diffusers.StableDiffusionXLImg2ImgPipeline(
            text_encoder=None,
            tokenizer=None,
            text_encoder_2=text_encoder(552, True),
            tokenizer_2=tokenizer,
            unet=unet(563, context=16, projection_class_embeddings_input_dim=16 + 5 * 8, **XL),
            vae=first_stage(554, 0.13025),
            scheduler=scheduler("EulerDiscreteScheduler", timestep_spacing="leading"),
            requires_aesthetics_score=True,
            force_zeros_for_empty_prompt=False,
        )

    def sd3():
        return diffusers.StableDiffusion3Pipeline(
            transformer=sd3_transformer(583, 40),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
            vae=first_stage(582, 1.5305, 16, shift_factor=0.0609, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=text_encoder(581, True),
            tokenizer=tokenizer,
            text_encoder_2=text_encoder(584, True),
            tokenizer_2=tokenizer,
            text_encoder_3=t5(585, 40),
            tokenizer_3=T5TokenizerFast.from_pretrained(f"{ROOT}/../tokenizer-t5"),
        )

    def sd3_clip():
        pipe = sd3()
        pipe.register_modules(text_encoder_3=None, tokenizer_3=None)
        return pipe

    def flux(guided):
        return diffusers.FluxPipeline(
            transformer=flux_transformer(593 + guided, 40, guided),
            scheduler=diffusers.FlowMatchEulerDiscreteScheduler(
                shift=3.0 if guided else 1.0, use_dynamic_shifting=guided
            ),
            vae=first_stage(592, 0.3611, 16, shift_factor=0.1159, use_quant_conv=False, use_post_quant_conv=False),
            text_encoder=text_encoder(591),
            tokenizer=tokenizer,
            text_encoder_2=t5(585, 40),
            tokenizer_2=T5TokenizerFast.from_pretrained(f"{ROOT}/../tokenizer-t5"),
        )

    def flux_dev():
        return flux(True)

    def flux_schnell():
        return flux(False)

    def pixart(kind, transformer):
        betas = {"beta_start": 1e-4, "beta_end": 0.02, "beta_schedule": "linear"}
        words = letters()
        return kind(
            tokenizer=words,
            text_encoder=t5(601, 8, len(words), 1, 4),
            vae=first_stage(554, 0.13025),
            transformer=transformer,
            scheduler=diffusers.DPMSolverMultistepScheduler(**betas),
        )

    def pixart_sigma():
        return pixart(diffusers.PixArtSigmaPipeline, pixart_transformer(603, 8, False))

    def pixart_alpha():
        return pixart(diffusers.PixArtAlphaPipeline, pixart_transformer(604, 12, True))

    def sana():
        words = gemma_tokenizer()
        return diffusers.SanaPipeline(
            tokenizer=words,
            text_encoder=gemma(611, len(words)),
            vae=deep_compression(612),
            transformer=sana_transformer(613, 16),
            scheduler=diffusers.DPMSolverMultistepScheduler(
                beta_start=1e-4, beta_end=0.02, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
            ),
        )

    by_mask = (pixart_sigma, pixart_alpha, sana)
    made = (control, inpaint, instruct, upscale, lcm, lcm_plain, depth, xl, refiner, sd3, sd3_clip, flux_dev, flux_schnell)
    return {f.__name__.replace("_", "-"): f for f in made + by_mask}


# Fixtures whose graphs are those of another: each is named in the pipelines that use it.
GRAPHS = {
    "lcm-plain": {
        name: f"lcm/{name}/model.onnx" for name in ("text_encoder", "unet", "vae_encoder", "vae_decoder")
    },
    "sd3-clip": {
        name: f"sd3/{name}/model.onnx"
        for name in ("text_encoder", "text_encoder_2", "transformer", "vae_encoder", "vae_decoder")
    },
    "flux-schnell": {
        name: f"flux-dev/{name}/model.onnx" for name in ("text_encoder", "text_encoder_2", "vae_encoder", "vae_decoder")
    },
    "pixart-sigma": {name: f"xl/{name}/model.onnx" for name in ("vae_encoder", "vae_decoder")},
    "pixart-alpha": {"transformer": "pixart-alpha/transformer/model.onnx"}
    | {name: f"xl/{name}/model.onnx" for name in ("vae_encoder", "vae_decoder")},
}

# Fixtures of one graph, which stands in another's folder for the one there.
WITHIN = {"pixart-alpha": "pixart-sigma"}


def is_own(name, part, file):
    """Returns true if a fixture holds this file: not a graph of another fixture, and only its own graphs within another."""
    graph = GRAPHS.get(name, {}).get(part, "" if name in WITHIN else f"{name}/")
    return graph.startswith(f"{name}/") if file == "model.onnx" else name not in WITHIN


def tiny_tokenizer(folder):
    write_tokenizer(folder, "<|endoftext|>")
    return CLIPTokenizer.from_pretrained(folder)


def main(only):
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    with tempfile.TemporaryDirectory() as temp:
        for name, build in pipelines(tiny_tokenizer(f"{temp}/tokenizer")).items():
            if only and name not in only:
                continue
            print(f"--- {name}")
            build().save_pretrained(f"{temp}/{name}")
            out = f"{ROOT}/{name}"
            shutil.rmtree(out, ignore_errors=True)
            export.main([f"{temp}/{name}", out, "--dtype", "half", "--tolerance", "1e-5"])
            total = 0
            for base, _, files in os.walk(out):
                for f in files:
                    path = os.path.join(base, f)
                    if not is_own(name, os.path.basename(base), f):
                        os.remove(path)
                        continue
                    if f in ("tokenizer.json", "vocab.json"):
                        with open(path, encoding="utf-8") as read:
                            spelt = json.load(read)
                        with open(path, "w", encoding="utf-8") as written:
                            json.dump(spelt, written, ensure_ascii=False, separators=(",", ":"))
                    if f == "model.onnx":
                        graph = onnx.load(path)
                        changes = name in WITH_MODULES and not f"{base}/".endswith(("vae_encoder/", "vae_decoder/"))
                        graph = shorten(widened(graph), True) if changes else shorten(graph, False)
                        onnx.save(tiled(graph) if name.startswith(("pixart", "sana")) else graph, path)
                    total += os.path.getsize(path)
            print(f"{total:,} bytes")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
