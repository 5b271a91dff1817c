"""A Triton server with a model repository, its clients, and the command to compare with: for triton_test.py."""

import functools
import importlib.util
import io
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
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ["nvidia-pytriton==0.7.0", "tritonclient[http,grpc]", "numpy<2", "pillow"]
PROMPTS = ["a red circle", "a blue square on a white background", "a small yellow star"]
STEPS = 3
# Steps of a request that is still running when its client is killed.
LONG = 300
CHECKS = []


def check(function):
    """Adds a check: a function that returns a summary, or raises."""
    CHECKS.append(function)
    return function


def in_environment(arguments):
    """Continues in the virtual environment, which is made first if need be."""
    python = Path(arguments.venv) / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", arguments.venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    if Path(sys.prefix).resolve() != Path(arguments.venv).resolve():
        os.execv(python, [str(python), *sys.argv])


def snippet(start):
    """The block of the guide that starts with a text."""
    blocks = re.findall(r"^```\w*\n(.*?)^```", (ROOT / "docs/triton.md").read_text(), re.MULTILINE | re.DOTALL)
    [block] = [block for block in blocks if block.startswith(start)]
    return block


def parity(name):
    """A file of tests/parity, the requests that every front end answers with the same bytes."""
    text = (ROOT / "tests" / "parity" / name).read_text().replace("@ROOT@", str(ROOT))
    return json.loads(text) if name.endswith(".json") else text


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

    def __init__(self, arguments, folder, environment={}):
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
        inherited = {key: value for key, value in os.environ.items() if key != "ORT_DYLIB_PATH"}
        environment = {**inherited, **environment}
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
        self.parity(self.parameter("allow_paths", "true"))
        self.model("no_pipeline", "")
        self.model("no_model", self.parameter("pipeline", "absent.toml"))
        self.model("bad_settings", path + self.parameter("settings", '{"device": {"threads": "many"}}'))
        self.model("no_provider", path + self.parameter("settings", '{"device": {"provider": "qnn"}}'))
        self.model("small", path + self.parameter("settings", '{"device": {"memory_budget": "600 MB"}}'))
        self.model("bad_parameter", path + self.parameter("piepline", "x"))
        self.model("bad_input", path + 'input [{ name: "PROMT" data_type: TYPE_STRING dims: [1] }]\n')

        self.guide()

    def parity(self, paths):
        """A model for each format of the requests in tests/parity, from their pipeline file."""
        for case in parity("requests.json"):
            form = "".join(self.parameter(key, case[key]) for key in ("format", "quality") if key in case)
            self.model(f"parity_{case['name']}", self.parameter("pipeline", "text.toml") + paths + form)
            (self.repository / f"parity_{case['name']}" / "1" / "text.toml").write_text(parity("text.toml"))

    def guide(self):
        """The model of the guide, with its configuration as written."""
        folder = self.repository / "lighthouse"
        folder.mkdir()
        os.symlink(self.arguments.model, folder / "1")
        (folder / "config.pbtxt").write_text(snippet('name: "lighthouse"'))

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
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return None

    def resident(self):
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) << 10

    def client(self, protocol):
        """A client of its own: the packages' objects are for one thread at a time."""
        import tritonclient.grpc
        import tritonclient.http

        if protocol == "grpc":
            return tritonclient.grpc, tritonclient.grpc.InferenceServerClient(f"127.0.0.1:{self.grpc}")
        return tritonclient.http, tritonclient.http.InferenceServerClient(f"127.0.0.1:{self.http}", network_timeout=300)


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
        self.environment = {**os.environ, "ORT_DYLIB_PATH": str(arguments.runtime),
                            "LDM_ORT_CACHE_DIR": str(folder / "cache"), "LDM_ORT_OFFLINE": "1"}
        self.clients = [server.client("http"), server.client("grpc")]

    def close(self):
        # The server waits for open connections when it stops.
        for _, client in self.clients:
            client.close()

    def statistics(self, model):
        return self.clients[0][1].get_inference_statistics(model)["model_stats"][0]

    def statistics_after(self, model, before, successes):
        """The statistics once that many more requests have succeeded: they are reported after an answer is sent."""
        for _ in range(100):
            after = self.statistics(model)
            found = after["inference_stats"]["success"]["count"] - before["inference_stats"]["success"]["count"]
            if found >= successes:
                break
            time.sleep(0.05)
        assert found == successes, f"{model}: expected {successes} more successes, found {found}"
        return after

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
        subprocess.run(command, env=self.environment, check=True, capture_output=True)
        [image] = (output / "images").iterdir()
        return image.read_bytes()


def pixels(encoded):
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


def rows_of(prompt, seed, steps=STEPS):
    import numpy

    return {"PROMPT": numpy.array([[prompt.encode()]], dtype=numpy.object_), "SEED": numpy.array([[seed]], dtype="uint64"),
            "STEPS": numpy.array([[steps]], dtype="int32")}


def in_parallel(context, model, requests):
    """Sends requests at the same time, and returns results or exceptions."""
    results = [None] * len(requests)

    def send(at):
        try:
            results[at] = infer(context.server.client("grpc"), model, requests[at])
        except Exception as error:  # noqa: BLE001
            results[at] = error

    threads = [threading.Thread(target=send, args=(at,)) for at in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


CLIENT = """
import sys
sys.path.insert(0, sys.argv[1])
import triton_server, tritonclient.grpc, tritonclient.http
kind = {"http": tritonclient.http, "grpc": tritonclient.grpc}[sys.argv[2]]
options = {"network_timeout": 600} if sys.argv[2] == "http" else {}
client = kind.InferenceServerClient(sys.argv[3], **options)
print("ready", flush=True)
triton_server.infer((kind, client), sys.argv[4], {"PROMPT": "a red circle", "SEED": 1, "STEPS": triton_server.LONG}, ["IMAGE"])
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
