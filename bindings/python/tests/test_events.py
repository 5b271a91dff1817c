"""Callbacks, cancelling, Ctrl-C."""

import os
import signal
import threading
import time

import ldm_ort
import pytest

LONG = 1000


def test_events_come_in_order(pipe):
    events = []
    images = pipe(steps=3, images=2, callback=events.append)
    names = [event["event"] for event in events]
    assert names[-1] == "done" and names.count("image") == 2
    steps = [(event["step"], event["steps"]) for event in events if event["event"] == "step" and event["image"] == 0]
    assert steps == [(1, 3), (2, 3), (3, 3)]
    finished = [event["pixels"] for event in events if event["event"] == "image"]
    assert [image.tobytes() for image in finished] == [image.tobytes() for image in images]
    assert all(isinstance(image, ldm_ort.Image) for image in finished)
    assert events[-1]["timings"]["calls"] > 0


def test_callbacks_run_on_the_calling_thread_with_any_answer(pipe):
    threads = set()

    def callback(event: dict[str, object]) -> bool:
        threads.add(threading.get_ident())
        return False

    assert len(pipe(steps=2, callback=callback)) == 1
    assert threads == {threading.get_ident()}


def test_an_exception_of_a_callback_ends_the_run(pipe):
    class Stop(Exception):
        pass

    events = []

    def callback(event):
        events.append(event)
        if event["event"] == "step" and event["step"] == 2:
            raise Stop("enough")

    with pytest.raises(Stop, match="enough"):
        pipe(steps=LONG, callback=callback)
    assert events[-1]["step"] == 2
    with pytest.raises(TypeError):
        pipe(steps=LONG, callback=lambda: None)
    assert len(pipe(steps=1)) == 1


def test_a_pipeline_refuses_a_call_of_its_own_callback(pipe):
    with pytest.raises(ValueError, match="runs another request\n  hint: "):
        pipe(callback=lambda event: pipe())
    with pytest.raises(ValueError, match="runs another request"):
        pipe(callback=lambda event: pipe.close())
    assert len(pipe(steps=1)) == 1


def test_cancelling_from_a_callback_and_from_another_thread(pipe):
    cancel = ldm_ort.Cancel()
    seen = []

    def callback(event):
        seen.append(event)
        if event["event"] == "step" and event["step"] == 3:
            cancel.cancel()

    with pytest.raises(ldm_ort.Cancelled, match="interrupted at step [34] of 1000"):
        pipe(steps=LONG, callback=callback, cancel=cancel)
    assert cancel.is_cancelled
    with pytest.raises(ldm_ort.Cancelled):
        pipe(steps=1, cancel=cancel)
    cancel = ldm_ort.Cancel()
    threading.Timer(0.3, cancel.cancel).start()
    started = time.monotonic()
    with pytest.raises(ldm_ort.Cancelled):
        pipe(steps=LONG, cancel=cancel)
    assert time.monotonic() - started < 2.5
    assert len(pipe(steps=1, cancel=ldm_ort.Cancel())) == 1


def interrupt_after(seconds: float) -> None:
    threading.Timer(seconds, lambda: os.kill(os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("callback", [None, lambda event: None])
def test_control_c_stops_a_run(pipe, callback):
    interrupt_after(0.3)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pipe(steps=LONG, callback=callback)
    assert time.monotonic() - started < 2.5
    assert len(pipe(steps=1)) == 1


def test_control_c_stops_within_a_step(pipe):
    """One step of this size takes longer than the test allows."""
    steps = []
    interrupt_after(0.5)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        pipe(steps=10, width=512, height=512, callback=lambda event: steps.append(event["event"]))
    assert time.monotonic() - started < 5
    assert len(pipe(steps=1)) == 1


def test_control_c_leaves_the_callers_switch(pipe):
    cancel = ldm_ort.Cancel()
    interrupt_after(0.3)
    with pytest.raises(KeyboardInterrupt):
        pipe(steps=LONG, cancel=cancel)
    assert not cancel.is_cancelled and len(pipe(steps=1, cancel=cancel)) == 1


def test_a_handler_of_the_programs_own_decides(pipe):
    """A handler that raises nothing lets the run go on."""
    seen = []
    before = signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    try:
        interrupt_after(0.05)
        assert len(pipe(steps=20)) == 1
        while not seen:
            time.sleep(0.01)
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [signal.SIGINT]


def test_the_interpreter_is_free_while_a_pipeline_runs(pipe):
    counted = 0
    done = threading.Event()

    def count() -> None:
        nonlocal counted
        while not done.is_set():
            counted += 1
            time.sleep(0.001)

    counter = threading.Thread(target=count)
    counter.start()
    started = time.monotonic()
    pipe(steps=30)
    seconds = time.monotonic() - started
    done.set()
    counter.join()
    # A held GIL would leave one or two.
    assert counted > 20 * seconds


def test_opening_reports_and_can_be_stopped(pipeline_file):
    events = []
    with ldm_ort.Pipeline(pipeline_file, callback=events.append) as pipe:
        pipe(steps=1, callback=events.append)
    assert {"opening", "loading"} <= {event["event"] for event in events}
    cancel = ldm_ort.Cancel()
    cancel.cancel()
    with pytest.raises(ldm_ort.Cancelled):
        ldm_ort.Pipeline(pipeline_file, cancel=cancel)
