"""Builds the models that scripts/bench/bench.py runs: Stable Diffusion's architecture, random weights of a fixed seed.

    python scripts/bench/bench_model.py sd15 FOLDER      # 8.5 GB, some minutes, 12 GB of memory
    python scripts/bench/bench_model.py tiny FOLDER      # 30 MB, seconds: to try the benchmark itself
    python scripts/bench/bench_model.py shapes FOLDER    # models/shapes, which is trained and small: only a link to it

FOLDER/torch holds it as diffusers stores it, FOLDER/onnx as Optimum exports it: every axis free, float32, opset 18,
by torch's TorchScript exporter, weights in model.onnx_data. FOLDER/complete is written last.

Random weights draw no image, but cost what trained ones cost. They are set so that the latents stay as large as those
of a trained model: a path through the last skip connection makes the noise prediction mostly the normalised sample
(silu(x) - silu(-x) = x), the random rest a small part of it; and the decoder's last layer is scaled to fill [-1, 1].
"""

import argparse
import gc
import json
import os
import shutil
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
TOKENIZER = os.path.join(HERE, "..", "..", "tests", "fixtures", "tokenizer-sd1")
SHAPES = os.path.join(HERE, "..", "..", "models", "shapes")
START, END = 1198, 1199  # that tokenizer's

MODELS = {
    "sd15": {
        "unet": {
            "sample_size": 64,
            "cross_attention_dim": 768,
            "attention_head_dim": 8,
        },  # the rest are diffusers' defaults, which are Stable Diffusion 1's
        "vae": {"channels": (128, 256, 512, 512), "layers": 2, "groups": 32, "sample_size": 512},
        "text": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    },
    "tiny": {
        "unet": {
            "sample_size": 16,
            "cross_attention_dim": 32,
            "attention_head_dim": 4,
            "block_out_channels": (32, 64, 64, 64),
            "norm_num_groups": 4,
        },
        "vae": {"channels": (16, 16, 32, 32), "layers": 1, "groups": 8, "sample_size": 128},
        "text": {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2},
    },
    "shapes": None,
}
SCHEDULER = {  # Stable Diffusion 1.5's, as diffusers' Euler takes it
    "_class_name": "EulerDiscreteScheduler",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "beta_schedule": "scaled_linear",
    "num_train_timesteps": 1000,
    "prediction_type": "epsilon",
    "steps_offset": 1,
    "timestep_spacing": "leading",
}


def write_json(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as f:
        json.dump(value, f, indent=2)
        f.write("\n")


def steady(unet):
    """Lets the normalised sample through the first group of channels to the prediction; see the top of this file."""
    c = unet.config.in_channels
    resnet, attention = unet.up_blocks[-1].resnets[-1], unet.up_blocks[-1].attentions[-1]
    group = unet.config.block_out_channels[0] // unet.config.norm_num_groups
    hidden = resnet.conv_shortcut.in_channels - unet.config.block_out_channels[0]  # the skip connection lies behind
    for i in range(group):
        unet.conv_in.weight[i] = 0
        unet.conv_in.bias[i] = 0
        resnet.conv_shortcut.weight[i] = 0
        resnet.conv_shortcut.bias[i] = 0
        resnet.conv_shortcut.weight[i, hidden + i] = 1
        resnet.conv2.weight[i] *= 0.3
        attention.proj_out.weight[i] *= 0.3
    unet.conv_out.weight *= 0.3
    unet.conv_out.weight[:, :group] = 0
    for i in range(c):
        unet.conv_in.weight[i, i, 1, 1] = 1
        unet.conv_in.weight[c + i, i, 1, 1] = -1
        unet.conv_out.weight[i, i, 1, 1] = (2 * c / group) ** 0.5
        unet.conv_out.weight[i, c + i, 1, 1] = -((2 * c / group) ** 0.5)


def weights(name, folder):
    """diffusers' form, one part after the other."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizerFast

    config = MODELS[name]
    text, vae = config["text"], config["vae"]

    torch.manual_seed(1)
    encoder = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=49408,
            max_position_embeddings=77,
            hidden_act="quick_gelu",
            projection_dim=text["hidden_size"],
            bos_token_id=START,
            eos_token_id=END,
            pad_token_id=END,
            **text,
        )
    )
    encoder.save_pretrained(os.path.join(folder, "text_encoder"))
    del encoder
    gc.collect()

    torch.manual_seed(2)
    decoder = AutoencoderKL(
        block_out_channels=vae["channels"],
        layers_per_block=vae["layers"],
        norm_num_groups=vae["groups"],
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        latent_channels=4,
        scaling_factor=0.18215,
        sample_size=vae["sample_size"],
    )
    with torch.no_grad():
        out = decoder.decode(torch.randn(1, 4, 16, 16) * 3).sample
        decoder.decoder.conv_out.weight *= 0.4 / out.std()
        decoder.decoder.conv_out.bias.zero_()
    decoder.save_pretrained(os.path.join(folder, "vae"))
    del decoder
    gc.collect()

    torch.manual_seed(3)
    unet = UNet2DConditionModel(**config["unet"])
    with torch.no_grad():
        steady(unet)
    unet.save_pretrained(os.path.join(folder, "unet"))
    del unet
    gc.collect()

    tokenizer = os.path.join(folder, "tokenizer")
    shutil.copytree(TOKENIZER, tokenizer, dirs_exist_ok=True)
    CLIPTokenizerFast.from_pretrained(tokenizer).backend_tokenizer.save(os.path.join(tokenizer, "tokenizer.json"))
    write_json(os.path.join(folder, "scheduler", "scheduler_config.json"), SCHEDULER)
    write_json(
        os.path.join(folder, "model_index.json"),
        {
            "_class_name": "StableDiffusionPipeline",
            "feature_extractor": [None, None],
            "image_encoder": [None, None],
            "requires_safety_checker": False,
            "safety_checker": [None, None],
            "scheduler": ["diffusers", "EulerDiscreteScheduler"],
            "text_encoder": ["transformers", "CLIPTextModel"],
            "tokenizer": ["transformers", "CLIPTokenizer"],
            "unet": ["diffusers", "UNet2DConditionModel"],
            "vae": ["diffusers", "AutoencoderKL"],
        },
    )


def export(folder, out):
    from optimum.exporters.onnx import main_export

    main_export(folder, output=out, task="text-to-image", opset=18, dtype="fp32", library_name="diffusers", do_validation=False, local_files_only=True)
    shutil.copyfile(os.path.join(folder, "tokenizer", "tokenizer.json"), os.path.join(out, "tokenizer", "tokenizer.json"))


def build(name, folder):
    """The model in `folder`, built if it is not whole there; each half in a process of its own, which gives its memory back."""
    if os.path.exists(os.path.join(folder, "complete")):
        return
    if name == "shapes":
        os.makedirs(folder, exist_ok=True)
        link = os.path.join(folder, "onnx")
        if os.path.islink(link):
            os.remove(link)
        os.symlink(SHAPES, link)
        open(os.path.join(folder, "complete"), "w").close()
        return
    torch, onnx = os.path.join(folder, "torch"), os.path.join(folder, "onnx")
    for part, target in (("weights", torch), ("export", onnx)):
        if os.path.exists(target) and not os.path.exists(target + ".complete"):
            shutil.rmtree(target)
        if not os.path.exists(target):
            os.makedirs(folder, exist_ok=True)
            print(f"building {target}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, os.path.abspath(__file__), name, folder, "--only", part], check=True, stdout=sys.stderr, env={**os.environ, "HF_HUB_OFFLINE": "1"})
            open(target + ".complete", "w").close()
    open(os.path.join(folder, "complete"), "w").close()


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("model", choices=MODELS)
    p.add_argument("folder")
    p.add_argument("--only", choices=["weights", "export"], help="one half, without asking what is there")
    args = p.parse_args()
    if args.only == "weights":
        weights(args.model, os.path.join(args.folder, "torch"))
    elif args.only == "export":
        export(os.path.join(args.folder, "torch"), os.path.join(args.folder, "onnx"))
    else:
        build(args.model, args.folder)


if __name__ == "__main__":
    main()
