#!/usr/bin/env python3
"""Makes tests/fixtures/systems: the latent diffusion paper's systems, each a few kilobytes of random weights, and
tests/fixtures/tokenizer-bert-json: the tokenizer of text-bert as the one file tokenizer.json.

Run from the root of the repository:

    python -m pip install -r scripts/requirements.txt
    python scripts/make_systems.py [NAME...]

Each model is first a checkpoint with its YAML, as the paper's code leaves them (optimizer's averages, the first stage's
and the conditioner's weights in the one file), and then what scripts/export.py makes of it. The configurations are those
of the published models with fewer and narrower layers. Every weight comes from a fixed seed and is one that float16
holds, so half precision stores it as it is. scripts/golden_systems.py opens the same checkpoints and samples from them.
"""

import copy
import os
import shutil
import sys
import tempfile
import warnings

import numpy as np
import onnx
import torch
import yaml

import compvis
import export
from make_fixtures import CONTEXT, VOCABULARY, shorten, write_json, write_tokenizer

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "fixtures", "systems")
NEIGHBOURS = 24

# ---- the configurations --------------------------------------------------------------------------------------------


def unet(size, channels, out, **more):
    return {
        "target": "ldm.modules.diffusionmodules.openaimodel.UNetModel",
        "params": {
            "image_size": size,
            "in_channels": channels,
            "out_channels": out,
            "model_channels": 4,
            "num_res_blocks": 1,
            "norm_groups": 2,
        }
        | more,
    }


def first_stage(kind, latent, mult, size, **more):
    params = {
        "embed_dim": latent,
        "ddconfig": {
            "double_z": kind == "kl",
            "z_channels": latent,
            "resolution": size,
            "in_channels": 3,
            "out_ch": 3,
            "ch": 4,
            "ch_mult": mult,
            "num_res_blocks": 1,
            "attn_resolutions": [],
            "dropout": 0.0,
            "norm_groups": 2,
        }
        | more,
        "lossconfig": {"target": "torch.nn.Identity"},
    }
    if kind == "vq":
        params["n_embed"] = 64
    name = "VQModelInterface" if kind == "vq" else "AutoencoderKL"
    return {"target": f"ldm.models.autoencoder.{name}", "params": params}


def system(betas, size, channels, unet_config, first_stage_config, cond="__is_unconditional__", **more):
    params = {
        "linear_start": betas[0],
        "linear_end": betas[1],
        "timesteps": 1000,
        "image_size": size,
        "channels": channels,
        "unet_config": unet_config,
        "first_stage_config": first_stage_config,
        "cond_stage_config": cond,
    }
    return {"model": {"target": "ldm.models.diffusion.ddpm.LatentDiffusion", "params": params | more}}


def conditioner(name, **params):
    return {"target": f"ldm.modules.encoders.modules.{name}", "params": params}


def transformer(context, **more):
    """Wider than the rest: among as few as 4 values a layer norm blows rounding up."""
    plain = {"use_spatial_transformer": True, "transformer_depth": 1, "context_dim": context, "model_channels": 8}
    return plain | {"channel_mult": [1, 1]} | more


IDENTITY = {"target": "torch.nn.Identity"}

CONFIGS = {
    # CelebA-HQ, FFHQ, bedrooms
    "uncond-vq": system(
        (0.0015, 0.0195),
        8,
        3,
        unet(8, 3, 3, attention_resolutions=[2], channel_mult=[1, 2], num_head_channels=4),
        first_stage("vq", 3, [1, 1, 2], 32),
    ),
    # churches
    "uncond-kl": system(
        (0.0015, 0.0155),
        8,
        4,
        unet(
            8,
            4,
            4,
            attention_resolutions=[2],
            channel_mult=[1, 2],
            num_heads=2,
            use_scale_shift_norm=True,
            resblock_updown=True,
        ),
        first_stage("kl", 4, [1, 1, 1, 2], 64),
        scale_by_std=True,
    ),
    # ImageNet with guidance
    "class-embedder": system(
        (0.0015, 0.0195),
        8,
        3,
        unet(8, 3, 3, attention_resolutions=[2], num_heads=1, **transformer(12)),
        first_stage("vq", 3, [1, 1, 2], 32),
        conditioner("ClassEmbedder", n_classes=11, embed_dim=12, key="class_label"),
        conditioning_key="crossattn",
        cond_stage_key="class_label",
        cond_stage_trainable=True,
        use_ema=False,
    ),
    # the other way to tell the UNet of a class: a table of its own
    "class-labels": system(
        (0.0015, 0.0195),
        8,
        3,
        unet(8, 3, 3, attention_resolutions=[2], channel_mult=[1, 2], num_heads=2, num_classes=11),
        first_stage("kl", 3, [1, 1, 2], 32),
        IDENTITY,
        conditioning_key="adm",
        cond_stage_key="class_label",
        scale_factor=0.5,
    ),
    "super-resolution": system(
        (0.0015, 0.0155),
        16,
        3,
        unet(16, 6, 3, attention_resolutions=[2], channel_mult=[1, 2], num_head_channels=4),
        first_stage("vq", 3, [1, 1, 2], 64),
        IDENTITY,
        concat_mode=True,
        cond_stage_key="LR_image",
    ),
    "inpaint": system(
        (0.0015, 0.0205),
        16,
        3,
        unet(16, 7, 3, attention_resolutions=[2], channel_mult=[1, 2], num_heads=2, resblock_updown=True),
        first_stage("vq", 3, [1, 1, 2], 64, attn_type="none"),
        "__is_first_stage__",
        concat_mode=True,
        cond_stage_key="masked_image",
    ),
    # LAION
    "text-bert": system(
        (0.00085, 0.012),
        8,
        4,
        unet(8, 4, 4, attention_resolutions=[2, 1], num_heads=2, legacy=False, **transformer(16)),
        first_stage("kl", 4, [1, 1, 1, 2], 64),
        conditioner("BERTEmbedder", n_embed=16, n_layer=2, vocab_size=..., heads=2, dim_head=8),
        conditioning_key="crossattn",
        cond_stage_key="caption",
        cond_stage_trainable=True,
        scale_factor=0.18215,
        use_ema=False,
    ),
    # OpenImages
    "layout": system(
        (0.0015, 0.0205),
        8,
        3,
        unet(
            8,
            3,
            3,
            attention_resolutions=[2],
            num_head_channels=4,
            **transformer(8, transformer_depth=3),
        ),
        first_stage("vq", 3, [1, 1, 2], 32),
        conditioner(
            "BERTEmbedder",
            n_embed=8,
            n_layer=2,
            vocab_size=8192,
            max_seq_len=92,
            use_tokenizer=False,
            heads=2,
            dim_head=4,
        ),
        conditioning_key="crossattn",
        cond_stage_key="coordinates_bbox",
        cond_stage_trainable=True,
    ),
    # landscapes; its three levels attend in the middle only
    "semantic": system(
        (0.0015, 0.0205),
        8,
        3,
        unet(8, 6, 3, attention_resolutions=[32, 16, 8], channel_mult=[1, 1, 2], num_heads=2),
        first_stage("vq", 3, [1, 1, 2], 32),
        conditioner("SpatialRescaler", n_stages=2, in_channels=12, out_channels=3),
        concat_mode=True,
        cond_stage_key="segmentation",
        cond_stage_trainable=True,
    ),
    "retrieval": system(
        (0.0015, 0.015),
        4,
        16,
        unet(4, 16, 16, attention_resolutions=[2, 1], num_head_channels=4, **transformer(16)),
        first_stage("kl", 16, [1, 1, 1, 1, 2], 64, attn_resolutions=[4]),
        IDENTITY,
        conditioning_key="crossattn",
        cond_stage_key="nix",
        scale_factor=0.22765929,
    ),
}

CLASSES = "ant bear crow deer eel fox goat hare ibis jay".split()
LAYOUT_CLASSES = "person tree house dog car boat flower chair window cloud hat bird".split()

# ---- weights -------------------------------------------------------------------------------------------------------


def holdable(t):
    """The values that float16 holds."""
    return t.half().float()


def randomise(module, seed, loud=()):
    """Weights at which a tiny network listens to all that it is told; those of names in `loud` are twice as large."""
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in module.named_parameters():
            noise = torch.randn(p.shape, generator=g)
            if p.dim() < 2:
                noise = noise * 0.1 + (1.0 if name.endswith("weight") else 0.0)
            elif "emb" not in name or "emb_layers" in name:
                noise = noise * p[0].numel() ** -0.5
            if any(part in name for part in loud):
                noise = noise * 2
            p.copy_(holdable(noise))
    return module.eval()


def checkpoint(name):
    """A checkpoint of this system, and its configuration."""
    config = copy.deepcopy(CONFIGS[name])
    params = config["model"]["params"]
    cond = params["cond_stage_config"]
    if isinstance(cond, dict) and cond.get("params", {}).get("vocab_size") is ...:
        cond["params"]["vocab_size"] = len(bert_vocabulary())
    model = compvis.LatentDiffusion(config)
    seed = 100 * (list(CONFIGS).index(name) + 1)
    state = {}
    loud = ("emb_layers", "attn2.to_v", "attn2.to_out", "proj_out", "label_emb")
    for i, (prefix, module) in enumerate(model.parts().items()):
        randomise(module, seed + i, loud)
        if prefix == "first_stage_model." and model.first_stage.kind == "vq":
            quiet = torch.Generator().manual_seed(seed + 9)
            book = module.quantize.embedding.weight
            book.data.copy_(holdable(torch.randn(book.shape, generator=quiet)))
        state |= {prefix + k: v.clone() for k, v in module.state_dict().items()}
    if params.get("use_ema", True):
        # the averages are the model; what the optimizer last held is something else
        for k in [k for k in state if k.startswith("model.diffusion_model.")]:
            state["model_ema." + k[len("model.") :].replace(".", "")] = state[k].clone()
            state[k] = state[k] + 1.0
        state["model_ema.decay"] = torch.tensor(0.9999)
        state["model_ema.num_updates"] = torch.tensor(7, dtype=torch.int)
    if params.get("scale_by_std"):
        state["scale_factor"] = torch.tensor(0.22265625)
    if cond == "__is_first_stage__":
        for k in [k for k in state if k.startswith("first_stage_model.")]:
            state[k.replace("first_stage_model.", "cond_stage_model.")] = state[k].clone()
    state["betas"] = model.betas.float()
    return state, config


# ---- tokenizers, CLIP, neighbours ----------------------------------------------------------------------------------


def bert_vocabulary():
    """A small WordPiece vocabulary in the order of BERT's: pad, unused, specials, characters, pieces, words."""
    words = """a an the of on in at to and with for by from is are was red green blue yellow black white small large old
    new photo painting drawing portrait picture virus monster playing guitar astronaut riding horse moon street night
    city cat dog bird tree house flower mountain river sea sky sun light dark water fire man woman child sitting under
    above left right field forest snow rain summer winter evening morning cafe naive uber resume istanbul highly
    detailed very long beard"""
    words = words.split()
    pieces = "s ed ing er est ly ness ment able tion al ful less y n t d r e i o u an en in on".split()
    characters = list("abcdefghijklmnopqrstuvwxyz0123456789!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~éñßøæœıłđ")
    characters += list("°§«»¿¡–—…‘’“”„•€£¥©®™½²³αβγδωабвгдежиклмнопрстуאבגדابتثन中国日本人大小山水木火一了不あいうえおかアイウ한국어")
    characters = list(dict.fromkeys(characters))
    letters = [c for c in characters if c.isalnum()]
    vocabulary = ["[PAD]", "[unused0]", "[unused1]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"] + characters
    vocabulary += [w for w in words if w not in characters]
    vocabulary += ["##" + p for p in dict.fromkeys(letters + pieces)]
    assert len(set(vocabulary)) == len(vocabulary)
    return vocabulary


def write_bert(folder):
    os.makedirs(folder, exist_ok=True)
    with open(f"{folder}/vocab.txt", "w", encoding="utf-8") as f:
        f.write("".join(token + "\n" for token in bert_vocabulary()))
    special = {n + "_token": f"[{n.upper()}]" for n in ("cls", "mask", "pad", "sep", "unk")}
    write_json(f"{folder}/special_tokens_map.json", special)
    more = {
        "do_basic_tokenize": True,
        "do_lower_case": True,
        "model_max_length": 77,
        "never_split": None,
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "BertTokenizer",
    }
    write_json(f"{folder}/tokenizer_config.json", special | more)


def write_bert_as_json(folder):
    """The same tokenizer in the one file that newer checkpoints have."""
    from transformers import BertTokenizerFast

    with tempfile.TemporaryDirectory() as plain:
        write_bert(plain)
        tokenizer = BertTokenizerFast.from_pretrained(plain)
        os.makedirs(folder, exist_ok=True)
        tokenizer.backend_tokenizer.save(f"{folder}/tokenizer.json", pretty=False)
        shutil.copyfile(f"{plain}/tokenizer_config.json", f"{folder}/tokenizer_config.json")


def clip_model():
    from transformers import CLIPConfig, CLIPModel

    shape = {"intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "projection_dim": 16}
    ends = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1, "pad_token_id": VOCABULARY - 1}
    text = {"vocab_size": VOCABULARY, "hidden_size": 8, "max_position_embeddings": CONTEXT} | shape | ends
    vision = {"hidden_size": 8, "image_size": 16, "patch_size": 8} | shape
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return randomise(model, 77)


def write_clip(folder):
    clip_model().save_pretrained(folder)
    write_tokenizer(folder, "<|endoftext|>")


def neighbours():
    """Vectors to be found: random directions, with one twice to see how ties are decided."""
    vectors = np.random.RandomState(5).randn(NEIGHBOURS, 16).astype(np.float32)
    vectors[17] = vectors[4]
    return vectors


# ---- writing -------------------------------------------------------------------------------------------------------


def prepare(name, folder):
    """Writes the files that a user would start from into `folder`; returns export.py's options for them."""
    state, config = checkpoint(name)
    torch.save({"state_dict": state, "global_step": 1}, f"{folder}/model.ckpt")
    with open(f"{folder}/model.yaml", "w") as f:
        yaml.safe_dump(config, f)
    options = [f"{folder}/model.ckpt", "--config", f"{folder}/model.yaml"]

    def names(classes):
        with open(f"{folder}/classes.txt", "w") as f:
            f.write("".join(c + "\n" for c in classes))
        return ["--classes", f"{folder}/classes.txt"]

    if name.startswith("class-"):
        options += names(CLASSES) + ["--null-class", "10"]
    if name == "layout":
        options += names(LAYOUT_CLASSES)
    if name == "text-bert":
        write_bert(f"{folder}/tokenizer")
        options += ["--tokenizer", f"{folder}/tokenizer"]
    if name == "retrieval":
        write_clip(f"{folder}/clip")
        np.savez(f"{folder}/database.npz", embedding=neighbours() * 3)
        options += ["--clip", f"{folder}/clip", "--neighbours", f"{folder}/database.npz"]
    return options


def main(only):
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore")
    for name in CONFIGS:
        if only and name not in only:
            continue
        out = f"{ROOT}/{name}"
        shutil.rmtree(out, ignore_errors=True)
        print(f"--- {name}")
        with tempfile.TemporaryDirectory() as folder:
            checkpoint, *options = prepare(name, folder)
            export.main([checkpoint, out, "--dtype", "half", "--tolerance", "1e-5"] + options)
        total = 0
        for base, _, files in os.walk(out):
            for f in files:
                path = os.path.join(base, f)
                if f == "model.onnx":
                    onnx.save(shorten(onnx.load(path)), path)
                total += os.path.getsize(path)
        print(f"{total:,} bytes")
        if name == "text-bert":
            write_bert_as_json(f"{ROOT}/../tokenizer-bert-json")


if __name__ == "__main__":
    main(set(sys.argv[1:]))
