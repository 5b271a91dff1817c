#!/usr/bin/env bash
# Runs the lines of the README and of the guides that build or install the program, as written: the tests run the others. Programs
# and packages go into a new folder, and so does the cache, so that the first run fetches ONNX Runtime. Release builds, in the
# checkout's own target folder.
# usage: scripts/guides.sh [README|rust|python|triton]...     (all of them by default)
# triton needs the server: TRITON names the folder of tritonserver's binary, and a Python 3.11 is needed with
# `pip install 'tritonclient[grpc]' numpy` (PYTHON names it, python3 by default).
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=$(mktemp -d)
server=
finish() {
  if [ -n "$server" ]; then kill "$server" && wait "$server" || true; fi
  rm -rf "$folder"
}
trap finish EXIT
export LDM_ORT_CACHE_DIR=$folder/cache CARGO_INSTALL_ROOT=$folder/installed PATH=$folder/installed/bin:$PATH
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR-$root/target}
unset ORT_DYLIB_PATH

# line PAGE LINE: runs a line that the page has.
line() {
  grep -qF -- "$2" "$root/$1" || { echo "$1 does not say: $2" >&2; exit 1; }
  printf '\n%s: %s\n' "$1" "$2"
  eval "$2"
}

# block PAGE LANGUAGE START: the block of a page whose first line starts with a text.
block() {
  awk -v open="\`\`\`$2" -v start="$3" '$0 == "```" { taken = 0 } taken || (first && index($0, start) == 1) { taken = 1; print }
    { first = ($0 == open) }' "$root/$1" | grep . || { echo "$1 has no block: $3" >&2; exit 1; }
}

is_png() { [ "$(head -c 4 "$1" | tail -c 3)" = PNG ] || { echo "$1 is no PNG" >&2; exit 1; }; }

# world: a folder with what the snippets name.
world() {
  mkdir "$folder/$1"
  ln -s "$root/models" "$root/pipeline.toml" "$folder/$1/"
  cd "$folder/$1"
}

guide_README() {
  cd "$root"
  line README.md 'cargo run --release -- run pipeline.toml'
  line README.md 'cargo install --path .'
  world README
  line README.md 'ldm-ort demo shapes-demo'
  line README.md 'ldm-ort run shapes-demo/pipeline.toml -p "a red circle on a black background" --seed 7'
  is_png "$(find . -name '*.png' -path '*outputs*' | head -n 1)"
}

guide_rust() {
  world rust
  cargo new --quiet --name guide program
  cp "$root/Cargo.lock" program/
  block README.md rust 'use ldm_ort::{Engine, Request};' >program/src/main.rs
  printf 'ldm-ort = { path = "%s", default-features = false, features = ["fetch"] }\n' "$root" >>program/Cargo.toml
  grep -qF 'default-features = false, features = ["fetch"]' "$root/docs/embedding.md"
  cargo run --quiet --release --manifest-path program/Cargo.toml
  is_png outputs/circle.png
  for example in "$root"/examples/*.rs; do
    grep -qF "cargo run --release --example $(basename "$example" .rs) -- " "$example"
  done
  cd "$root"
  cargo run --quiet --release --example first_image -- pipeline.toml "a red circle on a black background"
  mv image-7.png "$folder/rust/"
}

guide_python() {
  "${PYTHON-python3}" -m venv "$folder/venv"
  (
    . "$folder/venv/bin/activate"
    cd "$root"
    line docs/python.md 'pip install ./bindings/python'
    world python
    block README.md python 'import ldm_ort' >first.py
    python first.py
    is_png lighthouse.png
    ldm-ort --version
  )
}

guide_triton() {
  PATH=${TRITON:?names the folder of tritonserver}:$PATH
  cd "$root"
  line docs/triton.md 'cargo build --release -p ldm-ort-c -p ldm-ort-triton'
  mkdir -p "$folder/triton/backends/ldm_ort" "$folder/triton/models/lighthouse"
  cp "$CARGO_TARGET_DIR"/release/lib{triton_ldm_ort,ldm_ort}.so "$folder/triton/backends/ldm_ort/"
  cargo run --quiet --release -- runtime install cpu
  runtime=$(find "$LDM_ORT_CACHE_DIR" -name "libonnxruntime.so*" -type f)
  cp "$runtime" "$folder/triton/backends/ldm_ort/"
  cp -r models/shapes "$folder/triton/models/lighthouse/1"
  block docs/triton.md text 'name: "lighthouse"' >"$folder/triton/models/lighthouse/config.pbtxt"
  cd "$folder/triton"
  grep -qF 'tritonserver --model-repository=models --backend-directory=backends' "$root/docs/triton.md"
  tritonserver --model-repository=models --backend-directory=backends >server.log 2>&1 &
  server=$!
  block docs/triton.md python 'import numpy as np' >client.py
  for _ in $(seq 120); do
    if grep -q 'Started GRPCInferenceService' server.log; then break; fi
    kill -0 "$server" || { cat server.log; exit 1; }
    sleep 1
  done
  "${PYTHON-python3}" client.py
  is_png lighthouse.png
}

[ $# -gt 0 ] || set -- README rust python triton
for guide in "$@"; do
  case $guide in README | rust | python | triton) ;; *) echo "usage: scripts/guides.sh [README|rust|python|triton]..." >&2; exit 2 ;; esac
  "guide_$guide"
done
printf '\nthe lines of %s work as written\n' "$*"
