#!/usr/bin/env bash
# Builds the Python wheel, installs it into a new virtual environment, and runs its tests there.
# usage: scripts/bindings/python.sh [PROFILE] [PYTEST_ARGUMENT...]
# PROFILE is one of Cargo's, dev by default. PYTHON names the interpreter, python3 by default. LDM_ORT_RAY=1 adds the tests with
# Ray, which is a large download.
set -euo pipefail
cd "$(dirname "$0")/../.."
profile=${1-dev}
shift || true
folder=target/python
mkdir -p "$folder"
rm -rf "$folder/venv" "$folder/wheels"
"${PYTHON-python3}" -m venv "$folder/build"
"$folder/build/bin/pip" install -q 'maturin>=1.10,<2' 'mypy>=1.15,<3' numpy pillow pytest
model=bindings/python/python/ldm_ort/models/shapes
rm -rf "$model"
mkdir -p "$(dirname "$model")"
cp -r models/shapes "$model"
PYO3_PYTHON=$PWD/$folder/build/bin/python "$folder/build/bin/maturin" build --locked --quiet --profile "$profile" \
  --manifest-path bindings/python/Cargo.toml --out "$folder/wheels"
# With the features of the wheel, so that nothing is built twice.
cargo build --locked --quiet --profile "$profile" -p ldm-ort -p ldm-ort-python --bin ldm-ort

"${PYTHON-python3}" -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q numpy pillow pytest "$folder"/wheels/*.whl
ls -l "$folder/wheels"

# The types, with the packages that the stubs name.
"$folder/build/bin/pip" install -q --force-reinstall --no-deps "$folder"/wheels/*.whl
mypy=("$folder/build/bin/mypy" --strict --cache-dir "$folder/mypy")
"${mypy[@]}" -p ldm_ort
"${mypy[@]}" --python-version 3.11 bindings/python/tests/typing_of_calls.py

built=$([ "$profile" = dev ] && echo debug || echo "$profile")
export LDM_ORT_COMMAND=$PWD/target/$built/ldm-ort
tests=bindings/python/tests
"$folder/venv/bin/python" -m pytest -q "$tests" --ignore "$tests/test_onnxruntime.py" "$@"

# With the package onnxruntime in the same environment.
"$folder/venv/bin/pip" install -q onnxruntime
"$folder/venv/bin/python" -m pytest -q "$tests/test_onnxruntime.py"

if [ -n "${LDM_ORT_RAY-}" ]; then
  "${PYTHON-python3}" -m venv "$folder/ray"
  "$folder/ray/bin/pip" install -q numpy pillow pytest 'ray[data]>=2.60,<2.64'
  "$folder/ray/bin/pip" install -q --force-reinstall --no-deps "$folder"/wheels/*.whl
  "$folder/ray/bin/python" -m pytest -q "$tests/test_ray.py" "$tests/test_docs.py" -k ray
fi
