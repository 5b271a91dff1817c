"""ONNX Runtime in the Python environment."""

import os
from importlib.machinery import PathFinder


def package_dir() -> str | None:
    """Returns the folder with the library of the package `onnxruntime`, if it is installed, without importing it."""
    spec = PathFinder.find_spec("onnxruntime")
    for folder in (spec and spec.submodule_search_locations) or ():
        libraries = os.path.join(folder, "capi")
        if os.path.isdir(libraries):
            return libraries
    return None
