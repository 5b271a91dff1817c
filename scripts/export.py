"""Export a model to the ONNX layout that ldm-ort reads.

    python -m pip install -r scripts/requirements.txt
    python scripts/export.py FOLDER OUT                        # a checkpoint of diffusers
    python scripts/export.py FOLDER OUT --dtype half           # half the size
    python scripts/export.py TAESD OUT                         # a small decoder, beside a model in OUT
    python scripts/export.py MODEL.ckpt OUT --config MODEL.yaml   # of the latent diffusion paper's code

FOLDER is in the layout of StableDiffusionPipeline (SD 1.x, 2.x and models of that
form), StableDiffusionXLPipeline (base or refiner), StableDiffusion3Pipeline (3 and 3.5,
with T5 or without), FluxPipeline (Flux.1 dev and schnell), PixArtAlphaPipeline or
PixArtSigmaPipeline: model_index.json, text_encoder, tokenizer, unet or transformer, vae,
scheduler, and where there are more of them text_encoder_2, tokenizer_2 and so on;
inpainting, instruction, depth and upscaling UNets are of that form too. So are
LDMPipeline, LDMTextToImagePipeline and LDMSuperResolutionPipeline, and pipelines of a
UNet and a scheduler alone. models/shapes was made with

    python scripts/export.py shapes-run/checkpoint models/shapes --dtype half --short-names

What is written to OUT, every batch, size and sequence axis free:

    text_encoder/model.onnx    input_ids (int64) -> last_hidden_state, pooler_output
                               (XL: and hidden_states.0 ... hidden_states.N; SD 3: as below)
    text_encoder_2/model.onnx  XL, SD 3: input_ids -> text_embeds, last_hidden_state, hidden_states.i
    text_encoder_3/model.onnx  T5, which is text_encoder_2 of Flux and text_encoder of PixArt: input_ids
                               (PixArt: and attention_mask) -> last_hidden_state
    unet/model.onnx            sample, timestep ([batch], float), encoder_hidden_states
                               (XL: text_embeds, time_ids; LCM: timestep_cond; with a table
                               of classes or noise levels: class_labels) -> out_sample
    transformer/model.onnx     SD 3: hidden_states, encoder_hidden_states, pooled_projections,
                               timestep ([batch], float) -> out_hidden_states
                               (Flux: hidden_states is [batch, tokens, 64], and txt_ids, img_ids
                               ([tokens, 3], float) say where tokens stand; dev: guidance)
                               (PixArt: encoder_attention_mask ([batch, tokens], int64) in place of
                               pooled_projections; alpha at 1024: resolution ([batch, 2]), aspect_ratio)
    vae_encoder/model.onnx     sample -> latent_parameters (mean and log variance)
    vae_decoder/model.onnx     latent_sample -> sample
    controlnet[_1 ...]         sample, timestep, encoder_hidden_states, controlnet_cond,
                               conditioning_scale -> down_block_N_additional_residual,
                               mid_block_additional_residual, which the UNet then takes too

    tiny_vae_decoder           latent_sample (as the diffusion leaves it) -> sample; of a folder TAESD
                               that is a diffusers AutoencoderTiny, and written alone

with each part's config.json, scheduler/, tokenizer/ and model_index.json copied.

MODEL.ckpt (or .safetensors) is a checkpoint of CompVis/latent-diffusion, MODEL.yaml the
configuration that came with it; first stage, conditioner and UNet are in the one file.
The averaged weights are taken where there are such, and the scale factor that the
checkpoint holds. Of the UNet's inputs the timestep is int64 here, and class_labels
(int64, [batch]) is there where the model has a table of classes. Beside it:

    vqvae_encoder, _decoder    for a VQ first stage: sample -> latent_sample, not quantised;
                               latent_sample -> sample, quantised inside
    vae_encoder, _decoder      for a KL first stage, as above
    class_embedder             class_ids ([batch]) -> class_embedding ([batch, 1, width]);
                               --classes, --null-class
    text_encoder               input_ids -> last_hidden_state; --tokenizer says where
                               bert-base-uncased's files are
    layout_encoder             tokens ([batch, 92]) -> last_hidden_state; --classes
    label_encoder              label_map ([batch, labels, h, w], one-hot) -> channels
    text_encoder, retrieval    input_ids -> text_embeds, of length one; --clip says where
                               CLIP is; --image-encoder adds pixel_values -> image_embeds,
                               --neighbours the vectors of a database to be found in

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
import os

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parent / folder) for folder in ("export",)]

import onnx
from export_graphs import fail, shorten


def arguments(given=None):
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("checkpoint", help="folder of a diffusers checkpoint, or a .ckpt or .safetensors file")
    p.add_argument("out", help="folder to write; files of earlier exports in it are replaced")
    p.add_argument("--dtype", choices=["float32", "half"], default="float32", help="how weights are stored")
    p.add_argument("--opset", type=int, default=17)
    p.add_argument("--external-data-mb", type=float, default=1500, help="weights larger than this go to model.onnx_data")
    p.add_argument("--hidden-states", action="store_true", help="give every hidden state of text_encoder, as XL always does (for clip skip)")
    p.add_argument("--short-names", action="store_true", help="drop the exporter's names for inner tensors, for models of a few megabytes")
    p.add_argument("--no-check", action="store_true", help="do not compare with PyTorch")
    p.add_argument("--tolerance", type=float, help="largest difference from PyTorch (default 1e-3; half 2e-2)")
    p.add_argument("--controlnet", action="append", default=[], metavar="FOLDER", help="a ControlNet to export beside; as often as there are")
    g = p.add_argument_group("checkpoints of the paper's code")
    g.add_argument("--config", help="the model's YAML")
    g.add_argument("--tokenizer", help="folder with the tokenizer's files")
    g.add_argument("--clip", help="folder of transformers' CLIPModel, for retrieval")
    g.add_argument("--image-encoder", action="store_true", help="export CLIP's image encoder too")
    g.add_argument("--neighbours", help=".npy or .npz (embedding) of image embeddings to find neighbours among")
    g.add_argument("--classes", help="file with the classes' names, one a line")
    g.add_argument("--n-classes", type=int, help="number of classes of a layout model, where there is no file")
    g.add_argument("--null-class", type=int, help="the class that stands for none (1000 where there are 1001)")
    return p.parse_args(given)


def main(given=None):
    args = arguments(given)
    if os.path.isdir(args.checkpoint):
        import export_diffusers

        export_diffusers.main(args)
    elif args.checkpoint.endswith((".ckpt", ".pt", ".pth", ".safetensors")) and os.path.exists(args.checkpoint):
        import export_compvis

        export_compvis.main(args)
    else:
        fail(f"there is no folder or .ckpt or .safetensors file {args.checkpoint}")
    if args.short_names:
        for path in pathlib.Path(args.out).glob("*/model.onnx"):
            onnx.save(shorten(onnx.load(path), True), path)


if __name__ == "__main__":
    main()
