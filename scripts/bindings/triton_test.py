"""Tests the Triton backend on a real server: the one inside the wheel `nvidia-pytriton`, which needs no GPU.

    cargo build && cargo build -p ldm-ort-c -p ldm-ort-triton
    python3 scripts/bindings/triton_test.py --venv /tmp/triton-venv --runtime path/to/libonnxruntime.so

--venv        a virtual environment, which is made if it does not exist; without it, this Python has the packages
--target      the folder of the binaries; CARGO_TARGET_DIR/debug or target/debug by default
--command     the command `ldm-ort` that images are compared with; the one in that folder by default
--runtime     ONNX Runtime's library, for both; ORT_DYLIB_PATH by default
--model       the model directory; models/shapes by default
--only NAME   runs the checks whose names contain NAME
"""

import argparse
import functools
import importlib.util
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["nvidia-pytriton==0.7.0", "tritonclient[http,grpc]", "numpy<2", "pillow"]
PROMPTS = ["a red circle", "a blue square on a white background", "a small yellow star"]
STEPS = 3
CYCLES = 50
# Growth of the server from the tenth load to the last: allocators keep some pages.
MOST_GROWTH = 16 << 20
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def in_environment(arguments):
    """Continues in the virtual environment, which is made first if need be."""
    python = Path(arguments.venv) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", arguments.venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    if Path(sys.prefix).resolve() != Path(arguments.venv).resolve():
        os.execv(python, [str(python), __file__, *sys.argv[1:]])


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Server:
    """A server with a model repository in a temporary folder."""

    def __init__(self, arguments, folder):
        self.folder, self.arguments = folder, arguments
        self.repository, backend = folder / "models", folder / "backends" / "ldm_ort"
        self.repository.mkdir()
        backend.mkdir(parents=True)
        for name in ["libtriton_ldm_ort.so", "libldm_ort.so"]:
            shutil.copy(arguments.target / name, backend)
        # ONNX Runtime next to the backend is what a deployment has.
        os.symlink(arguments.runtime, backend / "libonnxruntime.so")
        self.models()
        wheel = Path(importlib.util.find_spec("pytriton").origin).parent
        self.http, self.grpc, metrics = free_ports(3)
        command = [wheel / "tritonserver" / "bin" / "tritonserver", f"--model-repository={self.repository}",
                   f"--backend-directory={folder / 'backends'}", "--model-control-mode=explicit", "--load-model=shapes",
                   f"--http-port={self.http}", f"--grpc-port={self.grpc}", f"--metrics-port={metrics}",
                   "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
                   '--backend-config=ldm_ort,engine={"offline": true, "cache_dir": "' + str(folder / "cache") + '"}']
        self.log = folder / "server.log"
        environment = {key: value for key, value in os.environ.items() if key != "ORT_DYLIB_PATH"}
        self.process = subprocess.Popen(command, env=environment, stdout=self.log.open("w"), stderr=subprocess.STDOUT)

    def models(self):
        """The model repository: a configuration of its name and backend alone, and others."""
        self.model("shapes", f'parameters {{ key: "pipeline" value {{ string_value: "{self.pipeline()}" }} }}')
        path = self.parameter("pipeline", self.arguments.model)
        device = self.parameter("settings", '{"threads": 1}')
        self.model("plain", path)
        self.model("directory", "", link=True)
        self.model("batched", path + "max_batch_size: 4\ndynamic_batching { max_queue_delay_microseconds: 200000 }\n")
        self.model("joined", path + self.parameter("join", "true")
                   + "max_batch_size: 4\ndynamic_batching { max_queue_delay_microseconds: 400000 }\n")
        self.model("decoupled", path + "model_transaction_policy { decoupled: true }\n")
        self.model("two", path + device + "instance_group [{ kind: KIND_CPU count: 2 }]\n")
        declared = """
input [{ name: "PROMPT" data_type: TYPE_STRING dims: [-1] }, { name: "SEED" data_type: TYPE_INT64 dims: [1] optional: true },
       { name: "STEPS" data_type: TYPE_INT32 dims: [1] optional: true },
       { name: "IMAGE" data_type: TYPE_UINT8 dims: [-1, -1, 3] optional: true }]
output [{ name: "IMAGE" data_type: TYPE_UINT8 dims: [-1, -1, -1, 3] }, { name: "ENCODED" data_type: TYPE_STRING dims: [-1] }]
"""
        self.model("declared", path + self.parameter("format", "webp") + declared)
        self.model("no_pipeline", "")
        self.model("no_model", self.parameter("pipeline", "absent.toml"))
        self.model("bad_settings", path + self.parameter("settings", '{"device": {"threads": "many"}}'))
        self.model("bad_parameter", path + self.parameter("piepline", "x"))
        self.model("bad_input", path + 'input [{ name: "PROMT" data_type: TYPE_STRING dims: [1] }]\n')

    def pipeline(self):
        """A pipeline file next to a link to the model, so that its path is relative."""
        folder = self.repository / "shapes" / "1"
        folder.mkdir(parents=True)
        os.symlink(self.arguments.model, folder / "model")
        text = f'[model]\npath = "model"\n[task.text-to-image]\nprompt = "{PROMPTS[0]}"\n[run]\nsteps = {STEPS}\nseed = 5\n'
        (folder / "own.toml").write_text(text)
        return "own.toml"

    @staticmethod
    def parameter(key, value):
        return f"parameters {{ key: {json.dumps(key)} value {{ string_value: {json.dumps(str(value))} }} }}\n"

    def model(self, name, config, link=False):
        folder = self.repository / name
        (folder / "config.pbtxt").parent.mkdir(exist_ok=True)
        if link:
            os.symlink(self.arguments.model, folder / "1")
        (folder / "1").mkdir(exist_ok=True)
        (folder / "config.pbtxt").write_text(f'name: "{name}"\nbackend: "ldm_ort"\n{config}')

    def wait(self):
        for _ in range(600):
            if self.process.poll() is not None:
                break
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.http}/v2/health/ready").close()
                return
            except OSError:
                time.sleep(0.1)
        raise SystemExit(f"the server does not start:\n{self.log.read_text()}")

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None

    def resident(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10

    def clients(self):
        import tritonclient.grpc
        import tritonclient.http

        return [(tritonclient.http, tritonclient.http.InferenceServerClient(f"127.0.0.1:{self.http}", network_timeout=300)),
                (tritonclient.grpc, tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self.grpc}"))]

    def statistics(self, model):
        client = self.clients()[0][1]
        return client.get_inference_statistics(model)["model_stats"][0]


TYPES = {"SEED": "UINT64", "STEPS": "INT32", "WIDTH": "INT32", "HEIGHT": "INT32", "IMAGES": "INT32", "PREVIEW": "INT32",
         "GUIDANCE_SCALE": "FP32", "STRENGTH": "FP32", "LORAS": "FP32"}
NUMPY = {"UINT64": "uint64", "INT64": "int64", "INT32": "int32", "FP32": "float32", "UINT8": "uint8"}


def inputs_of(kind, values, types={}):
    """The inputs of a request: texts, bytes, numbers, or lists of them, or numpy arrays as they are."""
    import numpy

    inputs = []
    for name, value in values.items():
        if not isinstance(value, numpy.ndarray):
            data_type = types.get(name, TYPES.get(name, "BYTES"))
            items = value if isinstance(value, list) else [value]
            if data_type == "BYTES":
                items = [item.encode() if isinstance(item, str) else item for item in items]
                value = numpy.array(items, dtype=numpy.object_)
            else:
                value = numpy.array(items, dtype=NUMPY[data_type])
        data_type = "BYTES" if value.dtype == object else next(key for key, name in NUMPY.items() if name == value.dtype.name)
        tensor = kind.InferInput(name, list(value.shape), data_type)
        tensor.set_data_from_numpy(value)
        inputs.append(tensor)
    return inputs


def infer(client, model, values, outputs=None, types={}, **options):
    kind, client = client
    requested = None if outputs is None else [kind.InferRequestedOutput(name) for name in outputs]
    return client.infer(model, inputs_of(kind, values, types), outputs=requested, **options)


class Context:
    def __init__(self, arguments, server, folder):
        self.arguments, self.server, self.folder = arguments, server, folder
        self.clients = server.clients()

    def load(self, model):
        self.clients[0][1].load_model(model)

    @functools.cache
    def commanded(self, prompt, seed, *flags, task=None):
        """The file that the command writes for a request."""
        output = Path(tempfile.mkdtemp(dir=self.folder))
        source = self.arguments.model
        if task is not None:
            source = output / "pipeline.toml"
            source.write_text(f'[model]\npath = {json.dumps(str(self.arguments.model))}\n{task}')
        command = [self.arguments.command, "run", source, "--prompt", prompt, "--seed", str(seed), "--steps", str(STEPS),
                   "--output", output / "images", *flags]
        environment = {**os.environ, "ORT_DYLIB_PATH": str(self.arguments.runtime),
                       "LDM_ORT_CACHE_DIR": str(self.folder / "cache"), "LDM_ORT_OFFLINE": "1"}
        subprocess.run(command, env=environment, check=True, capture_output=True)
        [image] = (output / "images").iterdir()
        return image.read_bytes()


def pixels(encoded):
    import io

    import numpy
    from PIL import Image

    return numpy.asarray(Image.open(io.BytesIO(encoded)).convert("RGB"))


def failure(call):
    """The status and text of a call that must fail."""
    from tritonclient.utils import InferenceServerException

    try:
        call()
    except InferenceServerException as error:
        return error.status(), error.message()
    raise AssertionError("the call succeeds")


@check
def bytes_of_the_command(context):
    """Each protocol returns the command's file, pixels, seed and record, from inputs and from a JSON request."""
    for client in context.clients:
        for index, prompt in enumerate(PROMPTS):
            expected = context.commanded(prompt, 7 + index)
            requests = [{"PROMPT": prompt, "SEED": 7 + index, "STEPS": STEPS},
                        {"REQUEST": json.dumps({"prompt": prompt, "run": {"seed": 7 + index, "steps": STEPS}})},
                        {"REQUEST": json.dumps({"prompt": prompt, "steps": STEPS}), "SEED": 7 + index}]
            for values in requests:
                result = infer(client, "plain", values)
                assert result.as_numpy("ENCODED")[0] == expected, values
                assert result.as_numpy("IMAGE").shape == pixels(expected).shape
                assert (result.as_numpy("IMAGE") == pixels(expected)).all()
                assert result.as_numpy("SEED")[0] == 7 + index
                assert json.loads(result.as_numpy("RECORD")[0])["prompt"] == prompt
    return f"{len(PROMPTS)} prompts, 3 forms of a request, HTTP and gRPC: equal"


@check
def options_of_the_command(context):
    """Guidance, scheduler, size and negative prompt mean what the command's flags mean."""
    flags = ["--guidance-scale", "4.3", "--scheduler", "euler", "--width", "48", "--height", "32",
             "--negative-prompt", "a green triangle"]
    expected = context.commanded(PROMPTS[0], 11, *flags)
    values = {"PROMPT": PROMPTS[0], "SEED": 11, "STEPS": STEPS, "GUIDANCE_SCALE": 4.3, "SCHEDULER": "euler", "WIDTH": 48,
              "HEIGHT": 32, "NEGATIVE_PROMPT": "a green triangle"}
    for client in context.clients:
        assert infer(client, "plain", values, ["ENCODED"]).as_numpy("ENCODED")[0] == expected
    return "equal"


@check
def pipeline_file(context):
    """A pipeline file in the version's folder says what a request leaves out; a request without inputs is allowed."""
    expected = context.commanded(PROMPTS[0], 5)
    for kind, client in context.clients[1:]:
        result = client.infer("shapes", [])
        assert (result.as_numpy("IMAGE") == pixels(expected)).all()
    result = infer(context.clients[0], "shapes", {"SEED": 5})
    assert (result.as_numpy("IMAGE") == pixels(expected)).all()
    context.load("directory")
    values = {"PROMPT": PROMPTS[0], "SEED": 5, "STEPS": STEPS}
    assert (infer(context.clients[1], "directory", values, ["IMAGE"]).as_numpy("IMAGE") == pixels(expected)).all()
    return "a file and a model directory: equal"


@check
def input_images(context):
    """An image as a file and as pixels, against the command with the file."""
    source = context.commanded(PROMPTS[0], 7)
    path = context.folder / "source.png"
    path.write_bytes(source)
    task = f'[task.image-to-image]\nimage = {json.dumps(str(path))}\nstrength = 0.8\n'
    expected = pixels(context.commanded(PROMPTS[1], 9, task=task))
    values = {"PROMPT": PROMPTS[1], "SEED": 9, "STEPS": STEPS, "STRENGTH": 0.8}
    for client in context.clients:
        assert (infer(client, "plain", {**values, "IMAGE": source}, ["IMAGE"]).as_numpy("IMAGE") == expected).all()
    context.load("declared")
    values = {"PROMPT": PROMPTS[1], "SEED": 9, "STEPS": STEPS, "IMAGE": pixels(source)}
    other = infer(context.clients[1], "declared", values, ["IMAGE"], {"SEED": "INT64"}).as_numpy("IMAGE")
    task = f'[task.image-to-image]\nimage = {json.dumps(str(path))}\n'
    assert (other[0] == pixels(context.commanded(PROMPTS[1], 9, task=task))).all()
    return "files and pixels: equal"


@check
def several_images(context):
    """Several prompts in a request, where the output has a dimension for them, and where it has none."""
    values = {"PROMPT": PROMPTS, "SEED": 7, "STEPS": STEPS}
    expected = [pixels(context.commanded(prompt, 7 + index)) for index, prompt in enumerate(PROMPTS)]
    for client in context.clients:
        context.load("declared")
        result = infer(client, "declared", values, types={"SEED": "INT64"})
        images, encoded = result.as_numpy("IMAGE"), result.as_numpy("ENCODED")
        assert images.shape == (3, *expected[0].shape) and all((a == b).all() for a, b in zip(images, expected))
        assert [each[:4] + each[8:12] for each in encoded] == [b"RIFFWEBP"] * 3
        assert all((pixels(a) == b).all() for a, b in zip(encoded, expected))
        status, text = failure(lambda: infer(client, "plain", values, ["IMAGE"]))
        assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "output IMAGE" in text, (status, text)
        assert len(infer(client, "plain", values, ["ENCODED"]).as_numpy("ENCODED")) == 3
    return "3 images in a response; refused by name where there is no room"


@check
def wrong_requests(context):
    """Each wrong input is an error of the request that names it, and the next request works."""
    import numpy

    valid = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS}
    cases = [({**valid, "STEPS": [1, 2]}, "STEPS"), ({**valid, "STEPS": 0}, "steps"), ({**valid, "STEPS": -3}, "steps"),
             ({**valid, "WIDTH": 33}, "width"), ({**valid, "SCHEDULER": "eulr"}, "eulr"),
             ({**valid, "GUIDANCE_SCALE": float("nan")}, "GUIDANCE_SCALE"), ({**valid, "STRENGTH": 0.5}, "strength"),
             ({**valid, "IMAGE": b"no image"}, "image"), ({**valid, "MASK": b""}, "mask"),
             ({**valid, "PROMPT": b"\xff\xfe"}, "PROMPT"), ({"REQUEST": "{"}, "REQUEST"), ({"REQUEST": "[]"}, "REQUEST"),
             ({"REQUEST": '{"prompt": null}'}, "prompt"), ({"REQUEST": '{"promt": "x"}'}, "promt"),
             ({"REQUEST": '{"image": "/etc/hostname"}'}, "image"), ({"REQUEST": '{"model": {"path": "x"}}'}, "model"),
             ({"REQUEST": '{"control": [{"image": "x.png"}]}'}, "control.image"),
             ({**valid, "SEED": 2**64 - 1}, "seed"), ({**valid, "LORAS": [0.5]}, "lora"),
             ({**valid, "PROMPT": numpy.array([], dtype=numpy.object_)}, "PROMPT"), ({**valid, "PROMT": "x"}, "PROMT"),
             ({**valid, "SEED": numpy.array([7], dtype="float32")}, "SEED")]
    for client in context.clients:
        for values, name in cases:
            status, text = failure(lambda: infer(client, "plain", values))
            assert status in ("400", "StatusCode.INVALID_ARGUMENT"), (values, status, text)
            assert name in text, (values, text)
        assert infer(client, "plain", valid, ["ENCODED"]).as_numpy("ENCODED")[0] == context.commanded(PROMPTS[0], 7)
    return f"{len(cases)} requests over HTTP and gRPC: refused by name"


@check
def wrong_models(context):
    """Each wrong configuration fails to load, with a text that says why."""
    texts = {"no_pipeline": "pipeline.toml", "no_model": "absent.toml", "bad_settings": "threads",
             "bad_parameter": "piepline", "bad_input": "PROMT"}
    for model, name in texts.items():
        _, text = failure(lambda: context.load(model))
        assert name in text, (model, text)
    return f"{len(texts)} configurations: refused by name"


@check
def batches(context):
    """Rows of one request and requests that meet in the queue have the bytes that they have alone."""
    import numpy

    expected = [context.commanded(prompt, 7 + index) for index, prompt in enumerate(PROMPTS)]
    rows = {"PROMPT": numpy.array([[prompt.encode()] for prompt in PROMPTS], dtype=numpy.object_),
            "SEED": numpy.array([[7], [8], [9]], dtype="uint64"), "STEPS": numpy.full((3, 1), STEPS, dtype="int32")}
    counts = []
    for model, runs in [("batched", 3), ("joined", 1)]:
        context.load(model)
        for client in context.clients:
            before = context.server.statistics(model)
            result = infer(client, model, rows)
            assert result.as_numpy("IMAGE").shape == (3, *pixels(expected[0]).shape)
            assert [each[0] for each in result.as_numpy("ENCODED")] == expected
            assert [int(each[0]) for each in result.as_numpy("SEED")] == [7, 8, 9]
            after = context.server.statistics(model)
            assert after["inference_count"] - before.get("inference_count", 0) == 3
            assert after["execution_count"] - before.get("execution_count", 0) == runs, (model, before, after)
        before = context.server.statistics(model)["execution_count"]
        results = in_parallel(context, model, [rows_of(prompt, 7 + index) for index, prompt in enumerate(PROMPTS)])
        assert [result.as_numpy("ENCODED")[0][0] for result in results] == expected
        counts.append(f"{model}: 3 requests in {context.server.statistics(model)['execution_count'] - before} runs")
        # One wrong row is an error of its request; the others are answered.
        wrong = rows_of(PROMPTS[1], 8)
        wrong["STEPS"] = numpy.array([[0]], dtype="int32")
        results = in_parallel(context, model, [rows_of(PROMPTS[0], 7), wrong, rows_of(PROMPTS[2], 9)])
        assert "steps" in str(results[1]) and isinstance(results[1], Exception), results[1]
        assert [results[at].as_numpy("ENCODED")[0][0] for at in (0, 2)] == [expected[0], expected[2]]
    return "; ".join(counts)


def rows_of(prompt, seed):
    import numpy

    return {"PROMPT": numpy.array([[prompt.encode()]], dtype=numpy.object_), "SEED": numpy.array([[seed]], dtype="uint64"),
            "STEPS": numpy.array([[STEPS]], dtype="int32")}


def in_parallel(context, model, requests):
    """Sends requests at the same time, and returns results or exceptions."""
    results = [None] * len(requests)

    def send(at):
        try:
            results[at] = infer(context.server.clients()[1], model, requests[at])
        except Exception as error:  # noqa: BLE001
            results[at] = error

    threads = [threading.Thread(target=send, args=(at,)) for at in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@check
def previews(context):
    """A decoupled model sends a preview for each step asked for, then the image; errors end the stream's request."""
    import queue

    context.load("decoupled")
    kind, client = context.server.clients()[1]
    answers = queue.Queue()
    client.start_stream(lambda result, error: answers.put((result, error)))

    def responses(values):
        client.async_stream_infer("decoupled", inputs_of(kind, values), enable_empty_final_response=True)
        while True:
            result, error = answers.get(timeout=300)
            yield result, error
            if error is not None or result.get_response().parameters["triton_final_response"].bool_param:
                return

    expected = context.commanded(PROMPTS[0], 7)
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS, "PREVIEW": 1}
    received = [result for result, _ in responses(values)]
    events = [json.loads(result.as_numpy("EVENT")[0]) for result in received]
    assert [event["event"] for event in events] == ["preview"] * (len(events) - 1) + ["image"] and len(events) > 1, events
    assert all(result.as_numpy("IMAGE").ndim == 3 and result.as_numpy("ENCODED") is None for result in received[:-1])
    assert received[-1].as_numpy("ENCODED")[0] == expected
    assert (received[-1].as_numpy("IMAGE") == pixels(expected)).all()
    several = [result for result, _ in responses({"PROMPT": PROMPTS, "SEED": 7, "STEPS": STEPS})]
    assert [int(result.as_numpy("SEED")[0]) for result in several] == [7, 8, 9]
    [(_, error)] = responses({**values, "STEPS": 0})
    assert "steps" in error.message(), error
    [(result, error)] = responses({"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS})
    assert error is None and result.as_numpy("ENCODED")[0] == expected
    client.stop_stream()
    return f"{len(events) - 1} previews of {STEPS} steps, then the command's bytes"


LONG = 1000
CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import triton_test, tritonclient.grpc, tritonclient.http
kind = {"http": tritonclient.http, "grpc": tritonclient.grpc}[sys.argv[2]]
options = {"network_timeout": 600} if sys.argv[2] == "http" else {}
client = kind.InferenceServerClient(sys.argv[3], **options)
print("ready", flush=True)
triton_test.infer((kind, client), sys.argv[4], {"PROMPT": "a red circle", "SEED": 1, "STEPS": triton_test.LONG}, ["IMAGE"])
"""


def start_long(context, protocol, model):
    """Starts a client of its own process with a request of many steps, which is running when this returns."""
    port = {"http": context.server.http, "grpc": context.server.grpc}[protocol]
    command = [sys.executable, "-c", CLIENT, str(Path(__file__).parent), protocol, f"127.0.0.1:{port}", model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    time.sleep(1)
    assert process.poll() is None
    return process


@check
def killed_clients(context):
    """The run of a killed client ends early, and the next request of the same instance works."""
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS}
    seconds = []
    for protocol in ("http", "grpc"):
        start = time.monotonic()
        infer(context.clients[0], "plain", {**values, "STEPS": 40}, ["IMAGE"])
        whole = (time.monotonic() - start) * LONG / 40
        process = start_long(context, protocol, "plain")
        process.kill()
        process.wait()
        start = time.monotonic()
        result = infer(context.clients[0], "plain", values, ["ENCODED"])
        waited = time.monotonic() - start
        assert result.as_numpy("ENCODED")[0] == context.commanded(PROMPTS[0], 7)
        assert waited < whole / 3, f"{protocol}: the next request waited {waited:.1f} s of the killed one's {whole:.1f} s"
        seconds.append(f"{protocol}: next answer after {waited:.2f} s (the killed run takes {whole:.0f} s)")
    failed = context.server.statistics("plain")["inference_stats"]["fail"]["count"]
    return "; ".join(seconds) + f"; {failed} failures counted"


@check
def cancelled_requests(context):
    """A gRPC request that its client cancels is an error of that kind, and ends the run."""
    kind, client = context.clients[1]
    answers = []
    values = {"PROMPT": PROMPTS[0], "SEED": 1, "STEPS": LONG}
    call = client.async_infer("plain", inputs_of(kind, values), lambda result, error: answers.append(error))
    time.sleep(1)
    call.cancel()
    start = time.monotonic()
    infer(context.clients[0], "plain", {**values, "STEPS": 1}, ["SEED"])
    waited = time.monotonic() - start
    assert len(answers) == 1 and "CANCELLED" in str(answers[0].status()).upper(), answers
    return f"next answer after {waited:.2f} s"


@check
def two_instances(context):
    """A request is answered while another one runs on the second instance."""
    context.load("two")
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS}
    expected = infer(context.clients[0], "plain", values, ["IMAGE"]).as_numpy("IMAGE")
    process = start_long(context, "grpc", "two")
    start = time.monotonic()
    assert (infer(context.clients[0], "two", values, ["IMAGE"]).as_numpy("IMAGE") == expected).all()
    waited = time.monotonic() - start
    assert process.poll() is None, "the long request is over already"
    process.kill()
    process.wait()
    results = in_parallel(context, "two", [values] * 4)
    assert all((result.as_numpy("IMAGE") == expected).all() for result in results)
    return f"answered after {waited:.2f} s beside a run; 4 at a time: equal"


@check
def statistics(context):
    """Counts and times of the server, and the time that a request spends outside of the run."""
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": 20}
    client = context.clients[1]
    infer(client, "plain", values, ["IMAGE"])
    before = context.server.statistics("plain")["inference_stats"]
    start = time.monotonic_ns()
    for _ in range(5):
        infer(client, "plain", values, ["IMAGE"])
    elapsed = (time.monotonic_ns() - start) / 5
    after = context.server.statistics("plain")["inference_stats"]
    assert after["success"]["count"] - before["success"]["count"] == 5
    inside = (after["compute_infer"]["ns"] - before["compute_infer"]["ns"]) / 5
    assert 0 < inside < elapsed
    overhead = elapsed - inside
    return f"20 steps: {elapsed / 1e6:.1f} ms a request, {overhead / 1e6:.2f} ms outside of the run ({overhead / elapsed:.1%})"


@check
def loading_again(context):
    """Loading, asking and unloading fifty times does not let the server grow."""
    client = context.clients[0][1]
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": 1}
    sizes, start = [], time.monotonic()
    for _ in range(CYCLES):
        client.unload_model("plain")
        for _ in range(100):
            if not client.is_model_ready("plain"):
                break
            time.sleep(0.01)
        client.load_model("plain")
        infer(context.clients[0], "plain", values, ["IMAGE"])
        sizes.append(context.server.resident())
    growth = min(sizes[-5:]) - max(sizes[8:12])
    mib = [f"{sizes[at] / 2**20:.0f}" for at in (0, 9, 24, CYCLES - 1)]
    assert growth < MOST_GROWTH, f"the server grew from {mib}"
    seconds = time.monotonic() - start
    return f"{CYCLES} cycles in {seconds:.0f} s; MiB after 1, 10, 25 and {CYCLES}: {', '.join(mib)}"


def main():
    parser = argparse.ArgumentParser()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"
    parser.add_argument("--venv")
    parser.add_argument("--target", type=Path, default=target)
    parser.add_argument("--command", type=Path)
    parser.add_argument("--runtime", type=Path, default=os.environ.get("ORT_DYLIB_PATH"))
    parser.add_argument("--model", type=Path, default=ROOT / "models" / "shapes")
    parser.add_argument("--only", default="")
    arguments = parser.parse_args()
    if arguments.venv:
        in_environment(arguments)
    if arguments.runtime is None:
        parser.error("--runtime is missing: name ONNX Runtime's library")
    arguments.command = (arguments.command or arguments.target / "ldm-ort").resolve()
    arguments.runtime, arguments.model = arguments.runtime.resolve(), arguments.model.resolve()
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:
        folder = Path(folder)
        server = Server(arguments, folder)
        failed = []
        try:
            server.wait()
            context = Context(arguments, server, folder)
            context.load("plain")
            for function in CHECKS:
                if arguments.only not in function.__name__:
                    continue
                start = time.monotonic()
                try:
                    print(f"ok     {function.__name__}: {function(context)} [{time.monotonic() - start:.1f} s]", flush=True)
                except Exception as error:  # noqa: BLE001
                    failed.append(function.__name__)
                    print(f"FAILED {function.__name__}: {type(error).__name__}: {error}", flush=True)
                    if server.process.poll() is not None:
                        break
        finally:
            code = server.stop()
        print(f"the server ended with {code}")
        if failed or code != 0:
            print("\n".join(server.log.read_text().splitlines()[-30:]))
            raise SystemExit(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
