#!/usr/bin/env bash
# Installs the C interface into a new folder, and uses it from there: the commands and programs of docs/c.md as written (with that
# folder instead of /usr/local), and CMake projects in C and C++ with the shared and the static library.
# usage: scripts/bindings/c_test.sh [CARGO PROFILE]
# CMake is needed (`pip install cmake`); CMAKE names it, cmake by default.
set -euo pipefail
cd "$(dirname "$0")/../.."
root=$PWD
cmake() { command "${CMAKE-cmake}" "$@"; }
profile=${1-release}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
prefix=$folder/prefix

# block START: the block of the guide whose first line starts with a text.
block() {
  awk -v start="$1" '/^```/ { inside = !inside; first = inside; next }
    inside && first { taken = index($0, start) == 1; first = 0 } inside && taken' docs/c.md
}

mkdir "$folder/guide"
ln -s "$root/models" "$root/pipeline.toml" "$folder/guide/"
block '#include <ldm_ort.h>' >"$folder/guide/first.c"
block 'cmake_minimum_required' >"$folder/guide/CMakeLists.txt"
commands=$(block 'scripts/bindings/install_c.sh' && block 'cc first.c')
case $commands in *pkg-config*) ;; *) echo "docs/c.md: the commands are not found" >&2; exit 1 ;; esac
# The system's loader finds /usr/local/lib by itself.
export PKG_CONFIG_PATH=$prefix/lib/pkgconfig LD_LIBRARY_PATH=$prefix/lib
while read -r line; do
  line=$(sed "s/ *#.*//" <<<"$line")
  case $line in scripts/*) at=$root line="${line% *} $prefix $profile" ;; *) at=$folder/guide ;; esac
  line=${line//\/usr\/local/$prefix}
  echo "$line"
  (cd "$at" && eval "$line")
done <<<"$commands"
for image in circle.png cmake.png; do
  [ "$(head -c 4 "$folder/guide/$image" | tail -c 3)" = PNG ]
done
cmp "$folder/guide/circle.png" "$folder/guide/cmake.png"

cmake -S bindings/c/tests/cmake -B "$folder/build" -DCMAKE_PREFIX_PATH="$prefix" -DCMAKE_BUILD_TYPE=Release >/dev/null
cmake --build "$folder/build"
for program in c cpp c_static cpp_static; do
  "$folder/build/$program" pipeline.toml '{"prompt": "a red circle", "steps": 2}' png 0 "$folder/$program"
  cmp "$folder/c.0.file" "$folder/$program.0.file"
done
# The name of the shared library in a program is not a path.
if command -v readelf >/dev/null; then
  readelf -d "$folder/build/c" | grep -F '[libldm_ort.so]'
fi
# Another major version is refused.
mkdir "$folder/newer"
printf 'cmake_minimum_required(VERSION 3.16)\nproject(a C)\nfind_package(ldm_ort 99 REQUIRED)\n' >"$folder/newer/CMakeLists.txt"
if cmake -S "$folder/newer" -B "$folder/newer/build" -DCMAKE_PREFIX_PATH="$prefix" >"$folder/newer/log" 2>&1; then
  echo "find_package(ldm_ort 99) finds a package" >&2
  exit 1
fi
grep -q 'requested version "99"' "$folder/newer/log"
ls -l "$prefix/lib"/libldm_ort.*
echo "the guide's programs, and C and C++ with the shared and the static library: the same images"
