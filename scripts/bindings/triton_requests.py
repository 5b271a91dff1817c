"""Checks of single requests, their errors and models: for triton_test.py."""

import json
import subprocess
import sys
from pathlib import Path

from triton_server import PROMPTS, STEPS, check, failure, infer, parity, pixels, snippet


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
def parity_of_front_ends(context):
    """The requests in tests/parity: the command's files, and its pixels for input images in memory."""
    images = 0
    for case in parity("requests.json"):
        folder = context.folder / f"parity-{case['name']}"
        folder.mkdir()
        (folder / case["pipeline"]).write_text(parity(case["pipeline"]))
        encoding = ["--format", case["format"]] + (["--quality", str(case["quality"])] if "quality" in case else [])
        command = [context.arguments.command, "run", folder / case["pipeline"], *case["flags"], *encoding, "-q", "-o", folder]
        answer = subprocess.run(command, env=context.environment, check=True, capture_output=True, text=True)
        expected = [Path(line).read_bytes() for line in answer.stdout.splitlines()]
        model, inputs = f"parity_{case['name']}", case.get("inputs", {})
        context.load(model)
        for client in context.clients:
            whole = {"REQUEST": json.dumps({**case["request"], **inputs})}
            assert list(infer(client, model, whole, ["ENCODED"]).as_numpy("ENCODED")) == expected, case["name"]
            memory = {key.upper(): Path(path).read_bytes() for key, path in inputs.items()}
            encoded = infer(client, model, {"REQUEST": json.dumps(case["request"]), **memory}, ["ENCODED"]).as_numpy("ENCODED")
            assert all((pixels(a) == pixels(b)).all() for a, b in zip(encoded, expected, strict=True)), case["name"]
        images += len(expected)
    return f"{images} images, HTTP and gRPC: equal"


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
