"""Threads, forks, pickles, and what opening and closing leaves behind."""

import concurrent.futures
import copy
import ctypes
import gc
import multiprocessing
import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import ldm_ort
import pytest


def python(code: str, **keywords) -> subprocess.CompletedProcess[str]:
    code = textwrap.dedent(code)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, **keywords)


def test_two_threads_with_two_pipelines(pipeline_file, pipe):
    expected = {seed: pipe(seed=seed)[0].tobytes() for seed in range(4)}
    with ldm_ort.Pipeline(pipeline_file, threads=1) as one, ldm_ort.Pipeline(pipeline_file, threads=1) as two:
        def make(other: ldm_ort.Pipeline, seeds: range) -> dict[int, bytes]:
            return {seed: other(seed=seed)[0].tobytes() for seed in seeds}

        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            halves = [pool.submit(make, one, range(2)), pool.submit(make, two, range(2, 4))]
            made = halves[0].result() | halves[1].result()
    assert made.keys() == expected.keys()
    close = [max(abs(a - b) for a, b in zip(made[seed], expected[seed])) for seed in expected]
    # One thread and two round differently.
    assert max(close) <= 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_after_opening_is_refused(pipe, pipeline_file):
    def child(answers) -> None:
        for use in (pipe, pipe.check, lambda: ldm_ort.Pipeline(pipeline_file)):
            try:
                use()
                answers.put("nothing")
            except RuntimeError as error:
                answers.put(str(error))

    context = multiprocessing.get_context("fork")
    answers = context.SimpleQueue()
    process = context.Process(target=child, args=(answers,))
    process.start()
    for _ in range(3):
        text = answers.get()
        assert f"process {process.pid} was forked from {os.getpid()}" in text and "hint: fork first" in text
    process.join(20)
    assert process.exitcode == 0
    assert len(pipe(steps=1)) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_that_ends_in_order_ends(pipeline_file):
    answer = python(f"""
        import os, sys, ldm_ort
        pipe = ldm_ort.Pipeline({str(pipeline_file)!r})
        pipe(steps=1)
        child = os.fork()
        if child == 0:
            del pipe
            sys.exit(3)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), len(pipe(steps=1)))
    """)
    assert (answer.stdout.strip(), answer.returncode) == ("3 1", 0), answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_fork_before_opening_works(pipeline_file):
    answer = python(f"""
        import os, ldm_ort
        ldm_ort.Engine()
        child = os.fork()
        pipe = ldm_ort.Pipeline({str(pipeline_file)!r})
        assert len(pipe(steps=1)) == 1
        if child:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """)
    assert (answer.stdout.strip(), answer.returncode) == ("0", 0), answer


def test_pickling_is_refused_with_advice(pipe):
    previews = []
    image = pipe(steps=2, preview=1, callback=lambda event: previews.append(event.get("pixels")))[0]
    preview = next(preview for preview in previews if preview is not None)
    for value in (pipe, image, preview, ldm_ort.Cancel(), ldm_ort.Engine()):
        for use in (pickle.dumps, copy.copy, copy.deepcopy):
            with pytest.raises(TypeError, match=f"cannot pickle '{type(value).__name__}' object\n  hint: "):
                use(value)


def allocated() -> int:
    """The bytes in use of glibc's heaps. Resident memory varies by 30 MB with what the heaps keep for later."""

    class Counts(ctypes.Structure):
        names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
        _fields_ = [(name, ctypes.c_size_t) for name in names.split()]

    mallinfo = ctypes.CDLL(None).mallinfo2
    mallinfo.restype = Counts
    counts = mallinfo()
    return counts.uordblks + counts.hblkhd


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="this system does not count what is allocated"
)
def test_open_run_close_leaves_nothing_behind(pipeline_file):
    def cycle() -> None:
        with ldm_ort.Pipeline(pipeline_file) as pipe:
            pipe(steps=1, callback=lambda event: None)

    for _ in range(5):
        cycle()
    gc.collect()
    before, threads = allocated(), len(os.listdir("/proc/self/task"))
    for _ in range(20):
        cycle()
    gc.collect()
    assert len(os.listdir("/proc/self/task")) <= threads
    # A leaked pipeline takes 23 MB, and the pixels of an image 12 kB.
    assert allocated() - before < 128 << 10


def test_a_program_ends_while_a_pipeline_is_open(pipeline_file):
    answer = python(f"""
        import ldm_ort
        pipe = ldm_ort.Pipeline({str(pipeline_file)!r})
        image = pipe(steps=1)[0]
    """)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_a_program_ends_while_a_daemon_runs_a_pipeline(pipeline_file):
    answer = python(f"""
        import threading, time, ldm_ort
        pipe = ldm_ort.Pipeline({str(pipeline_file)!r})
        threading.Thread(target=lambda: pipe(steps=1000), daemon=True).start()
        time.sleep(0.3)
    """)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_warnings_are_pythons_where_nothing_listens(pipeline_file):
    code = f"""
        import ldm_ort
        ldm_ort.Pipeline({str(pipeline_file)!r})
    """
    # The old name of a variable.
    environment = {name: value for name, value in os.environ.items() if name != "LDM_ORT_OPTIMIZE"}
    answer = python(code, env={**environment, "LDM_ORT_PREPARE": "0"})
    assert answer.returncode == 0 and "UserWarning: " in answer.stderr and "LDM_ORT_OPTIMIZE" in answer.stderr, answer
    assert "_native" not in answer.stderr
