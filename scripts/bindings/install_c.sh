#!/usr/bin/env bash
# Builds the C interface and installs it below PREFIX: libraries, headers, a pkg-config file and a CMake package.
# usage: scripts/bindings/install_c.sh PREFIX [CARGO PROFILE]
set -euo pipefail
[ $# -ge 1 ] || { echo "usage: scripts/bindings/install_c.sh PREFIX [CARGO PROFILE]" >&2; exit 2; }
cd "$(dirname "$0")/../.."
mkdir -p "$1"
prefix=$(cd "$1" && pwd)
profile=${2-release}
cargo build --locked -p ldm-ort-c --profile "$profile"
folder=${CARGO_TARGET_DIR-target}/$([ "$profile" = dev ] && echo debug || echo "$profile")
case "$(uname)" in Darwin) shared=libldm_ort.dylib ;; *) shared=libldm_ort.so ;; esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
fill() { sed "s|@PREFIX@|$prefix|g; s|@VERSION@|$version|g; s|@SHARED@|$shared|g" "bindings/c/packaging/$1.in" >"$2/$1"; }
mkdir -p "$prefix/lib/pkgconfig" "$prefix/lib/cmake/ldm_ort" "$prefix/include"
install -m 755 "$folder/$shared" "$prefix/lib/"
install -m 644 "$folder/libldm_ort.a" "$prefix/lib/"
install -m 644 bindings/c/include/ldm_ort.h bindings/c/include/ldm_ort.hpp "$prefix/include/"
fill ldm_ort.pc "$prefix/lib/pkgconfig"
fill ldm_ortConfig.cmake "$prefix/lib/cmake/ldm_ort"
fill ldm_ortConfigVersion.cmake "$prefix/lib/cmake/ldm_ort"
echo "installed ldm_ort $version below $prefix"
