"""One run of one peer, for scripts/bench/bench.py, which starts each in a process of its own. Not meant to be run by hand.

    python scripts/bench/bench_peers.py ENGINE JOB.json       # prints one JSON object on stdout
    python scripts/bench/bench_peers.py versions | flops JOB.json

Times in it are seconds since the process was asked for (BENCH_START, a reading of the monotonic clock), or durations; a span
is two such times. ENGINE is one of

    ort                a loop over the graphs as few lines as can be, ONNX Runtime with its defaults
    openvino           the same loop, OpenVINO's own reader of ONNX, shapes made static, its defaults: bf16 where the CPU has it
    openvino-float32   the same with INFERENCE_PRECISION_HINT f32
    optimum            optimum-onnx' ORTStableDiffusionPipeline
    diffusers          diffusers' StableDiffusionPipeline, torch eager

The two loops open a graph when its turn comes and drop it afterwards, which is the least memory that takes.
"""

import gc
import importlib.metadata
import json
import os
import sys
import time
import warnings

warnings.filterwarnings("ignore")
ZERO = float(os.environ.get("BENCH_START", time.monotonic()))
PACKAGES = ["onnxruntime", "openvino", "optimum-onnx", "optimum", "diffusers", "transformers", "torch", "numpy"]


def now():
    return time.monotonic() - ZERO


class Ort:
    """Graphs on ONNX Runtime, as it comes."""

    precision = "float32"

    def __init__(self, model):
        import onnxruntime

        self.ort, self.model = onnxruntime, model

    def open(self, part, shapes):
        path = os.path.join(self.model, "onnx", part, "model.onnx")
        session = self.ort.InferenceSession(path, providers=["CPUExecutionProvider"])
        return lambda inputs: session.run(None, inputs)[0]


class OpenVino:
    """Graphs on OpenVINO. `precision` is what the last graph it opened computes in."""

    settings = {}
    names = {"f32": "float32", "f16": "float16"}

    def __init__(self, model):
        import openvino

        self.core, self.model = openvino.Core(), model

    def open(self, part, shapes):
        graph = self.core.read_model(os.path.join(self.model, "onnx", part, "model.onnx"))
        graph.reshape(shapes)
        compiled = self.core.compile_model(graph, "CPU", self.settings)
        told = compiled.get_property("INFERENCE_PRECISION_HINT").to_string()
        self.precision = self.names.get(told, told)
        request = compiled.create_infer_request()

        def run(inputs):
            request.infer(inputs)
            return request.get_output_tensor(0).data.copy()

        return run


class OpenVinoFloat32(OpenVino):
    settings = {"INFERENCE_PRECISION_HINT": "f32"}


class Euler:
    """diffusers' EulerDiscreteScheduler for a model that predicts noise, timestep_spacing "leading"."""

    def __init__(self, model, steps):
        import numpy as np

        with open(os.path.join(model, "onnx", "scheduler", "scheduler_config.json"), encoding="utf-8") as f:
            c = json.load(f)
        n = c["num_train_timesteps"]
        betas = np.linspace(c["beta_start"] ** 0.5, c["beta_end"] ** 0.5, n, dtype=np.float32) ** 2
        alphas = np.cumprod(1 - betas, dtype=np.float32)
        self.timesteps = ((np.arange(steps) * (n // steps))[::-1] + c["steps_offset"]).astype(np.float32)
        sigmas = np.interp(self.timesteps, np.arange(n), ((1 - alphas) / alphas) ** 0.5)
        self.sigmas = np.append(sigmas, 0).astype(np.float32)
        self.initial = np.float32((self.sigmas.max() ** 2 + 1) ** 0.5)

    def scaled(self, i, x):
        return x / (self.sigmas[i] ** 2 + 1) ** 0.5

    def step(self, i, prediction, x):
        return x + prediction * (self.sigmas[i + 1] - self.sigmas[i])


def sizes(job):
    """Shapes of a guided run of one image, by graph and input."""
    with open(os.path.join(job["model"], "onnx", "unet", "config.json"), encoding="utf-8") as f:
        width = json.load(f)["cross_attention_dim"]
    side = job["size"] // 8
    return {
        "text_encoder": {"input_ids": [2, 77]},
        "unet": {"sample": [2, 4, side, side], "timestep": [], "encoder_hidden_states": [2, 77, width]},
        "vae_decoder": {"latent_sample": [1, 4, side, side]},
    }


def tokens(job):
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(os.path.join(job["model"], "onnx", "tokenizer", "tokenizer.json"))
    tokenizer.enable_truncation(77)
    end = tokenizer.token_to_id("<|endoftext|>")
    tokenizer.enable_padding(length=77, pad_id=end, pad_token="<|endoftext|>")
    return np.array([tokenizer.encode(text).ids for text in ("", job["prompt"])], dtype=np.int64)


def save(job, latents, pixels):
    import numpy as np
    from PIL import Image

    np.save(job["latents"], latents)
    Image.fromarray(pixels).save(job["image"])


def loop(engine, job):
    """Text to image, as few lines as can be."""
    import numpy as np

    out = {}
    graphs = engine(job["model"])
    shapes, load = sizes(job), 0.0
    out["import"] = now()

    def opened(part):
        nonlocal load
        start = now()
        run = graphs.open(part, shapes[part])
        load += now() - start
        return run

    encode = opened("text_encoder")
    start = now()
    states = encode({"input_ids": tokens(job)})
    out["prompt"] = now() - start
    del encode
    gc.collect()
    unet, scheduler = opened("unet"), Euler(job["model"], job["steps"])
    x = np.load(job["noise"]) * scheduler.initial
    out["first_step_at"], out["steps"] = now(), []
    for i, t in enumerate(scheduler.timesteps):
        start = now()
        both = np.concatenate([scheduler.scaled(i, x)] * 2)
        without, told = np.split(unet({"sample": both, "timestep": np.array(t), "encoder_hidden_states": states}), 2)
        x = scheduler.step(i, without + np.float32(job["guidance"]) * (told - without), x)
        out["steps"].append([start, now()])
    del unet
    gc.collect()
    decode = opened("vae_decoder")
    start = now()
    image = decode({"latent_sample": x / np.float32(0.18215)})[0]
    pixels = (np.clip(image / 2 + 0.5, 0, 1) * 255).round().astype(np.uint8).transpose(1, 2, 0)
    out["decode"], out["load"], out["precision"] = [start, now()], load, graphs.precision
    save(job, x, pixels)
    return out


def pipeline(kind, job):
    """Text to image by a pipeline of diffusers' making."""
    import numpy as np
    import torch

    if kind == "optimum":
        from optimum.onnxruntime import ORTStableDiffusionPipeline

        out = {"import": now()}
        pipe = ORTStableDiffusionPipeline.from_pretrained(os.path.join(job["model"], "onnx"), provider="CPUExecutionProvider")
    else:
        from diffusers import StableDiffusionPipeline

        out = {"import": now()}
        pipe = StableDiffusionPipeline.from_pretrained(os.path.join(job["model"], "torch"), torch_dtype=torch.float32)
    out["load"] = now() - out["import"]
    pipe.set_progress_bar_config(disable=True)
    last, out["steps"], scale, called = None, [], pipe.scheduler.scale_model_input, now()

    def first(*args, **keys):
        nonlocal last
        if last is None:
            last = out["first_step_at"] = now()
        return scale(*args, **keys)

    def each(_pipe, _i, _t, given):
        nonlocal last, latents
        end = now()
        out["steps"].append([last, end])
        last, latents = end, given["latents"]
        return given

    latents, pipe.scheduler.scale_model_input = None, first
    image = pipe(
        job["prompt"],
        num_inference_steps=job["steps"],
        guidance_scale=job["guidance"],
        latents=torch.from_numpy(np.load(job["noise"])),
        width=job["size"],
        height=job["size"],
        output_type="np",
        callback_on_step_end=each,
    ).images[0]
    out["prompt"], out["decode"], out["precision"] = out["first_step_at"] - called, [last, now()], "float32"
    save(job, latents.numpy(), (image * 255).round().astype(np.uint8))
    return out


def parts(engine, job):
    """Spans of single guided evaluations of the UNet and of single decodings, the first of each first."""
    import numpy as np

    rng = np.random.default_rng(0)
    shapes, out = sizes(job), {}
    for name, part in (("unet", "unet"), ("decode", "vae_decoder")):
        given = {k: rng.standard_normal(s).astype(np.float32) for k, s in shapes[part].items()}
        if part == "unet":
            given["timestep"] = np.array(500, dtype=np.float32)
        start = now()
        graphs = engine(job["model"])
        run = graphs.open(part, shapes[part])
        out[name + "_load"], out["precision"] = now() - start, graphs.precision
        out[name] = []
        for _ in range(job["samples"] + 1):
            start = now()
            run(given)
            out[name].append([start, now()])
        del run
        gc.collect()
    return out


class Torch:
    """The parts of the model in torch eager, called like graphs."""

    precision = "float32"

    def __init__(self, model):
        self.model = os.path.join(model, "torch")

    def open(self, part, shapes):
        import torch
        from diffusers import AutoencoderKL, UNet2DConditionModel

        if part == "unet":
            unet = self.typed(UNet2DConditionModel.from_pretrained(self.model, subfolder="unet").eval())
            call = lambda g: unet(g["sample"], g["timestep"], g["encoder_hidden_states"]).sample
        else:
            vae = self.typed(AutoencoderKL.from_pretrained(self.model, subfolder="vae").eval())
            call = lambda g: vae.decode(g["latent_sample"]).sample

        def run(given):
            with torch.inference_mode():
                return call({k: self.typed(torch.from_numpy(v)) for k, v in given.items()}).numpy()

        return run

    def typed(self, values):
        return values


class TorchFloat64(Torch):
    """In float64, as a reference for the errors of the others."""

    precision = "float64"

    def typed(self, values):
        return values.double()


def flops(job):
    """Operations (two for each multiplication and addition) of a guided evaluation and of a decoding."""
    import torch
    from diffusers import AutoencoderKL, UNet2DConditionModel
    from torch.utils.flop_counter import FlopCounterMode

    shapes, out = sizes(job), {}
    for name, kind, part, folder in (("unet", UNet2DConditionModel, "unet", "unet"), ("decode", AutoencoderKL, "vae_decoder", "vae")):
        with torch.device("meta"), torch.no_grad():
            model = kind.from_config(kind.load_config(os.path.join(job["model"], "torch", folder)))
            given = [torch.empty(s) for s in shapes[part].values()]
            with FlopCounterMode(display=False) as counter:
                model.decode(*given) if name == "decode" else model(*given)
        out[name] = counter.get_total_flops()
    return out


def versions():
    found = {"python": sys.version.split()[0]}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            pass
    if "onnxruntime" in found:
        import onnxruntime

        folder = os.path.join(os.path.dirname(onnxruntime.__file__), "capi")
        names = [n for n in os.listdir(folder) if n.startswith(("libonnxruntime.so", "libonnxruntime.dylib", "onnxruntime.dll"))]
        found["onnxruntime library"] = os.path.join(folder, max(names)) if names else None
    return found


BARE = {"ort": Ort, "openvino": OpenVino, "openvino-float32": OpenVinoFloat32}


def main():
    what, job = sys.argv[1], {}
    if len(sys.argv) > 2:
        with open(sys.argv[2], encoding="utf-8") as f:
            job = json.load(f)
    if what == "versions":
        out = versions()
    elif what == "flops":
        out = flops(job)
    elif "samples" in job:
        out = parts(BARE.get(what, Torch), job)
    elif what in BARE:
        out = loop(BARE[what], job)
    else:
        out = pipeline(what, job)
    out["end"] = now()
    json.dump(out, sys.stdout)


if __name__ == "__main__":
    main()
