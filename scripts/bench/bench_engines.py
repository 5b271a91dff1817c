"""The programs that scripts/bench/bench.py compares, and one run of each. Not run by itself."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import bench_process

HERE = os.path.dirname(os.path.abspath(__file__))
SHAPES = os.path.join(HERE, "..", "..", "models", "shapes")
PEERS = {
    "ort": "import onnxruntime, tokenizers, PIL",
    "openvino": "import openvino, tokenizers, PIL",
    "openvino-float32": "import openvino, tokenizers, PIL",
    "optimum": "from optimum.onnxruntime import ORTStableDiffusionPipeline",
    "diffusers": "from diffusers import StableDiffusionPipeline",
}
OURS = ["ours=target/release/ldm-ort", *(f"ours-{p}=target/release/ldm-ort --precision {p}" for p in ("bf16", "int8"))]
PROMPT = "a red circle to the left of a blue square on a white background"
GUIDANCE = {"sd15": 7.5, "tiny": 7.5, "shapes": 3.0}
# The line on stderr; the precision stands in front of it where it is not float32.
SUMMARY = re.compile(r"^(?:(\S.*?) · )?runtime ([\d.]+) s · model ([\d.]+) s · prompts ([\d.]+) s · denoising .*?decoding ([\d.]+) s", re.MULTILINE)


def write_json(path, value):
    with open(path + ".new", "w", encoding="utf-8") as f:
        json.dump(value, f, indent=1)
    os.replace(path + ".new", path)


def seconds(span):
    return span[1] - span[0]


def binary(text):
    """Returns the name of an engine of ours, its program and its flags, from `[NAME=]PROGRAM [FLAGS]`."""
    name, sep, command = text.partition("=")
    if not sep or not re.fullmatch(r"[\w.-]+", name):
        name, command = "ours", text
    program, *flags = shlex.split(command)
    return name, (os.path.abspath(program), flags)


class Engines:
    """Runs engines on one model, at one size, from one noise."""

    def __init__(self, args, work, model, size, noise):
        self.args, self.work, self.model, self.size, self.noise = args, work, model, size, noise
        self.files, self.slices = os.path.join(work, "runs"), None
        self.ours = dict(binary(text) for text in args.ldm_ort or OURS)
        self.versions = self.peer(["versions"])
        self.library = self.versions.pop("onnxruntime library", None)

    def there(self):
        """Returns the engines that run here, and those that do not with the reason."""
        present, absent = [], {}
        peers = ["optimum"] if self.args.model == "shapes" else PEERS
        for name in [*self.ours, *peers]:
            if self.args.only and name not in self.args.only:
                continue
            why = self.ours_refuses(*self.ours[name]) if name in self.ours else self.peer_lacks(PEERS[name])
            if why:
                absent[name] = why
            else:
                present.append(name)
        for name in present:
            if name in self.ours:
                out = subprocess.run([self.ours[name][0], "--version"], capture_output=True, text=True).stdout.split()
                self.versions[name] = out[1] if len(out) > 1 else "?"
        return present, absent

    def ours_refuses(self, program, flags):
        """The reason for which a binary does not run with these flags, or None. A --precision is tried on models/shapes: the CPU
        may lack its instructions, or the binary the flag."""
        if not os.access(program, os.X_OK):
            return f"there is no program {program}"
        if "--precision" not in flags:
            return None
        command = [program, "run", SHAPES, "-p", "a red circle", "--steps", "1", "--quiet", "-o", os.path.join(self.files, "trial"), *flags]
        environment = self.ours_environment("trial")
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **environment})
        if done.returncode == 0:
            return None
        told = [line for line in done.stderr.splitlines() if line.startswith("error")]
        return (told or done.stderr.splitlines() or [f"it ended with {done.returncode}"])[0]

    def peer_lacks(self, imports):
        # Also reads the packages into the page cache, and leaves their compiled form.
        done = subprocess.run([sys.executable, "-c", imports], capture_output=True, text=True, env=self.environment())
        return None if done.returncode == 0 else (done.stderr.strip().splitlines() or ["it cannot be imported"])[-1]

    def environment(self):
        return {**os.environ, "HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error"}

    def ours_environment(self, name):
        environment = {"LDM_ORT_CACHE_DIR": self.cache(name)}
        if self.library and not self.args.own_runtime:
            environment["ORT_DYLIB_PATH"] = self.library
        return environment

    def cache(self, name):
        return os.path.join(self.work, "cache", name)

    def paths(self, name):
        """The files that a run of this engine reads."""
        paths = bench_process.files_of(os.path.join(self.model, "torch" if name == "diffusers" else "onnx"))
        if name in self.ours and os.path.isdir(self.cache(name)):
            paths += bench_process.files_of(self.cache(name))
        return paths

    def peer(self, words):
        command = [sys.executable, os.path.join(HERE, "bench_peers.py"), *words]
        out, _, _ = bench_process.run(command, self.environment())
        return json.loads(out.splitlines()[-1])

    def child(self, name, job):
        command = [sys.executable, os.path.join(HERE, "bench_peers.py"), name, job]
        out, _, measured = bench_process.run(command, self.environment(), self.args.nice, self.args.limit, self.slices)
        return {**measured, **json.loads(out.splitlines()[-1])}

    def run(self, name, steps):
        """One image. `steps` in the result are the spans of its steps, `decode` is that of its decoding."""
        if name in self.ours:
            measured, images = self.run_ours(name, steps)
            return {**measured, **images[0], "first_step_at": images[0]["steps"][0][0]}
        job = os.path.join(self.files, f"{name}.json")
        given = {
            "model": self.model,
            "size": self.size,
            "steps": steps,
            "prompt": PROMPT,
            "guidance": GUIDANCE[self.args.model],
            "noise": self.noise,
            "latents": os.path.join(self.files, f"{name}.npy"),
            "image": os.path.join(self.files, f"{name}.png"),
        }
        write_json(job, given)
        measured = self.child(name, job)
        return {**measured, "decode_s": seconds(measured["decode"]), "latents": given["latents"], "image": given["image"]}

    def run_ours(self, name, steps, images=1, begin=None, extra=()):
        """What was measured, the summary included, and each image's spans and files. `begin` is a file of latents in which a run
        with `denoising_start` starts instead of from noise, `extra` more flags."""
        program, flags = self.ours[name]
        where = os.path.join(self.files, name)
        shutil.rmtree(where, ignore_errors=True)
        os.makedirs(where)
        latents, pipeline = os.path.join(where, "latents.npy"), os.path.join(where, "pipeline.toml")
        task = f"[task.image-to-image]\nlatents = {json.dumps(begin)}" if begin else "[task.text-to-image]"
        noise = f"latents = {json.dumps(self.noise)}\n" if images == 1 and not begin else "seed = 0\n"
        with open(pipeline, "w", encoding="utf-8") as f:
            f.write(
                f"[model]\npath = {json.dumps(os.path.join(self.model, 'onnx'))}\n\n"
                f"{task}\nprompt = {json.dumps(PROMPT)}\nguidance_scale = {GUIDANCE[self.args.model]}\n\n"
                f"[run]\nsteps = {steps}\nwidth = {self.size}\nheight = {self.size}\nimages = {images}\n{noise}\n"
                f"[output]\ndir = {json.dumps(where)}\n"
            )
        environment = {**self.environment(), **self.ours_environment(name)}
        command = [program, "run", pipeline, "--json", "--save-latents", latents, *flags, *extra]
        out, err, measured = bench_process.run(command, environment, self.args.nice, self.args.limit, self.slices)
        found = SUMMARY.search(err)
        if not found:
            raise ValueError(f"{program} printed no line of its timings: {err[-500:]}")
        measured["precision"] = found[1] or "float32"
        measured |= zip(("import", "load", "prompt", "decode_s"), map(float, found.groups()[1:]))
        lines = [json.loads(line) for line in out.splitlines()]
        return measured, [self.spans(line) | {"latents": latents} for line in lines]

    @staticmethod
    def spans(line):
        """The spans in an image's line of --json: `timings` holds until_denoising (since the process began), calls (durations)
        and until_decoded (from the last call until the image was decoded)."""
        timings, at = line["timings"], line["timings"]["until_denoising"]
        steps = []
        for call in timings["calls"]:
            steps.append([at, at + call])
            at += call
        return {"steps": steps, "decode": [at, at + timings["until_decoded"]], "image": line["path"]}

    def parts(self, name, samples):
        """Spans of guided evaluations (`unet`) and of decodings (`decode`), the first of each first. Those of ours are of one
        process that makes an image of one step for each."""
        if name in self.ours:
            measured, images = self.run_ours(name, 1, samples + 1)
            unet, decode = [span for image in images for span in image["steps"]], [image["decode"] for image in images]
            return {**measured, "unet": unet, "decode": decode}
        job = os.path.join(self.files, "parts.json")
        write_json(job, {"model": self.model, "size": self.size, "samples": samples})
        return self.child(name, job)
