"""Runs models on ONNX Runtime's WebGPU provider without a GPU, compares latents with those of the CPU, and tries plugin
providers and the errors of providers that cannot be used.

    cargo build -p ldm-ort -p ldm-ort-c && cargo test -p ldm-ort -p ldm-ort-c --test it spec::
    python3 scripts/providers/software_vulkan.py

The tests unpack the tiny models. Into a temporary folder go: ONNX Runtime for the CPU and the plugin for WebGPU
(`ldm-ort runtime install`), SwiftShader, a Vulkan driver for CPUs, from Debian's package chromium-common (apt-get download
and dpkg), and the plugin provider onnxruntime-ggml (pip download). Nothing is installed. Exits with 1 if a check fails, and
with 77 if the downloads cannot be had here, so that nothing was checked.

--command     the command `ldm-ort`; target/debug/ldm-ort by default
--vulkan ICD  the JSON file of another Vulkan driver, such as that of a GPU; SwiftShader by default
--folder DIR  keeps the downloads in this folder, for the next run
--quick       runs what scripts/check does in a minute: few models, and few schedulers with the loop on the device
--only NAME   runs the checks whose names contain NAME
--case NAME   compares the models whose names contain NAME
"""

import argparse
import json
import math
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
GGML = "onnxruntime-ggml==0.2.0"
# Of the largest latent. Sums are in another order; operators that ignore an option or a channel are off by more than 0.1.
TOLERANCE = 1e-3

# Name, model directory, steps, and the rest of the pipeline file, with `{shapes}` for an image of the demo model.
CASES = [
    ("shapes", "models/shapes", 6, "[task.text-to-image]\nprompt = 'a red circle'\n"),
    ("shapes-euler-ancestral", "models/shapes", 6, "[task.text-to-image]\nprompt = 'a red circle'\n[scheduler.euler-ancestral]\n"),
    ("shapes-image-to-image", "models/shapes", 6, "[task.image-to-image]\nprompt = 'a blue star'\nimage = '{shapes}'\nstrength = 0.7\n"),
    ("sd1", "tests/fixtures/models/sd1", 2, "[task.text-to-image]\nprompt = 'x'\n"),
    ("sd2-v-prediction", "tests/fixtures/models/sd2v", 2, "[task.text-to-image]\nprompt = 'x'\n"),
    ("xl", "tests/fixtures/families/xl", 2, "[task.text-to-image]\nprompt = 'x'\n"),
    ("lcm", "tests/fixtures/families/lcm", 2, "[task.text-to-image]\nprompt = 'x'\n"),
    ("sd3", "tests/fixtures/families/sd3", 2, "[task.text-to-image]\nprompt = 'x'\n"),
    ("flux", "tests/fixtures/families/flux-dev", 2, "width = 64\nheight = 64\n[task.text-to-image]\nprompt = 'x'\n"),
    ("unconditional-vq", "tests/fixtures/systems/uncond-vq", 2, "[task.unconditional]\n"),
]
QUICK_CASES = ("sd1",)
QUICK_SCHEDULERS = ("euler-ancestral", "dpm-multistep")
# The exit code of a test that was not run, as Automake and Meson have it.
NOT_RUN = 77
CHECKS, QUICK_CHECKS = [], []


class Unavailable(Exception):
    """The reason why the downloads cannot be had here."""


def check(function):
    CHECKS.append(function)
    return function


def quick_check(function):
    QUICK_CHECKS.append(function)
    return check(function)


class Setup:
    """The downloads, and the command with them."""

    def __init__(self, arguments, folder):
        self.folder, self.command, self.case = folder, arguments.command.resolve(), arguments.case
        self.quick = arguments.quick
        self.icd = arguments.vulkan or self.swiftshader()
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("ORT_", "LDM_ORT_", "VK_"))},
            "LDM_ORT_CACHE_DIR": str(folder / "cache"),
            "VK_ICD_FILENAMES": str(self.icd),
            "LD_LIBRARY_PATH": f"{self.icd.parent}:{os.environ.get('LD_LIBRARY_PATH', '')}",
        }

    def swiftshader(self):
        found = list(self.folder.glob("vulkan/**/vk_swiftshader_icd.json"))
        if not found:
            downloads = self.folder / "debian"
            self.apt_download("chromium-common", downloads)
            package = next(downloads.glob("chromium-common_*.deb"))
            subprocess.run(["dpkg", "-x", package, self.folder / "vulkan"], check=True)
            found = list(self.folder.glob("vulkan/**/vk_swiftshader_icd.json"))
        return found[0]

    def apt_download(self, package, to):
        """Downloads a package, after the lists of packages if the system has none. Those go into the folder, too."""
        for program in ("apt-get", "dpkg"):
            if not shutil.which(program):
                raise Unavailable(f"there is no {program}, which gets SwiftShader from Debian")
        to.mkdir(exist_ok=True)
        own = [f"-oDir::{name}={self.folder / 'apt' / name.lower()}" for name in ("State", "Cache")]
        own += ["-oDir::State::status=/var/lib/dpkg/status", "-oAcquire::Retries=1", "-oAcquire::http::Timeout=20"]
        attempts = [["apt-get", "download", package], ["apt-get", *own, "update"], ["apt-get", *own, "download", package]]
        for name in ("state/lists/partial", "cache/archives/partial"):
            (self.folder / "apt" / name).mkdir(parents=True, exist_ok=True)
        done = [subprocess.run(attempts[0], cwd=to, capture_output=True, text=True)]
        if done[-1].returncode:
            done += [subprocess.run(line, cwd=to, capture_output=True, text=True) for line in attempts[1:]]
        if done[-1].returncode:
            said = "".join(one.stderr for one in done[-2:]).strip().splitlines() or ["no reason given"]
            raise Unavailable(f"apt-get download {package}: {said[0]}")

    def install(self, package):
        """Downloads a package of ONNX Runtime."""
        line = [str(self.command), "runtime", "install", package]
        done = subprocess.run(line, cwd=ROOT, env=self.environment, capture_output=True, text=True)
        if re.search(r"failed: (io|timeout)|the network may not be used", done.stderr):
            raise Unavailable(done.stderr.splitlines()[0])
        assert done.returncode == 0, done.stdout + done.stderr

    def ggml(self):
        target = self.folder / "ggml"
        if not target.is_dir():
            wheels = self.folder / "wheels"
            subprocess.run(
                [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", wheels, GGML], check=True
            )
            with zipfile.ZipFile(next(wheels.glob("onnxruntime_ggml-*.whl"))) as wheel:
                wheel.extractall(target)
        return next(target.glob("onnxruntime_ggml/lib/*onnxruntime_ggml.*"))

    def run(self, *arguments, software=True, code=0):
        environment = dict(self.environment)
        if software:
            environment["ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER"] = "1"
        line = [str(self.command), *map(str, arguments)]
        done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
        assert done.returncode == code, f"{' '.join(line)}: exit code {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout + done.stderr if code else done.stdout

    def latents(self, name, provider, model, steps, tables):
        """The final latents of a run, and its seconds."""
        pipeline, latents = self.folder / f"{name}.toml", self.folder / f"{name}-{provider}.npy"
        pipeline.write_text(f"[model]\npath = '{ROOT / model}'\n[run]\nsteps = {steps}\nseed = 1\n{tables}")
        start = time.monotonic()
        self.run("run", pipeline, "--provider", provider, "--save-latents", latents, "-q", "-o", self.folder / "images")
        return read_floats(latents), time.monotonic() - start


def read_floats(path):
    """The numbers of a float32 array in numpy's format."""
    data = path.read_bytes()
    (length,) = struct.unpack("<H", data[8:10])
    assert b"'descr': '<f4'" in data[: 10 + length], data[:80]
    return struct.unpack(f"<{(len(data) - 10 - length) // 4}f", data[10 + length :])


@quick_check
def packages_are_installed_side_by_side(setup):
    for package in ("cpu", "webgpu"):
        setup.install(package)
    listed = setup.run("runtime", "list")
    assert re.search(r"^\* cpu ", listed, re.M) and re.search(r"^  webgpu ", listed, re.M), listed
    rows = {row["name"]: row for row in json.loads(setup.run("list", "providers", "--json"))}
    webgpu = rows["webgpu"]
    assert webgpu["usable"] and webgpu["from"] == "plugin" and webgpu["devices"], webgpu
    return f"plugin {webgpu['devices'][0]['metadata'].get('version')} on {webgpu['devices'][0]['name']}"


@quick_check
def the_loop_on_the_device_agrees_with_the_hosts(setup):
    """Also that it copies the inputs once before the first step and the latents once after the last."""
    test = "pipeline::device_loop::both_loops_agree_on_a_device"
    line = ["cargo", "test", "--locked", "-p", "ldm-ort", "-p", "ldm-ort-c", "--test", "it", "--"]
    line += ["--ignored", "--exact", "--nocapture", test]
    environment = {**setup.environment, "ORT_WEBGPU_EP_ALLOW_SOFTWARE_ADAPTER": "1", "LDM_ORT_TEST_PROVIDER": "webgpu"}
    if setup.quick:
        environment["LDM_ORT_TEST_SCHEDULERS"] = ",".join(QUICK_SCHEDULERS)
    done = subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)
    compared = re.findall(r"^(\S+) +(\S+) DeviceCopies", done.stdout, re.M)
    assert done.returncode == 0 and "1 passed" in done.stdout and compared, done.stdout + done.stderr
    assert not setup.quick or len(compared) == len(QUICK_SCHEDULERS), done.stdout
    largest = max(float(apart) for _, apart in compared)
    return f"{len(compared)} schedulers, at most {largest:.1e} of the largest latent, one copy back a run"


@quick_check
def latents_are_those_of_the_cpu(setup):
    shapes, lines = setup.folder / "images" / "shapes.png", []
    cases = [case for case in CASES if setup.case in case[0] and (not setup.quick or case[0] in QUICK_CASES)]
    if any("{shapes}" in tables for *_, tables in cases):
        first = ("-p", "a red circle", "--steps", "4", "--name", "shapes", "-q", "-o", shapes.parent)
        setup.run("run", "models/shapes", *first)
    for name, model, steps, tables in cases:
        tables = tables.format(shapes=shapes)
        expected, cpu = setup.latents(name, "cpu", model, steps, tables)
        found, webgpu = setup.latents(name, "webgpu", model, steps, tables)
        assert len(found) == len(expected) and all(map(math.isfinite, (*found, *expected))), name
        largest = max(map(abs, expected))
        difference = max(abs(a - b) for a, b in zip(found, expected)) / largest
        lines.append(f"{name}: {difference:.1e} of the largest latent ({webgpu:.1f} s, CPU {cpu:.1f} s)")
        print(f"       {lines[-1]}", flush=True)
        assert difference < TOLERANCE, lines[-1]
    assert lines, f"no case is named {setup.case}"
    return f"{len(lines)} cases"


@quick_check
def without_a_gpu_the_error_names_what_to_do(setup):
    said = setup.run("run", "models/shapes", "-p", "x", "--provider", "webgpu", "-q", software=False, code=2)
    assert "offers no device on this machine" in said and "hint: install the GPU's driver" in said, said
    return said.splitlines()[0].split(": ", 1)[1][-60:]


@check
def options_that_would_be_ignored_are_refused(setup):
    wrong = ("--provider", "webgpu", "--set", "device.webgpu.preferedLayout=NHWC")
    said = setup.run("check", "pipeline.toml", *wrong, code=2)
    assert 'unknown option "preferedLayout"; did you mean `preferredLayout`?' in said, said
    right = ("--provider", "webgpu", "--set", "device.webgpu.preferredLayout=NCHW")
    setup.run("check", "pipeline.toml", *right)
    # The plugin gets its options: it refuses a wrong value of one that it takes.
    wrong = ("--provider", "webgpu", "--set", "device.webgpu.preferredLayout=ABC")
    said = setup.run("check", "pipeline.toml", *wrong, code=2)
    assert "ABC" in said.split("hint")[0].split("preferredLayout=ABC")[-1], said
    return "preferedLayout, and preferredLayout = ABC"


@check
def a_plugin_provider_is_named_by_its_library(setup):
    library = ("--provider-library", setup.ggml())
    rows = {row["name"]: row for row in json.loads(setup.run("list", "providers", "--json", *library))}
    assert rows["ggml"]["usable"] and rows["ggml"]["devices"], rows.get("ggml")
    # It has no ArgMax and no 2-D convolutions, so that it takes no whole graph of these models.
    said = setup.run("check", "pipeline.toml", "--open", "--provider", "ggml", *library, code=2)
    assert "provider ggml: took no node of text_encoder" in said, said
    said = setup.run("run", "models/shapes", "-p", "x", "--provider", "ggml", code=2)
    assert "a plugin provider needs its library, in provider_library" in said, said
    # Where the plugin is registered and the CPU chosen, the CPU's images are the same.
    images = setup.folder / "images"
    for name, more in (("plain", ()), ("beside", library)):
        setup.run("run", "models/shapes", "-p", "x", "--steps", "2", "-q", "--name", name, "-o", images, *more)
    assert (images / "plain.png").read_bytes() == (images / "beside.png").read_bytes()
    return f"ggml {rows['ggml']['devices'][0]['metadata'].get('version')}"


@check
def providers_without_their_software_say_what_is_missing(setup):
    lines = []
    for provider in ("cuda", "tensorrt", "nvrtx", "openvino", "directml", "qnn"):
        said = setup.run("run", "models/shapes", "-p", "x", "--provider", provider, "-q", code=2)
        assert f"error: provider {provider}: " in said and "hint: " in said, said
        lines.append(provider)
    empty = {**setup.environment, "LDM_ORT_CACHE_DIR": str(setup.folder / "empty"), "ORT_DYLIB_PATH": ""}
    line = [str(setup.command), "run", "models/shapes", "-p", "x", "--provider", "nvrtx", "-q"]
    done = subprocess.run(line, cwd=ROOT, env=empty, capture_output=True, text=True)
    assert done.returncode == 2 and "none of the packages that can be fetched" in done.stderr, done.stderr
    assert not (setup.folder / "empty" / "runtime").exists()
    return ", ".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--command", type=Path, default=ROOT / "target" / "debug" / "ldm-ort")
    parser.add_argument("--vulkan", type=Path)
    parser.add_argument("--folder", type=Path)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--case", default="")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="providers-") as temporary:
        folder = (arguments.folder or Path(temporary)).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        try:
            sys.exit(1 if run_checks(arguments, Setup(arguments, folder)) else 0)
        except Unavailable as reason:
            print(f"NOT RUN: {reason}", flush=True)
            sys.exit(NOT_RUN)


def run_checks(arguments, setup):
    """Runs the checks, and returns the names of those that failed."""
    failed = []
    chosen = [one for one in (QUICK_CHECKS if arguments.quick else CHECKS) if arguments.only in one.__name__]
    if not chosen:
        return [arguments.only]
    for function in chosen:
        start = time.monotonic()
        try:
            print(f"ok     {function.__name__}: {function(setup)} [{time.monotonic() - start:.1f} s]", flush=True)
        except AssertionError as error:
            failed.append(function.__name__)
            print(f"FAILED {function.__name__}: {error}", flush=True)
    return failed


if __name__ == "__main__":
    main()
