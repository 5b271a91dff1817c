"""Checks of batches, previews, cancelling, instances, statistics and loading: for triton_test.py."""

import json
import queue
import tempfile
import time
from pathlib import Path

from triton_server import (
    LONG, PROMPTS, STEPS, Server, check, in_parallel, infer, inputs_of, pixels, rows_of, start_long,
)

CYCLES = 50
# Growth of the server from the tenth load to the last, with one heap for all threads.
MOST_GROWTH = 8 << 20


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
def cancelled_in_a_joined_run(context):
    """A run that two requests share goes on when one of them is cancelled."""
    context.load("joined")
    kind, client = context.clients[1]
    infer(context.clients[1], "joined", rows_of(PROMPTS[2], 1))
    before, answers, calls = context.statistics("joined"), {}, []
    for at in range(2):
        inputs = inputs_of(kind, rows_of(PROMPTS[at], 7 + at, 40))
        calls.append(client.async_infer("joined", inputs, lambda result, error, at=at: answers.update({at: (result, error)})))
    # They wait in the queue for others, then run.
    time.sleep(0.7)
    assert not answers, answers
    calls[0].cancel()
    while len(answers) < 2:
        time.sleep(0.01)
    assert "CANCELLED" in str(answers[0][1].status()).upper(), answers
    values = {"PROMPT": PROMPTS[1], "SEED": 8, "STEPS": 40}
    expected = infer(context.clients[0], "plain", values, ["ENCODED"]).as_numpy("ENCODED")[0]
    assert answers[1][0].as_numpy("ENCODED")[0][0] == expected
    runs = context.statistics("joined")["execution_count"] - before["execution_count"]
    assert runs == 1, runs
    return "the other one's bytes are equal, from 1 run"


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
