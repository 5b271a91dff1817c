"""The small decoder of models/shapes: a stage of scripts/train/train_shapes.py. Not run by itself.

It is diffusers' AutoencoderTiny (TAESD's decoder: github.com/madebyollin/taesd) with few channels, taught to give what
models/shapes' own decoder gives. It takes the diffusion's latents as they are, not divided by the scaling factor.
"""

import json
import math
import os
import random
import time

import numpy as np
import onnxruntime as ort
import torch
import torch.nn.functional as F

import pathlib
import sys
sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export")]

import export
import export_graphs
import shapes_world as world
import train_shapes
from export_diffusers import small_decoder_part

CHANNELS, BLOCKS = 16, (3, 2, 1)
MINUTES_PER_REPORT = 1.0


def new_autoencoder():
    from diffusers import AutoencoderTiny

    vae = AutoencoderTiny(
        encoder_block_out_channels=(CHANNELS,) * 3,
        decoder_block_out_channels=(CHANNELS,) * 3,
        num_encoder_blocks=(1, 1, 1),
        num_decoder_blocks=BLOCKS,
        latent_channels=4,
    )
    return vae


class Teacher:
    """The first stage that is shipped, run by ONNX Runtime."""

    def __init__(self, model, threads):
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        open_part = lambda name: ort.InferenceSession(f"{model}/{name}/model.onnx", options, providers=["CPUExecutionProvider"])
        self.encoder, self.decoder = open_part("vae_encoder"), open_part("vae_decoder")
        self.scale = json.load(open(f"{model}/vae_decoder/config.json"))["scaling_factor"]

    def encode(self, images):
        """The likeliest latents of pictures, scaled for the diffusion."""
        moments = self.encoder.run(None, {"sample": train_shapes.to_tensor(images).contiguous().numpy()})[0]
        return moments[:, :4] * self.scale

    def decode(self, latents):
        return self.decoder.run(None, {"latent_sample": latents.astype(np.float32) / np.float32(self.scale)})[0]


def lessons(teacher, rng, count):
    """Latents and what the teacher makes of them. Half are those of pictures; half are what a diffusion estimates on its
    way: means of several pictures, and pictures with errors."""
    latents, pictures, noise = [], [], np.random.default_rng(rng.randrange(2**32))
    while len(latents) * 50 < count:
        z = teacher.encode([train_shapes.busy_picture(rng) for _ in range(50)])
        weights = noise.dirichlet([0.5] * 4, 13).astype(np.float32)
        several = noise.integers(0, 50, (13, 4))
        z[12:25] = np.einsum("nk,nkchw->nchw", weights, z[several])
        z[25:38] += noise.uniform(0.02, 0.5, (13, 1, 1, 1)).astype(np.float32) * noise.standard_normal(z[25:38].shape, dtype=np.float32)
        latents.append(z.astype(np.float16))
        pictures.append(teacher.decode(latents[-1]).astype(np.float16))
    return np.concatenate(latents), np.concatenate(pictures)


def psnr(a, b):
    """Of pictures in [-1, 1], the mean over pictures."""
    mse = (a.clamp(-1, 1) - b.clamp(-1, 1)).square().mean(dim=(1, 2, 3))
    return (10 * torch.log10(4 / mse)).mean().item()


def train(args, log):
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    rng = random.Random(args.seed + 5000)
    teacher = Teacher(args.model, args.threads)
    start = time.time()
    latents, pictures = lessons(teacher, rng, args.lessons)
    print(f"small decoder: {len(latents)} lessons in {time.time() - start:.0f} s", flush=True)
    fresh = random.Random(99)
    scenes = [world.draw(world.random_scene(fresh)) for _ in range(100)]
    test = teacher.encode(scenes)
    truth, scenes = torch.from_numpy(teacher.decode(test)), train_shapes.to_tensor(scenes)

    vae = new_autoencoder()
    model = vae.decoder.to(memory_format=torch.channels_last)
    ema = train_shapes.Ema(model, 0.995)
    print(f"small decoder: {sum(p.numel() for p in model.parameters())} parameters", flush=True)
    matrices, others = train_shapes.matrices_and_others(model)
    adam = torch.optim.AdamW(others, lr=2e-3, betas=(0.9, 0.99), weight_decay=1e-4)
    muon = train_shapes.Muon(matrices, lr=2e-3)
    budget, step, start, next_report, total, count = args.minutes_small_decoder * 60, 0, time.time(), 30, 0.0, 0
    while (spent := time.time() - start) < budget:
        lr = 2e-3 * min(1, (step + 1) / 50) * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * spent / budget)))
        for g in adam.param_groups + muon.param_groups:
            g["lr"] = lr
        chosen = np.random.default_rng(args.seed * 1_000_003 + step).integers(0, len(latents), 16)
        z = torch.from_numpy(latents[chosen].astype(np.float32)).to(memory_format=torch.channels_last)
        wanted = torch.from_numpy(pictures[chosen].astype(np.float32))
        made = model(z)
        loss = F.mse_loss(made, wanted) + 0.5 * F.l1_loss(made, wanted)
        adam.zero_grad(set_to_none=True); muon.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step(); muon.step()
        ema.update()
        step += 1
        total += loss.item(); count += 1
        if spent >= next_report:
            next_report = spent + MINUTES_PER_REPORT * 60
            with torch.no_grad():
                note = f"psnr {psnr(ema.model(torch.from_numpy(test)), truth):.2f}"
            log.line("small", step, spent, total / count, lr, note)
            total, count = 0.0, 0
    vae.decoder = ema.model.to(memory_format=torch.contiguous_format)
    export_graphs.export([small_decoder_part(vae)], export.arguments(["", args.model, "--dtype", "half"]))
    student = ort.InferenceSession(f"{args.model}/tiny_vae_decoder/model.onnx", providers=["CPUExecutionProvider"])
    made = torch.from_numpy(student.run(None, {"latent_sample": test})[0])
    print(f"small decoder: {step} steps; of 100 fresh scenes {psnr(made, truth):.1f} dB to the full decoder's pictures, "
          f"{psnr(made, scenes):.1f} dB to the scenes ({psnr(truth, scenes):.1f} dB the full decoder's)")
