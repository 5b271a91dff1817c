#!/usr/bin/env python3
"""Makes tests/golden/caching: what pipelines with fewer evaluations draw, by loops written out in numpy.

Run from the root of the repository, with the packages of scripts/requirements.txt:

    python scripts/goldens/golden_caching.py [NAME...]

A case is NAME.toml (the pipeline as a user would write it), NAME.json (the evaluations made and those of a full run)
and NAME.npy (the final latents in float32, before the division by the scaling factor). The graphs of the model run in
ONNX Runtime, the scheduler is diffusers', the noise that of torch.Generator("cpu").manual_seed(seed + i), and the
caching methods are written here after what was published:

    easycache   Zhou et al. 2025, arXiv 2507.02860, and github.com/H-EmbodVis/EasyCache
    ucache      github.com/leejet/stable-diffusion.cpp, docs/caching.md and ucache.hpp
    spectrum    Han et al. 2026, arXiv 2603.01623, and github.com/hanjq17/Spectrum

The cases of deepcache are golden_deepcache.py's.

Every image is drawn alone. Methods see the guided prediction, and forget all where guidance begins or ends. A step
of a scheduler with two calls is decided by its first call, and the two calls are remembered apart. `likeness.json` holds PSNR and SSIM as scikit-image has them, of models/shapes/sample.png and the same
image with a pattern of some amplitude over it.
"""

import inspect
import json
import os
import sys

import diffusers
import numpy as np
import onnxruntime
import torch
from PIL import Image
from transformers import AutoTokenizer

from golden_pipelines import picture

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
GOLDEN = os.path.join(ROOT, "tests", "golden", "caching")
SHAPES = "models/shapes"
SD1 = "tests/fixtures/models/sd1"
SD2V = "tests/fixtures/models/sd2v"
INSTRUCT = "tests/fixtures/families/instruct"
CIRCLE = "a red circle above a blue square"
STAR = "a small yellow star to the left of a blue circle on a white background"
CLASSES = {
    "ddim": "DDIMScheduler",
    "euler": "EulerDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "dpm-multistep": "DPMSolverMultistepScheduler",
}


def case(model, prompt, steps, seed, scale, scheduler=None, cache=None, images=1, size=64, interval=None, image=None):
    """`image` and its guidance scale make the task instruct."""
    return locals()


CASES = {
    "easycache": case(SHAPES, STAR, 20, 42, 3.0, cache=("easycache", {"threshold": 0.2}), images=2),
    "easycache-unguided": case(
        SD1, CIRCLE, 24, 7, 1.0, "euler", ("easycache", {"threshold": 0.03, "start": 0.1, "end": 1.0})
    ),
    "easycache-heun": case(SD2V, CIRCLE, 12, 43, 3.0, "heun", ("easycache", {"threshold": 0.3})),
    "ucache": case(SHAPES, STAR, 20, 42, 3.0, cache=("ucache", {})),
    "ucache-absolute": case(
        SD2V,
        CIRCLE,
        20,
        44,
        3.0,
        "dpm-multistep",
        ("ucache", {"threshold": 0.6, "start": 0.0, "end": 1.0, "decay": 0.7, "relative": False, "reset": False}),
    ),
    "ucache-heun": case(SD1, CIRCLE, 12, 43, 3.0, "heun", ("ucache", {"threshold": 0.8})),
    "spectrum": case(SHAPES, STAR, 20, 42, 3.0, cache=("spectrum", {})),
    "spectrum-fitted": case(
        SD2V,
        CIRCLE,
        30,
        45,
        5.0,
        cache=(
            "spectrum",
            {"w": 1.0, "m": 3, "lam": 0.01, "window": 3, "flex": 0.25, "warmup": 6, "stop": 1.0},
        ),
    ),
    "spectrum-heun": case(SD1, CIRCLE, 12, 43, 3.0, "heun", ("spectrum", {"w": 0.25, "warmup": 3})),
    "interval": case(SHAPES, STAR, 10, 46, 3.0, interval=[0.2, 0.75]),
    "interval-easycache": case(
        SD2V, CIRCLE, 24, 47, 4.0, "euler", ("easycache", {"threshold": 0.3}), 2, interval=[0.1, 0.6]
    ),
    "interval-ucache": case(SD1, CIRCLE, 24, 48, 4.0, "euler", ("ucache", {}), interval=[0.25, 0.6]),
    "interval-spectrum-heun": case(SD1, CIRCLE, 14, 49, 3.0, "heun", ("spectrum", {"warmup": 2}), interval=[0.2, 0.7]),
    "interval-instruct": case(
        INSTRUCT, "turn the circle blue", 6, 50, 6.0, "ddim", interval=[0.3, 0.9], size=32, image=("in.png", 1.5)
    ),
}

# ---- methods -------------------------------------------------------------------------------------------------------


def mean(values):
    return float(np.abs(values).astype(np.float64).mean())


class EasyCache:
    def __init__(self, steps, threshold=0.05, start=0.15, end=0.95):
        self.steps, self.threshold, self.start, self.end = steps, threshold, start, end
        self.margin = np.inf
        self.forget()

    def forget(self):
        self.previous_input = self.last_input = self.last_output = self.rate = None
        self.accumulated, self.cache = 0.0, {}

    def skips(self, step, x):
        skip = False
        inside = self.start <= step / self.steps and (step + 1) / self.steps <= self.end
        if inside and step != self.steps - 1 and self.rate is not None:
            self.accumulated += self.rate * mean(x - self.previous_input) / mean(self.last_output)
            self.margin = min(self.margin, abs(self.accumulated - self.threshold))
            skip = self.accumulated < self.threshold
        if not skip:
            self.accumulated = 0.0
        self.previous_input = x
        return skip

    def knows(self, call):
        return call in self.cache

    def answer(self, step, call, x):
        return x + self.cache[call]

    def learn(self, step, call, x, v):
        self.cache[call] = v - x
        if call == 0:
            if self.last_input is not None:
                self.rate = mean(v - self.last_output) / mean(x - self.last_input)
            self.last_input, self.last_output = x, v


class UCache:
    def __init__(self, steps, threshold=1.0, start=0.15, end=0.95, decay=1.0, relative=True, reset=True):
        self.steps, self.threshold, self.start, self.end = steps, threshold, start, end
        self.decay, self.relative, self.reset = decay, relative, reset
        self.margin, self.computed = np.inf, 0
        self.forget()

    def forget(self):
        self.last_input = self.last_output = self.rate = self.ema = self.change = None
        self.error, self.in_a_row, self.cache = 0.0, 0, {}

    def inside(self, step):
        return self.start <= step / self.steps and (step + 1) / self.steps <= self.end and step != self.steps - 1

    def skips(self, step, x):
        self.change = None
        if not self.inside(step) or self.last_input is None:
            return False
        self.change = mean(x - self.last_input)
        if self.rate is None:
            return False
        norm = mean(self.last_output)
        expected = self.rate * self.change
        if self.relative:
            expected /= np.sqrt(max(norm, 1e-6) * max(1.6 * self.ema, 1e-6))
        expected *= 1 + 0.5 * self.in_a_row
        self.error = self.error * self.decay + expected
        progress = self.computed / self.steps
        threshold = self.threshold * (0.5 if progress < 0.2 else 1.5 if progress > 0.8 else 1.0)
        if not self.relative:
            threshold *= norm
        self.margin = min(self.margin, abs(self.error - threshold))
        if self.error < threshold:
            self.in_a_row += 1
            return True
        if self.reset:
            self.error = 0.0
        return False

    def knows(self, call):
        return call in self.cache

    def answer(self, step, call, x):
        return x + self.cache[call]

    def learn(self, step, call, x, v):
        if not self.inside(step):
            return
        self.cache[call] = v - x
        if call > 0:
            return
        self.computed += 1
        self.in_a_row = 0
        if self.last_output is not None:
            moved = mean(v - self.last_output)
            self.ema = moved if self.ema is None else 0.8 * self.ema + 0.2 * moved
            if self.change:
                self.rate = moved / self.change
        self.last_input, self.last_output = x, v


class Spectrum:
    def __init__(self, steps, w=0.5, m=4, lam=0.1, window=2, flex=0.75, warmup=5, stop=0.9):
        self.steps, self.w, self.m, self.lam = steps, w, m, lam
        self.window, self.flex, self.warmup, self.stop = float(window), flex, warmup, stop
        self.margin = np.inf
        self.forget()

    def forget(self):
        self.times, self.outputs, self.in_a_row = {}, {}, 0

    def skips(self, step, x):
        known = len(self.times.get(0, [])) >= 2
        if step < self.warmup or (step + 1) / self.steps > self.stop or not known:
            self.in_a_row = 0
            return False
        if (self.in_a_row + 1) % int(np.floor(self.window)) == 0:
            self.window += self.flex
            self.in_a_row = 0
            return False
        self.in_a_row += 1
        return True

    def knows(self, call):
        return len(self.times.get(call, [])) >= 2

    def design(self, steps):
        tau = 2 * np.asarray(steps, dtype=np.float64) / self.steps - 1
        return np.polynomial.chebyshev.chebvander(tau, self.m)

    def answer(self, step, call, x):
        times, outputs = self.times[call], self.outputs[call]
        matrix = self.design(times)
        values = np.stack([o.astype(np.float64).ravel() for o in outputs])
        coefficients = np.linalg.solve(matrix.T @ matrix + self.lam * np.eye(self.m + 1), matrix.T @ values)
        fitted = (self.design([step]) @ coefficients).reshape(x.shape)
        along = (step - times[-1]) / (times[-1] - times[-2])
        line = outputs[-1].astype(np.float64) + along * (outputs[-1].astype(np.float64) - outputs[-2])
        return ((1 - self.w) * line + self.w * fitted).astype(np.float32)

    def learn(self, step, call, x, v):
        self.times.setdefault(call, []).append(step)
        self.outputs.setdefault(call, []).append(v)


METHODS = {"easycache": EasyCache, "ucache": UCache, "spectrum": Spectrum}

# ---- the loop ------------------------------------------------------------------------------------------------------


class Model:
    def __init__(self, path):
        open_graph = lambda part: onnxruntime.InferenceSession(f"{path}/{part}/model.onnx")
        self.path, self.unet, self.text = path, open_graph("unet"), open_graph("text_encoder")
        self.tokenizer = AutoTokenizer.from_pretrained(f"{path}/tokenizer")

    def context(self, prompt):
        ids = self.tokenizer(
            prompt, padding="max_length", truncation=True, max_length=self.tokenizer.model_max_length, return_tensors="np"
        ).input_ids
        return self.text.run(["last_hidden_state"], {"input_ids": ids.astype(np.int64)})[0]

    def evaluate(self, x, t, context):
        shape = self.unet.get_inputs()[1].shape
        time = np.full([len(x)] if shape else [], t, dtype=np.float32)
        return self.unet.run(None, {"sample": x, "timestep": time, "encoder_hidden_states": context})[0]


def scheduler_of(model, name):
    with open(f"{model.path}/scheduler/scheduler_config.json") as file:
        own = json.load(file)
    base = getattr(diffusers, own["_class_name"]).from_config(own)
    return base if name is None else getattr(diffusers, CLASSES[name]).from_config(base.config)


class Guided:
    """A model's guided prediction, within `interval` of the run, and the told branch's outside of it. InstructPix2Pix
    attends to the picture's latents, unscaled, in the channels behind the sample's."""

    def __init__(self, model, spec):
        self.model, self.scale, self.interval = model, spec["scale"], spec["interval"]
        self.prompt, self.empty = model.context(spec["prompt"]), model.context("")
        self.picture, self.made = None, 0
        if spec["image"]:
            self.image_scale = spec["image"][1]
            pixels = np.asarray(picture(spec["size"], spec["size"]), dtype=np.float32) / 255
            encoder = onnxruntime.InferenceSession(f"{model.path}/vae_encoder/model.onnx")
            moments = encoder.run(None, {"sample": (2 * pixels - 1).transpose(2, 0, 1)[None]})[0]
            self.picture = moments[:, :4]

    def branches(self, index, calls):
        inside = not self.interval or (self.interval[0] <= index / calls and (index + 1) / calls <= self.interval[1])
        return (3 if self.picture is not None else 2) if self.scale > 1 and inside else 1

    def evaluate(self, x, t, context, picture=None):
        self.made += 1
        return self.model.evaluate(x if picture is None else np.concatenate([x, picture], axis=1), t, context)

    def predict(self, x, t, index, calls):
        told = self.evaluate(x, t, self.prompt, self.picture)
        branches = self.branches(index, calls)
        if branches == 1:
            return told
        without_text = self.evaluate(x, t, self.empty, self.picture)
        if branches == 2:
            return without_text + np.float32(self.scale) * (told - without_text)
        nothing = self.evaluate(x, t, self.empty, np.zeros_like(self.picture))
        text, image = np.float32(self.scale), np.float32(self.image_scale)
        return nothing + text * (told - without_text) + image * (without_text - nothing)


def draw(model, spec, seed):
    """The final latents of one picture, and how often the model was evaluated."""
    scheduler = scheduler_of(model, spec["scheduler"])
    scheduler.set_timesteps(spec["steps"])
    order = scheduler.order
    calls = len(scheduler.timesteps)
    steps = -(-calls // order)
    name, parameters = spec["cache"] or (None, {})
    method = METHODS[name](steps, **parameters) if name else None
    guided = Guided(model, spec)
    side = spec["size"] // (8 if spec["model"] == SD1 else 4)
    noise = torch.randn(1, 4, side, side, generator=torch.Generator("cpu").manual_seed(seed))
    x = noise * scheduler.init_noise_sigma
    computed, skipping = [], False
    for index, t in enumerate(scheduler.timesteps):
        step, call = divmod(index, order)
        given = scheduler.scale_model_input(x, t).numpy().astype(np.float32)
        if method and index > 0 and guided.branches(index, calls) != guided.branches(index - 1, calls):
            method.forget()
        if method and call == 0:
            skipping = method.skips(step, given)
        if skipping and method.knows(call):
            v = method.answer(step, call, given)
        else:
            v = guided.predict(given, float(t), index, calls)
            if method:
                method.learn(step, call, given, v)
            computed.append(index)
        x = scheduler.step(torch.from_numpy(v), t, x).prev_sample
    if method and method.margin < 1e-4:
        sys.exit(f"a decision of {name} is too close: {method.margin:.1e} from its threshold; choose another")
    every = 1 if spec["scale"] <= 1 else 3 if spec["image"] else 2
    return x.numpy(), guided.made, calls * every, computed


def toml_value(value):
    return json.dumps(value)


def pipeline(spec):
    task = "instruct" if spec["image"] else "text-to-image"
    text = f'[model]\npath = "../../../{spec["model"]}"\n\n[task.{task}]\nprompt = "{spec["prompt"]}"\n'
    text += f"guidance_scale = {spec['scale']}\n"
    if spec["interval"]:
        text += f"guidance_interval = {toml_value(spec['interval'])}\n"
    if spec["image"]:
        text += f'image = "{spec["image"][0]}"\nimage_guidance_scale = {spec["image"][1]}\n'
    if spec["scheduler"]:
        text += f"\n[scheduler.{spec['scheduler']}]\n"
    if spec["cache"]:
        name, parameters = spec["cache"]
        assert name not in METHODS or set(parameters) <= set(inspect.signature(METHODS[name]).parameters)
        text += f"\n[cache.{name}]\n" + "".join(f"{k} = {toml_value(v)}\n" for k, v in parameters.items())
    text += f"\n[run]\nsteps = {spec['steps']}\nseed = {spec['seed']}\nimages = {spec['images']}\n"
    return text + f"width = {spec['size']}\nheight = {spec['size']}\n"


# ---- likeness ------------------------------------------------------------------------------------------------------


def likeness():
    from skimage.metrics import peak_signal_noise_ratio, structural_similarity

    one = np.asarray(Image.open(f"{ROOT}/models/shapes/sample.png").convert("RGB"))
    y, x, c = np.mgrid[0 : one.shape[0], 0 : one.shape[1], 0:3]
    rows = []
    for amplitude in (1, 8, 40, 200):
        pattern = (x * 31 + y * 17 + c * 7) % (2 * amplitude + 1) - amplitude
        other = (one.astype(int) + pattern).clip(0, 255).astype(np.uint8)
        ssim = structural_similarity(
            one, other, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=2
        )
        psnr = peak_signal_noise_ratio(one, other, data_range=255)
        rows.append({"amplitude": amplitude, "psnr": float(psnr), "ssim": float(ssim)})
    with open(f"{GOLDEN}/likeness.json", "w") as file:
        json.dump(rows, file, indent=1)


def main(names):
    os.chdir(ROOT)
    os.makedirs(GOLDEN, exist_ok=True)
    for name, spec in CASES.items():
        if names and name not in names:
            continue
        model = Model(spec["model"])
        drawn = [draw(model, spec, spec["seed"] + i) for i in range(spec["images"])]
        np.save(f"{GOLDEN}/{name}.npy", np.concatenate([latents for latents, *_ in drawn]))
        if spec["image"]:
            picture(spec["size"], spec["size"]).save(f"{GOLDEN}/{spec['image'][0]}")
        with open(f"{GOLDEN}/{name}.toml", "w") as file:
            file.write(pipeline(spec))
        with open(f"{GOLDEN}/{name}.json", "w") as file:
            json.dump([{"made": made, "of": of} for _, made, of, _ in drawn], file)
        for _, made, of, computed in drawn:
            print(f"{name:20} {made} of {of} evaluations, computed {computed}")
    if not names or "likeness" in names:
        likeness()


if __name__ == "__main__":
    main(set(sys.argv[1:]))
