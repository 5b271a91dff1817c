"""Makes tests/golden/bfloat16: graphs as exporters make them of models in bfloat16, and what diffusers draws with their weights.

    python scripts/goldens/golden_bfloat16.py

The transformer and the T5 of the tiny Stable Diffusion 3, after `.to(torch.bfloat16)`, by torch's TorchScript exporter: inputs,
outputs, weights and arithmetic are bfloat16, but for what torch computes in float32. latents.npy are those of the case
families/sd3 by the pipeline in float32 with the weights of these two rounded to bfloat16, which is what ldm-ort computes
on providers without bfloat16.
"""

import os
import pathlib
import sys
import tempfile
import warnings

import numpy as np
import onnx
import torch

sys.path += [str(pathlib.Path(__file__).resolve().parents[1] / folder) for folder in ("", "export", "fixtures")]

import golden_families
from export_graphs import shorten
from make_families import pipelines, tiny_tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden"
OUT = ROOT / "bfloat16"
CASE = "sd3"
ROWS, TOKENS, SIDE = 2, 20, 8


class Transformer(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, hidden_states, encoder_hidden_states, pooled_projections, timestep):
        return self.model(hidden_states, encoder_hidden_states, pooled_projections, timestep, return_dict=False)[0]


class States(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids):
        return self.model(input_ids, return_dict=False)[0]


def export(module, inputs, made, axes):
    path = str(OUT / f"{made}.onnx")
    names = {"input_names": list(inputs), "output_names": list(axes)[-1:], "dynamic_axes": axes}
    torch.onnx.export(module.eval(), tuple(inputs.values()), path, opset_version=18, dynamo=False, **names)
    onnx.save(shorten(onnx.load(path)), path)
    print(f"{made}: {os.path.getsize(path):,} bytes")


def main():
    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    OUT.mkdir(parents=True, exist_ok=True)
    spec = golden_families.CASES[CASE]
    with tempfile.TemporaryDirectory() as temp:
        pipe = pipelines(tiny_tokenizer(temp))[spec["family"]]()
        config, narrow = pipe.transformer.config, torch.bfloat16
        pipe.transformer.to(narrow)
        inputs = {
            "hidden_states": torch.zeros(ROWS, config.in_channels, SIDE, SIDE, dtype=narrow),
            "encoder_hidden_states": torch.zeros(ROWS, TOKENS, config.joint_attention_dim, dtype=narrow),
            "pooled_projections": torch.zeros(ROWS, config.pooled_projection_dim, dtype=narrow),
            "timestep": torch.zeros(ROWS, dtype=narrow),
        }
        axes = {name: {0: "batch_size"} for name in (*inputs, "out_hidden_states")}
        axes["hidden_states"] |= {2: "height", 3: "width"}
        axes["encoder_hidden_states"] |= {1: "sequence_length"}
        axes["out_hidden_states"] |= {2: "height", 3: "width"}
        export(Transformer(pipe.transformer), inputs, "transformer", axes)
        pipe.text_encoder_3.to(narrow)
        inputs = {"input_ids": torch.zeros(ROWS, TOKENS, dtype=torch.int64)}
        axes = {name: {0: "batch_size", 1: "sequence_length"} for name in ("input_ids", "last_hidden_state")}
        export(States(pipe.text_encoder_3), inputs, "text_encoder_3", axes)
        pipe.transformer.float()
        pipe.text_encoder_3.float()
        latents = []
        for i in range(spec["images"]):
            generator = torch.Generator("cpu").manual_seed(spec["seed"] + i)
            keys = golden_families.called_with(spec, f"{ROOT}/families/{CASE}", i)
            answer = pipe(num_inference_steps=spec["steps"], generator=generator, output_type="latent", **keys)
            latents.append(answer.images)
    latents = torch.cat(latents).numpy()
    reference = np.load(ROOT / "families" / CASE / "latents.npy")
    print(f"{latents.shape}, off by {np.linalg.norm(latents - reference) / np.linalg.norm(reference):.1e} from float32's weights")
    np.save(OUT / "latents.npy", latents.astype(np.float32))


if __name__ == "__main__":
    main()
