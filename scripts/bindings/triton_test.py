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
import os
import tempfile
import time
import traceback
from pathlib import Path

import triton_requests  # noqa: F401
import triton_runs  # noqa: F401
from triton_server import CHECKS, ROOT, Context, Server, in_environment


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
