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
import json
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from triton_server import (
    LONG, PROMPTS, ROOT, STEPS, Context, Server, failure, in_environment, in_parallel, infer, inputs_of, pixels, rows_of, snippet,
    start_long,
)

CYCLES = 50
# Growth of the server from the tenth load to the last, with one heap for all threads.
MOST_GROWTH = 8 << 20
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


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
    flags = ["--set", "task.text-to-image.guidance_scale=4.3", "--scheduler", "euler", "--width", "48", "--height", "32",
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
             ({**valid, "SEED": 2**64 - 1}, "SEED"), ({**valid, "LORAS": [0.5]}, "lora"),
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
    texts = {"no_pipeline": ("pipeline.toml", "Invalid argument"), "no_model": ("absent.toml", "Invalid argument"),
             "bad_settings": ("threads", "Invalid argument"), "bad_parameter": ("piepline", "Invalid argument"),
             "bad_input": ("PROMT", "Invalid argument"), "no_provider": ("qnn", "Unavailable")}
    for model, names in texts.items():
        _, text = failure(lambda: context.load(model))
        assert all(name in text for name in names), (model, text)
    return f"{len(texts)} configurations: refused by name"


@check
def memory_budget(context):
    """A request that does not fit into the memory budget is refused; the next one works."""
    context.load("small")
    for client in context.clients:
        status, text = failure(lambda: infer(client, "small", {"WIDTH": 2048, "HEIGHT": 2048, "PROMPT": PROMPTS[0]}))
        assert status in ("400", "StatusCode.INVALID_ARGUMENT") and "device.memory_budget" in text, (status, text)
    infer(context.clients[1], "small", {"PROMPT": PROMPTS[0], "STEPS": 1}, ["SEED"])
    return "refused by name"


@check
def guide(context):
    """The guide's configuration and program, as written but for the server's address."""
    context.load("lighthouse")
    program = snippet("import numpy as np").replace("localhost:8001", f"127.0.0.1:{context.server.grpc}")
    subprocess.run([sys.executable, "-c", program], cwd=context.folder, check=True)
    command = [context.arguments.command, "run", context.arguments.model, "--prompt", "a lighthouse in the fog", "--seed", "7",
               "--output", context.folder / "guide"]
    subprocess.run(command, env=context.environment, check=True, capture_output=True)
    [expected] = (context.folder / "guide").iterdir()
    assert (pixels((context.folder / "lighthouse.png").read_bytes()) == pixels(expected.read_bytes())).all()
    return "equal"


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
            before = context.statistics(model)
            result = infer(client, model, rows)
            assert result.as_numpy("IMAGE").shape == (3, *pixels(expected[0]).shape)
            assert [each[0] for each in result.as_numpy("ENCODED")] == expected
            assert [int(each[0]) for each in result.as_numpy("SEED")] == [7, 8, 9]
            # One success of three inferences.
            after = context.statistics_after(model, before, 1)
            assert after["inference_count"] - before["inference_count"] == 3
            assert after["execution_count"] - before["execution_count"] == runs, (model, before, after)
        before = context.statistics(model)["execution_count"]
        results = in_parallel(context, model, [rows_of(prompt, 7 + index) for index, prompt in enumerate(PROMPTS)])
        assert [result.as_numpy("ENCODED")[0][0] for result in results] == expected
        counts.append(f"{model}: 3 requests in {context.statistics(model)['execution_count'] - before} runs")
        # One wrong row is an error of its request; the others are answered.
        wrong = rows_of(PROMPTS[1], 8)
        wrong["STEPS"] = numpy.array([[0]], dtype="int32")
        results = in_parallel(context, model, [rows_of(PROMPTS[0], 7), wrong, rows_of(PROMPTS[2], 9)])
        assert "steps" in str(results[1]) and isinstance(results[1], Exception), results[1]
        assert [results[at].as_numpy("ENCODED")[0][0] for at in (0, 2)] == [expected[0], expected[2]]
    return "; ".join(counts)


@check
def previews(context):
    """A decoupled model sends a preview for each step asked for, then the image; errors end the stream's request."""
    import queue

    context.load("decoupled")
    kind, client = context.server.client("grpc")
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
    assert [event["step"] for event in events[:-1]] == list(range(1, len(events))) and events[-1]["seed"] == 7, events
    assert all(result.as_numpy("IMAGE").ndim == 3 and result.as_numpy("ENCODED") is None for result in received[:-1])
    assert received[-1].as_numpy("ENCODED")[0] == expected
    assert (received[-1].as_numpy("IMAGE") == pixels(expected)).all()
    several = [result for result, _ in responses({"PROMPT": PROMPTS, "SEED": 7, "STEPS": STEPS})]
    assert [int(result.as_numpy("SEED")[0]) for result in several] == [7, 8, 9]
    [(_, error)] = responses({**values, "STEPS": 0})
    assert "steps" in error.message(), error
    [(result, error)] = responses({"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS})
    assert error is None and result.as_numpy("ENCODED")[0] == expected
    # A stream that is given up ends its run.
    client.async_stream_infer("decoupled", inputs_of(kind, {**values, "STEPS": LONG}))
    answers.get(timeout=300)
    client.stop_stream(cancel_requests=True)
    kind, client = context.server.client("grpc")
    client.start_stream(lambda result, error: answers.put((result, error)))
    start = time.monotonic()
    while not answers.empty():
        answers.get()
    received = [result for result, error in responses({"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS})]
    waited = time.monotonic() - start
    assert received[-1].as_numpy("ENCODED")[0] == expected
    client.stop_stream()
    return f"{len(events) - 1} previews of {STEPS} steps, then the command's bytes; next answer after {waited:.2f} s"


@check
def killed_clients(context):
    """The run of a killed gRPC client ends at once. Triton does not tell of a killed HTTP client: that run goes on. The next
    request of the same instance works either way."""
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": STEPS}
    start = time.monotonic()
    infer(context.clients[0], "plain", {**values, "STEPS": 30}, ["IMAGE"])
    whole = (time.monotonic() - start) * LONG / 30
    seconds = []
    for protocol in ("grpc", "http"):
        process = start_long(context, protocol, "plain")
        process.kill()
        process.wait()
        start = time.monotonic()
        result = infer(context.clients[0], "plain", values, ["ENCODED"])
        waited = time.monotonic() - start
        assert result.as_numpy("ENCODED")[0] == context.commanded(PROMPTS[0], 7)
        assert protocol == "http" or waited < whole / 4, f"waited {waited:.1f} s of the killed run's {whole:.1f} s"
        seconds.append(f"{protocol}: next answer after {waited:.2f} s")
    failed = context.statistics("plain")["inference_stats"]["fail"]["count"]
    return "; ".join(seconds) + f" (the whole run: {whole:.0f} s); {failed} failures counted"


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
    # The number of threads is that of the model's settings.
    expected = pixels(context.commanded(PROMPTS[0], 7, "--set", "device.threads=1"))
    process = start_long(context, "grpc", "two")
    try:
        start = time.monotonic()
        result = infer(context.clients[0], "two", values, ["IMAGE"])
        waited = time.monotonic() - start
        assert process.poll() is None, "the long request is over already"
    finally:
        process.kill()
        process.wait()
    results = [result, *in_parallel(context, "two", [values] * 4)]
    assert all((result.as_numpy("IMAGE") == expected).all() for result in results)
    return f"answered after {waited:.2f} s beside a run; 4 at a time: equal"


@check
def statistics(context):
    """Counts and times of the server, and the time that a request spends outside of the run."""
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": 20}
    client = context.clients[1]
    infer(client, "plain", values, ["IMAGE"])
    time.sleep(1)
    before = context.statistics("plain")
    start = time.monotonic_ns()
    for _ in range(5):
        infer(client, "plain", values, ["IMAGE"])
    elapsed = (time.monotonic_ns() - start) / 5
    after = context.statistics_after("plain", before, 5)["inference_stats"]
    before = before["inference_stats"]
    inside = (after["compute_infer"]["ns"] - before["compute_infer"]["ns"]) / 5
    assert 0 < inside < elapsed
    overhead = elapsed - inside
    return f"20 steps: {elapsed / 1e6:.1f} ms a request, {overhead / 1e6:.2f} ms outside of the run ({overhead / elapsed:.1%})"


@check
def loading_again(context):
    """Loading, asking and unloading fifty times does not let a server grow."""
    values = {"PROMPT": PROMPTS[0], "SEED": 7, "STEPS": 1}
    sizes, start = [], time.monotonic()
    # Each instance has a thread of its own, for which glibc keeps a heap; with one heap for all, growth is a leak.
    with tempfile.TemporaryDirectory(prefix="triton-test-") as folder:
        server = Server(context.arguments, Path(folder), {"MALLOC_ARENA_MAX": "1"})
        try:
            server.wait()
            own = server.client("http")
            for _ in range(CYCLES):
                own[1].load_model("plain")
                infer(own, "plain", values, ["IMAGE"])
                own[1].unload_model("plain")
                while own[1].is_model_ready("plain"):
                    time.sleep(0.01)
                sizes.append(server.resident())
            own[1].close()
        finally:
            code = server.stop()
    growth = max(sizes[-5:]) - max(sizes[8:12])
    mib = ", ".join(f"{sizes[at] / 2**20:.1f}" for at in (0, 9, 24, CYCLES - 1))
    assert growth < MOST_GROWTH, f"the server grew: {mib} MiB"
    assert code == 0, code
    return f"{CYCLES} cycles in {time.monotonic() - start:.0f} s; MiB after 1, 10, 25 and {CYCLES}: {mib}"


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
                    print(f"FAILED {function.__name__}: {''.join(traceback.format_exception(error))}", flush=True)
                    if server.process.poll() is not None:
                        break
            context.close()
        finally:
            code = server.stop()
        print(f"the server ended with {code}")
        if failed or code != 0:
            print("\n".join(server.log.read_text().splitlines()[-30:]))
            raise SystemExit(f"{len(failed)} of {len(CHECKS)} checks failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
