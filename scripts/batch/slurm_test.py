"""Runs a batch on a Slurm of three nodes on this machine, kills tasks and nodes, submits it again, and counts.

    apt-get install slurmctld slurmd slurm-client munge
    cargo build --release
    python scripts/batch/slurm_test.py --jobs 2000 --steps 2 --every 4

Munge, the controller and three node daemons are started with a configuration, keys and ports of their own, as the user
who runs this. `array.sbatch` is submitted as it is; flags of sbatch make its tasks small. Every few seconds a task's process
gets SIGKILL. Once a node's daemon is killed alone and started again, and once with everything that ran on the node. The array
is submitted again, with 6 and 4 tasks in turns, until one has ended well. Then the images are compared with those of a run
that nothing disturbed.

Executions are counted where they cost something: an image that was stored twice (each process writes its own log), and an image
at work in a process that was killed, which leaves its claim behind. Together they may not be more than the kills.

The exit code is 1 if an image is lost or wrong, or if there are more extra executions than kills.
"""

import argparse
import collections
import contextlib
import fcntl
import getpass
import json
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

from kill_test import images_of, stored

ROOT = pathlib.Path(__file__).resolve().parents[2]
NODES = ["n1", "n2", "n3"]
# The controller gives a node that does not answer up after this many seconds.
NODE_TIMEOUT = 10

CONFIGURATION = """
ClusterName=test
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
StateSaveLocation={folder}/state
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdSpoolDir={folder}/spool-%n
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmdLogFile={folder}/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
SlurmdTimeout={timeout}
MinJobAge=3600
SlurmdParameters=config_overrides
{nodes}
PartitionName=all Nodes=ALL Default=YES State=UP
"""

# Stands for the program in the tasks' PATH: each process has a log of its own, named after it.
WRAPPER = """#!/bin/sh
exec {program} "$@" --json >{folder}/logs/$$-$SLURM_ARRAY_JOB_ID-$SLURM_ARRAY_TASK_ID-$SLURMD_NODENAME.log
"""

PIPELINE = """[model]
path = '{model}'
[task.text-to-image]
prompt = ""
[run]
steps = {steps}
"""


def read_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--program", default=str(ROOT / "target/release/ldm-ort"), help="the program ldm-ort")
    parser.add_argument("--model", default=str(ROOT / "models/shapes"), help="the model directory")
    parser.add_argument("--jobs", type=int, default=2000, help="the number of images")
    parser.add_argument("--steps", type=int, default=2, help="steps of an image")
    parser.add_argument("--every", type=float, default=4.0, help="seconds from one kill to the next")
    parser.add_argument("--seed", type=int, default=1, help="the seed of the choice of tasks")
    return parser.parse_args()


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Cluster:
    """Munge, a controller and node daemons."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "state").mkdir()
        (folder / "munge.key").write_bytes(os.urandom(64))
        (folder / "munge.key").chmod(0o600)
        nodes = "\n".join(
            f"NodeName={name} NodeHostname=localhost NodeAddr=127.0.0.1 Port={free_port()} CPUs=1 RealMemory=2000"
            for name in NODES
        )
        values = {"user": getpass.getuser(), "folder": folder, "timeout": NODE_TIMEOUT, "nodes": nodes}
        (folder / "slurm.conf").write_text(CONFIGURATION.format(controller_port=free_port(), **values))
        self.environment = dict(os.environ, SLURM_CONF=str(folder / "slurm.conf"))
        names = {"socket": "socket", "key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        files = [f"--{flag}={folder}/munge.{name}" for flag, name in names.items()]
        self.daemons = {"munge": self.start("munged", "--foreground", "--force", *files)}
        self.wait_for("munge's socket", (folder / "munge.socket").exists)
        self.daemons["controller"] = self.start("slurmctld", "-D")
        for name in NODES:
            self.start_node(name)
        self.wait_for("three idle nodes", lambda: self.states() == {name: "idle" for name in NODES})

    def start(self, *command):
        with open(self.folder / "daemons.log", "a") as log:
            return subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start_node(self, name):
        self.daemons[name] = self.start("slurmd", "-D", "-N", name)

    def states(self):
        """The states of the nodes by name, as the controller tells them."""
        answer = subprocess.run(["sinfo", "-hNo", "%N %t"], env=self.environment, capture_output=True, text=True)
        return dict(line.split() for line in answer.stdout.splitlines())

    def wait_for(self, what, holds, seconds=60):
        until = time.monotonic() + seconds
        while not holds():
            if time.monotonic() > until:
                raise TimeoutError(f"{what}: not within {seconds} s\n{(self.folder / 'daemons.log').read_text()}")
            time.sleep(0.2)

    def processes_of(self, name):
        """The ids of the processes on a node: those of its jobs, and Slurm's that keep watch over them."""
        own = {f"SLURM_CONF={self.folder}/slurm.conf".encode(), f"SLURMD_NODENAME={name}".encode()}
        log = str(self.folder / f"slurmd-{name}.log")
        found = []
        for path in pathlib.Path("/proc").glob("[0-9]*"):
            try:
                files = [os.readlink(file) for file in (path / "fd").iterdir()]
                if log in files or own <= set((path / "environ").read_bytes().split(b"\0")):
                    found.append(int(path.name))
            except OSError:
                pass  # It has ended, or is another user's.
        return found

    def stop(self):
        subprocess.run(["scancel", "--user", getpass.getuser()], env=self.environment, check=False)
        for name in [*NODES, "controller", "munge"]:
            self.daemons[name].terminate()
        for daemon in self.daemons.values():
            daemon.wait()


class Tasks:
    """The processes that make images, and what they left."""

    def __init__(self, folder, out):
        self.logs, self.out = folder / "logs", out
        self.logs.mkdir()
        self.given_up = 0

    def running(self):
        """The processes at work by their ids, with the names of their nodes."""
        names = {log: log.stem.split("-") for log in self.logs.glob("*.log")}
        return {int(name[0]): name[3] for log, name in names.items() if writes(int(name[0]), log)}

    def kill(self, pid):
        """Kills a process, and counts the images it was at work on: claims that are free only now. Returns false if it has ended."""
        before = self.free_claims()
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return False
        while is_running(pid):
            time.sleep(0.01)
        images = [self.out / name[:2] / f"{name}.png" for name in self.free_claims() - before]
        self.given_up += sum(not image.exists() for image in images)
        return True

    def free_claims(self):
        return {claim.name for claim in (self.out / "claims").glob("*") if is_free(claim)}

    def are_done(self, jobs):
        return len(list(self.out.glob("??/*.png"))) >= jobs

    def stored_twice(self):
        """The number of times that an image was stored again."""
        times = collections.Counter(key for log in self.logs.glob("*.log") for key in stored(log))
        return sum(count - 1 for count in times.values())


def writes(pid, log):
    """True if a process is the one that writes a log: another one may have got the id of one that has ended."""
    try:
        return os.readlink(f"/proc/{pid}/fd/1") == str(log)
    except OSError:
        return False


def is_running(pid):
    try:
        status = pathlib.Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def is_free(claim):
    """True if no process has locked a claim."""
    try:
        with open(claim) as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return True
    except (BlockingIOError, FileNotFoundError):
        return False


class Disturber:
    """Kills tasks, and two of the nodes' daemons, as long as images are missing."""

    def __init__(self, cluster, tasks, arguments):
        self.cluster, self.tasks = cluster, tasks
        self.every, self.jobs = arguments.every, arguments.jobs
        self.choice = random.Random(arguments.seed)
        self.killed, self.lost_with_node, self.daemons, self.absent = 0, 0, [], None
        self.next = time.monotonic() + self.every

    def act(self):
        """Does what is due."""
        if self.absent and self.cluster.states()[self.absent].startswith("down"):
            self.cluster.start_node(self.absent)
            self.absent = None
        running = self.tasks.running()
        if time.monotonic() < self.next or not running or self.tasks.are_done(self.jobs):
            return
        self.next = time.monotonic() + self.every
        if self.killed == 2 and not self.daemons:
            # The tasks of a node run on without its daemon, which finds them again.
            self.daemon(NODES[0])
            self.cluster.start_node(NODES[0])
        elif self.killed == 4 and len(self.daemons) == 1 and NODES[1] in running.values():
            self.daemon(NODES[1], with_tasks=True)
            self.absent = NODES[1]
        else:
            self.killed += self.tasks.kill(self.choice.choice(sorted(running)))

    def daemon(self, name, with_tasks=False):
        """Kills a node's daemon, and all that ran on the node if the node is lost with it."""
        self.daemons.append(name)
        self.cluster.daemons[name].kill()
        self.cluster.daemons[name].wait()
        if with_tasks:
            for pid, node in self.tasks.running().items():
                if node == name:
                    self.lost_with_node += self.tasks.kill(pid)
            for pid in self.cluster.processes_of(name):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)


def submit(cluster, disturber, number, arguments, folder, out):
    """Submits the array and waits for its end; returns true if all tasks ended well."""
    tasks = (6, 4)[number % 2]
    flags = [f"--array=1-{tasks}", "--cpus-per-task=1", "--mem=600M", "--time=60", f"--output={folder}/task-%A-%a.txt"]
    script = [str(ROOT / "scripts/batch/array.sbatch"), str(folder / "pipeline.toml"), str(folder / "prompts.jsonl"), str(out)]
    path = f"{folder}/bin:{os.environ['PATH']}"
    job = subprocess.Popen(
        ["sbatch", "--wait", "--parsable", *flags, *script],
        env=dict(cluster.environment, PATH=path), stdout=subprocess.DEVNULL,
    )
    try:
        while job.poll() is None:
            disturber.act()
            time.sleep(0.1)
    finally:
        job.kill()
    return job.wait() == 0


def main():
    arguments = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # The daemons are stopped.
    for program in ("munged", "slurmctld", "slurmd", "sbatch"):
        if not shutil.which(program):
            sys.exit(f"{program} is not installed: apt-get install slurmctld slurmd slurm-client munge")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        colors = ["red", "green", "blue", "yellow"]
        lines = [json.dumps(f"a {colors[at % 4]} circle, number {at}") for at in range(arguments.jobs)]
        (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
        (folder / "pipeline.toml").write_text(PIPELINE.format(model=arguments.model, steps=arguments.steps))
        (folder / "bin").mkdir()
        (folder / "bin/ldm-ort").write_text(WRAPPER.format(program=arguments.program, folder=folder))
        (folder / "bin/ldm-ort").chmod(0o755)

        def batch(out, *action):
            request = [str(folder / "pipeline.toml"), str(folder / "prompts.jsonl"), "--out", str(out)]
            command = [arguments.program, "batch", *action, *request, "--set", "device.threads=1"]
            return subprocess.run(command, capture_output=True, text=True)

        began = time.monotonic()
        whole = batch(folder / "whole")
        alone = time.monotonic() - began
        if whole.returncode:
            sys.exit(f"the undisturbed run: exit {whole.returncode}\n{whole.stderr}")
        print(f"{arguments.jobs} images of {arguments.steps} steps: undisturbed {alone:.0f} s in one process", flush=True)

        out = folder / "out"
        tasks = Tasks(folder, out)
        cluster = Cluster(folder)
        try:
            disturber = Disturber(cluster, tasks, arguments)
            began = time.monotonic()
            number = 0
            while not submit(cluster, disturber, number, arguments, folder, out):
                number += 1
                print(f"submission {number}: {len(images_of(out))} images, {disturber.killed} tasks killed", flush=True)
            seconds = time.monotonic() - began
        finally:
            cluster.stop()

        expected, made = images_of(folder / "whole"), images_of(out)
        lost = len(set(expected) - set(made))
        wrong = sum(expected.get(name) != data for name, data in made.items())
        kills = disturber.killed + disturber.lost_with_node
        twice, given_up = tasks.stored_twice(), tasks.given_up
        verify = batch(out, "verify")
        print(f"Slurm: {seconds:.0f} s, {number + 1} submissions, {len(list(tasks.logs.glob('*.log')))} processes")
        print(f"killed: {disturber.killed} tasks, {len(disturber.daemons)} daemons, {disturber.lost_with_node} tasks with their node")
        print(f"lost {lost}, wrong {wrong}; extra executions {twice + given_up}: {twice} stored twice, {given_up} given up at work")
        print(f"verify: exit {verify.returncode}, {(verify.stdout + verify.stderr).strip().splitlines()[-1]}")
        complete = len(expected) == arguments.jobs and len(disturber.daemons) == 2 and disturber.killed
        return 1 if lost or wrong or twice + given_up > kills or verify.returncode or not complete else 0


if __name__ == "__main__":
    sys.exit(main())
