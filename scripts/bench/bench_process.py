"""Runs one process of the benchmark and watches it: time, memory, and the processor time that others took.
Linux only: it reads /proc. Not run by itself."""

import os
import signal
import subprocess
import threading
import time

import numpy as np

CPUS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
TICK = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# The instruction sets that decide the rate of matrix products, as Linux spells them (x86-64, AArch64).
INSTRUCTION_SETS = (
    "avx2 fma avx512f avx512_vnni avx_vnni avx512_bf16 avx512_fp16 amx_tile amx_bf16 amx_int8 amx_fp16 asimd asimddp asimdhp bf16 i8mm sve sve2"
).split()


def instruction_sets():
    """Those of INSTRUCTION_SETS that this CPU has."""
    with open("/proc/cpuinfo", encoding="utf-8") as f:
        flags = next((line.split(":")[1].split() for line in f if line.startswith(("flags", "Features"))), [])
    return [name for name in INSTRUCTION_SETS if name in flags]


def tree(pid):
    """A process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        pid = todo.pop()
        found.append(pid)
        try:
            for task in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{task}/children", encoding="ascii") as f:
                    todo += map(int, f.read().split())
        except OSError:
            pass  # it has ended meanwhile
    return found


def memory(pid):
    """VmHWM, RssAnon and RssFile (with shared memory) of a process in bytes, or None where it has ended."""
    out = {"VmHWM": 0, "RssAnon": 0, "RssFile": 0, "RssShmem": 0}
    try:
        with open(f"/proc/{pid}/status", encoding="utf-8", errors="replace") as f:
            for line in f:
                key, _, value = line.partition(":")
                if key in out:
                    out[key] = int(value.split()[0]) * 1024
    except OSError:
        return None
    return out


def cpu_seconds(pid):
    """CPU time that a process has spent so far, or 0 where it has ended."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as f:
            user, system = f.read().rpartition(")")[2].split()[11:13]
    except OSError:
        return 0.0
    return (int(user) + int(system)) / TICK


class Sampler(threading.Thread):
    """Looks at a process tree twenty times a second: keeps the largest sums of memory, and the CPU time spent by then."""

    def __init__(self, pid, start):
        super().__init__(daemon=True)
        self.pid, self.start_time, self.stop = pid, start, threading.Event()
        self.peaks, self.cpu = {"rss": 0, "anon": 0, "file": 0}, []

    def run(self):
        while not self.stop.is_set():
            pids = tree(self.pid)
            seen = [m for m in map(memory, pids) if m]
            self.cpu.append((time.monotonic() - self.start_time, sum(map(cpu_seconds, pids))))
            now = {
                "rss": sum(m["VmHWM"] for m in seen),  # the kernel's own peak misses nothing between two looks
                "anon": sum(m["RssAnon"] + m["RssShmem"] for m in seen),
                "file": sum(m["RssFile"] for m in seen),
            }
            self.peaks = {k: max(v, now[k]) for k, v in self.peaks.items()}
            self.stop.wait(0.05)


def busy():
    """Seconds of processor time that this machine has spent since it started, the host's theft of it included."""
    with open("/proc/stat", encoding="ascii") as f:
        user, nice, system, _idle, _wait, irq, soft, steal = map(int, f.readline().split()[1:9])
    return (user + nice + system + irq + soft + steal) / TICK


def own():
    t = os.times()
    return t.user + t.system


class Foreign:
    """The share of all processor time that was neither the benchmark's nor idle, from its making until `share`."""

    def __init__(self):
        self.start, self.busy, self.own = time.monotonic(), busy(), own()

    def share(self, spent):
        """`spent` is the processor time of the process measured."""
        wall = time.monotonic() - self.start
        return max(0.0, (busy() - self.busy - (own() - self.own) - spent) / (wall * CPUS))


def page_cache(paths, keep):
    """Reads files, so that they are in memory, or drops them from it."""
    for path in paths:
        with open(path, "rb", buffering=0) as f:
            if keep:
                buffer = bytearray(1 << 24)
                while f.readinto(buffer):
                    pass
            else:
                os.fsync(f.fileno())
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def files_of(folder):
    return [os.path.join(d, f) for d, _, files in os.walk(folder) for f in files]


def cpu_between(samples, span):
    """CPU seconds spent in a span (start and end in seconds since the process began), from the samples of a run. They are
    50 ms apart, so a span of less than a second says little."""
    times, spent = zip(*samples)
    start, end = np.interp(span, times, spent)
    return float(end - start)


class Failed(Exception):
    pass


class Slices(threading.Thread):
    """Lets several processes run in turns, so many seconds each, while the others are stopped: what the machine loses to its
    neighbours from minute to minute all of them lose."""

    def __init__(self, seconds, processes):
        super().__init__(daemon=True)
        self.seconds, self.processes = seconds, processes
        self.all_there = threading.Barrier(processes + 1, timeout=120)  # broken where one of them cannot be started
        self.ended, self.counted, self.active = {}, {}, {}

    def add(self, pid):
        """Stops a process that was just started until it is its turn."""
        os.killpg(pid, signal.SIGSTOP)
        self.active[pid], self.counted[pid], self.ended[pid] = 0.0, threading.Event(), threading.Event()
        self.all_there.wait()

    def run(self):
        self.all_there.wait()
        while turns := [pid for pid, ended in self.ended.items() if not ended.is_set()]:
            for pid in turns:
                start = time.monotonic()
                self.signal(pid, signal.SIGCONT)
                if not self.ended[pid].wait(self.seconds):
                    self.signal(pid, signal.SIGSTOP)
                self.active[pid] += time.monotonic() - start
                if self.ended[pid].is_set():
                    self.counted[pid].set()

    @staticmethod
    def signal(pid, which):
        try:
            os.killpg(pid, which)
        except ProcessLookupError:
            pass  # it has ended meanwhile

    def end(self, pid):
        """Returns the run time of an ended process."""
        self.ended[pid].set()
        self.counted[pid].wait(1)  # not if it was killed while it was another's turn
        return self.active[pid]


def set_priority(pid, nice):
    """Sets the priority of a process and of its session. Where the kernel groups sessions (autogroup), a process's own
    priority counts within its session only, and the group has one too."""
    try:
        os.setpriority(os.PRIO_PROCESS, pid, nice)
        with open(f"/proc/{pid}/autogroup", "w", encoding="ascii") as f:
            f.write(str(nice))
    except OSError:
        pass  # only root may raise a priority


def run(command, environment, nice=0, limit=3600, slices=None):
    """Runs a command to its end, in turns with others where there are slices. Returns its stdout, its stderr and what was
    measured."""
    foreign, start = Foreign(), time.monotonic()
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        env={**os.environ, **environment, "BENCH_START": repr(start)},
        start_new_session=True,  # a scheduling group of its own
    )
    if nice:
        set_priority(process.pid, nice)
    sampler = Sampler(process.pid, start)
    sampler.start()
    texts = ["", ""]

    def read(i, stream):
        texts[i] = stream.read()

    readers = [threading.Thread(target=read, args=a) for a in ((0, process.stdout), (1, process.stderr))]
    clock = threading.Timer(limit * (slices.processes if slices else 1), process.kill)
    for thread in (*readers, clock):
        thread.start()
    try:
        if slices:
            slices.add(process.pid)
        _, status, usage = os.wait4(process.pid, 0)
    except BaseException:
        process.kill()
        raise
    finally:
        clock.cancel()
        sampler.stop.set()
    wall = slices.end(process.pid) if slices else time.monotonic() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    spent = usage.ru_utime + usage.ru_stime
    for thread in (*readers, sampler):
        thread.join()
    if process.returncode != 0:
        raise Failed(f"{' '.join(command)}\nended with {process.returncode}:\n{texts[1][-3000:]}")
    return texts[0], texts[1], {
        "wall": wall,
        "cpu": spent,
        "foreign": foreign.share(spent),
        "peak_rss": max(sampler.peaks["rss"], usage.ru_maxrss * 1024),
        "peak_anon": sampler.peaks["anon"],
        "peak_file": sampler.peaks["file"],
        "cpu_samples": sampler.cpu,
    }
