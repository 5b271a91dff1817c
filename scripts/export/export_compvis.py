"""Export of checkpoints of the latent diffusion paper's code, imported by scripts/export.py. Not run by itself."""

import os
import shutil

import numpy as np
import torch

import compvis
from export_graphs import Part, export, fail, write_json

SIZE = {0: "batch", 2: "height", 3: "width"}
LATENT = {0: "batch", 2: "latent_height", 3: "latent_width"}
BATCH = {0: "batch"}
TOKENS = {0: "batch", 1: "sequence"}


class Call(torch.nn.Module):
    """A module whose forward is a function, to export just what a graph is to do."""

    def __init__(self, holder, function):
        super().__init__()
        self.holder, self.function = holder, function

    def forward(self, *inputs):
        return self.function(*inputs)


def unet_part(model, null_class):
    unet, p = model.unet, model.unet.params
    steps = 2 ** (len(p.channel_mult) - 1)
    inputs, axes = ["sample", "timestep"], {"sample": SIZE, "timestep": BATCH, "out_sample": SIZE}
    if p.context_dim:
        inputs, axes = inputs + ["encoder_hidden_states"], axes | {"encoder_hidden_states": TOKENS}
    if p.num_classes is not None:
        inputs, axes = inputs + ["class_labels"], axes | {"class_labels": BATCH}

    def make(batch, scale):
        h, w = (2 * steps, 4 * steps) if scale == 1 else (3 * steps, 2 * steps)
        given = [torch.randn(batch, p.in_channels, h, w), torch.randint(0, 1000, (batch,))]
        if p.context_dim:
            given.append(torch.randn(batch, 7 * scale, p.context_dim))
        if p.num_classes is not None:
            given.append(torch.randint(0, p.num_classes, (batch,)))
        return tuple(given)

    def forward(sample, timestep, *more):
        return unet(sample, timestep, **dict(zip(inputs[2:], more)))

    config = {
        "_class_name": "UNetModel",
        "in_channels": p.in_channels,
        "out_channels": p.out_channels,
        "sample_size": p.image_size,
        "block_out_channels": [p.model_channels * m for m in p.channel_mult],
    }
    if p.context_dim:
        config["cross_attention_dim"] = p.context_dim
    if p.num_classes is not None:
        config["num_class_embeds"] = p.num_classes
        if null_class is not None:
            config["null_class"] = null_class
    return Part("unet", Call(unet, forward), inputs, ["out_sample"], make, axes, config)


def first_stage_parts(model):
    stage, p = model.first_stage, model.first_stage.stage
    vq = stage.kind == "vq"
    f = 2 ** (len(p.ch_mult) - 1)
    channels = stage.params.embed_dim

    def picture(batch, scale):
        h, w = (8 * f, 6 * f) if scale == 1 else (4 * f, 10 * f)
        return (torch.rand(batch, p.in_channels, h, w) * 2 - 1,)

    def latent(batch, scale):
        h, w = (8, 6) if scale == 1 else (4, 10)
        if not vq:
            return (torch.randn(batch, channels, h, w),)
        # entries of the codebook: halfway between two, rounding would choose
        book = stage.quantize.embedding.weight
        return (book[torch.randint(0, len(book), (batch, h, w))].permute(0, 3, 1, 2).contiguous(),)

    config = {
        "_class_name": "VQModel" if vq else "AutoencoderKL",
        "block_out_channels": [p.ch * m for m in p.ch_mult],
        "in_channels": p.in_channels,
        "latent_channels": channels,
        "out_channels": p.out_ch,
        "sample_size": p.resolution,
        "scaling_factor": model.scale_factor,
    }
    if vq:
        config |= {"num_vq_embeddings": stage.params.n_embed, "vq_embed_dim": channels}
    name, answer = ("vqvae", "latent_sample") if vq else ("vae", "latent_parameters")
    yield Part(
        f"{name}_encoder", Call(stage, stage.encode), ["sample"], [answer], picture, {"sample": SIZE, answer: LATENT}, config
    )
    yield Part(
        f"{name}_decoder",
        Call(stage, stage.decode),
        ["latent_sample"],
        ["sample"],
        latent,
        {"latent_sample": LATENT, "sample": SIZE},
        config,
    )


def conditioner_parts(model, args, classes):
    made = model.conditioner
    if isinstance(made, compvis.ClassEmbedder):
        config = {"n_classes": made.n_classes, "embed_dim": made.width}
        if args.null_class is not None:
            config["null_class"] = args.null_class
        make = lambda batch, _: (torch.randint(0, made.n_classes, (batch,)),)
        axes = {"class_ids": BATCH, "class_embedding": BATCH}
        yield Part("class_embedder", made, ["class_ids"], ["class_embedding"], make, axes, config)
    elif isinstance(made, compvis.TransformerEncoder):
        p = made.params
        if model.system == "layout":
            name, given, length = "layout_encoder", "tokens", p.max_seq_len
            grid = int((p.vocab_size) ** 0.5)
            config = {
                "n_classes": classes,
                "vocab_size": p.vocab_size,
                "max_objects": (p.max_seq_len - 2) // 3,
                "grid": grid,
            }
        else:
            name, given, length = "text_encoder", "input_ids", p.max_seq_len
            config = {
                "model_type": "ldmbert",
                "hidden_size": p.n_embed,
                "max_position_embeddings": p.max_seq_len,
                "num_hidden_layers": p.n_layer,
                "vocab_size": p.vocab_size,
            }
        make = lambda batch, scale: (torch.randint(0, p.vocab_size, (batch, length if scale == 1 else length // 2)),)
        axes = {given: TOKENS, "last_hidden_state": TOKENS}
        yield Part(name, made, [given], ["last_hidden_state"], make, axes, config)
    elif isinstance(made, compvis.SpatialRescaler):
        p = made.params
        f = round((1 / p.multiplier) ** p.n_stages)
        make = lambda batch, scale: (torch.rand(batch, p.in_channels, 4 * f, (2 + scale) * f),)
        config = {"n_labels": p.in_channels, "out_channels": p.out_channels or p.in_channels, "factor": f}
        axes = {"label_map": SIZE, "channels": LATENT}
        yield Part("label_encoder", made, ["label_map"], ["channels"], make, axes, config)


def clip_parts(folder, with_pictures):
    """CLIP's vector of a text, and of a picture, of length one."""
    from transformers import CLIPModel

    clip = CLIPModel.from_pretrained(folder, torch_dtype=torch.float32, attn_implementation="eager")
    text, vision = clip.config.text_config, clip.config.vision_config
    width = clip.config.projection_dim

    def texts(batch, scale):
        ids = torch.randint(0, text.vocab_size - 2, (batch, text.max_position_embeddings))
        for row in range(batch):  # an end of text at a different place in every row
            ids[row, -1 - scale - row % 3 :] = text.eos_token_id
        return (ids,)

    unit = lambda v: v / v.norm(dim=-1, keepdim=True)
    config = {
        "model_type": "clip_text_model",
        "hidden_size": text.hidden_size,
        "projection_dim": width,
        "max_position_embeddings": text.max_position_embeddings,
        "vocab_size": text.vocab_size,
        "eos_token_id": text.eos_token_id,
    }
    axes = {"input_ids": TOKENS, "text_embeds": BATCH}
    forward = lambda ids: unit(clip.get_text_features(ids))
    yield Part("text_encoder", Call(clip, forward), ["input_ids"], ["text_embeds"], texts, axes, config)
    if with_pictures:
        size = vision.image_size
        config = {"model_type": "clip_vision_model", "image_size": size, "projection_dim": width}
        make = lambda batch, _: (torch.randn(batch, 3, size, size),)
        axes = {"pixel_values": BATCH, "image_embeds": BATCH}
        forward = lambda pixels: unit(clip.get_image_features(pixels))
        yield Part("image_encoder", Call(clip, forward), ["pixel_values"], ["image_embeds"], make, axes, config)


def write_neighbours(source, out, width):
    """An index from vectors in a .npy, or an .npz with `embedding` as in the retrieval databases of the paper."""
    from safetensors.numpy import save_file

    loaded = np.load(source)
    vectors = loaded if isinstance(loaded, np.ndarray) else loaded["embedding"]
    if vectors.ndim != 2 or vectors.shape[1] != width:
        fail(f"{source}: vectors are {vectors.shape}, not [any number, {width}]")
    vectors = vectors.astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    folder = os.path.join(out, "neighbours")
    os.makedirs(folder, exist_ok=True)
    save_file({"vectors": np.ascontiguousarray(vectors)}, os.path.join(folder, "index.safetensors"))
    print(f"neighbours: {len(vectors)} vectors of {width}")


def scheduler_config(model):
    """The sampler of the paper's code where the number of steps divides that of training."""
    p = model.params
    kinds = {"linear": "scaled_linear", "sqrt_linear": "linear"}
    config = {
        "_class_name": "DDIMScheduler",
        "num_train_timesteps": p.timesteps,
        "prediction_type": {"eps": "epsilon", "x0": "sample", "v": "v_prediction"}[p.parameterization],
        "timestep_spacing": "leading",
        "steps_offset": 1,
        "set_alpha_to_one": False,
        "clip_sample": False,
    }
    if p.beta_schedule in kinds:
        return config | {
            "beta_schedule": kinds[p.beta_schedule],
            "beta_start": p.linear_start,
            "beta_end": p.linear_end,
        }
    return config | {"trained_betas": model.betas.tolist()}


def copy_tokenizer(folder, out):
    names = "vocab.txt vocab.json merges.txt tokenizer.json tokenizer_config.json special_tokens_map.json".split()
    found = [n for n in names if os.path.exists(os.path.join(folder, n))]
    if not {"vocab.txt", "vocab.json", "tokenizer.json"} & set(found):
        fail(f"{folder} holds no tokenizer: none of vocab.txt, vocab.json and tokenizer.json")
    os.makedirs(os.path.join(out, "tokenizer"), exist_ok=True)
    for name in found:
        shutil.copyfile(os.path.join(folder, name), os.path.join(out, "tokenizer", name))
    return "BertTokenizer" if "vocab.txt" in found else "CLIPTokenizer"


def main(args):
    if not args.config:
        fail("a checkpoint of the paper's code needs --config, the YAML file that describes the model")
    try:
        model = compvis.load(args.checkpoint, args.config)
    except (compvis.Unsupported, OSError) as e:
        fail(str(e))
    system = model.system
    names = None
    if args.classes:
        with open(args.classes, encoding="utf-8") as f:
            names = [line.strip() for line in f if line.strip()]
    classes = len(names) if names else args.n_classes
    rows = getattr(model.conditioner, "n_classes", None) or model.unet.params.num_classes
    if args.null_class is None and rows == 1001:  # as the paper's ImageNet model with guidance
        args.null_class = 1000
    # Checks for missing parts first, not after an hour of exporting.
    if system == "text-to-image" and not args.tokenizer:
        fail("the tokenizer is not in the checkpoint: give --tokenizer, a folder with the files of bert-base-uncased")
    if system == "retrieval" and not args.clip:
        fail("CLIP is not in the checkpoint: give --clip, a folder of transformers' CLIPModel (openai/clip-vit-large-patch14)")
    if system == "layout" and not classes:
        fail("the checkpoint does not say how many classes there are: give --classes, a file with their names, or --n-classes")

    export([unet_part(model, args.null_class)], args)
    export(first_stage_parts(model), args)
    export(conditioner_parts(model, args, classes), args)
    index = {"_class_name": "LatentDiffusion", "system": system, "scheduler": ["diffusers", "DDIMScheduler"]}
    if system == "retrieval":
        export(clip_parts(args.clip, args.image_encoder), args)
        index["tokenizer"] = ["transformers", copy_tokenizer(args.tokenizer or args.clip, args.out)]
        if args.neighbours:
            write_neighbours(args.neighbours, args.out, model.unet.params.context_dim)
    elif system == "text-to-image":
        index["tokenizer"] = ["transformers", copy_tokenizer(args.tokenizer, args.out)]
    if names:
        shutil.copyfile(args.classes, os.path.join(args.out, "classes.txt"))
    for name in sorted(os.listdir(args.out)):
        if os.path.exists(os.path.join(args.out, name, "model.onnx")):
            index[name] = ["diffusers", "OnnxRuntimeModel"]
    write_json(os.path.join(args.out, "scheduler", "scheduler_config.json"), scheduler_config(model))
    write_json(os.path.join(args.out, "model_index.json"), index)
    print(f"{system}, scale factor {model.scale_factor:g}: written to {args.out}")
