"""The command `ldm-ort`."""

import signal
import sys
from pathlib import Path

from . import _native
from ._runtime import package_dir


DEMO_MODEL = Path(__file__).parent / "models" / "shapes"
"""The demo model, which wheels hold."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the command `ldm-ort` with the arguments of the process, or with these, and returns its exit code.

    It takes over Ctrl-C for good and may end the process, as the command does: it is the entry point of a program.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    arguments = sys.argv[1:] if arguments is None else arguments
    return _native.run_command(["ldm-ort", *arguments], package_dir(), str(DEMO_MODEL))
