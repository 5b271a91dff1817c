#!/usr/bin/env bash
# Builds the program for Linux on aarch64 on Debian or Ubuntu, and runs it in qemu next to this machine's build.
#
#   scripts/cross/aarch64.sh needs | fetch | build | check | test [FILTER...]
#
# common.sh describes the steps. std is Debian's of arm64. qemu is that of Debian's backports: version 7.2 crashes when ONNX
# Runtime is loaded.
set -euo pipefail
system=aarch64
target=aarch64-unknown-linux-gnu
gcc=aarch64-linux-gnu-gcc
tools=("$gcc:gcc-aarch64-linux-gnu" aarch64-linux-gnu-g++:g++-aarch64-linux-gnu)
packages=(libstd-rust-web-dev:arm64 qemu-user/bookworm-backports)
source "$(dirname "$0")/common.sh"

unpack_more() {
    dpkg -x "$cross"/packages/libstd-rust-web-dev_*_arm64.deb "$cross/rust"
    mkdir -p "$work"
    dpkg --fsys-tarfile "$cross"/packages/qemu-user_*.deb | tar -x -C "$work" ./usr/bin/qemu-aarch64
}

# Tests start the program by LDM_ORT_RUNNER: the kernel does not run it.
cargo_for_target() {
    CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_LINKER=$gcc CARGO_TARGET_AARCH64_UNKNOWN_LINUX_GNU_RUNNER=$work/emulator \
        CC_aarch64_unknown_linux_gnu=$gcc LDM_ORT_RUNNER=$work/emulator \
        rust cargo "$1" --release --locked --target "$target" "${@:2}"
}

emulator() {
    cat >"$work/emulator" <<WRAPPER
#!/bin/sh
# Runs a program for aarch64 in qemu, with the C library of the cross compiler.
# A CPU without SVE, which qemu emulates at a tenth of the speed.
export LDM_ORT_CACHE_DIR="\${LDM_ORT_CACHE_DIR:-$work/cache}" QEMU_CPU="\${QEMU_CPU:-neoverse-n1}"
exec "$work/usr/bin/qemu-aarch64" -L /usr/aarch64-linux-gnu "\$@"
WRAPPER
    chmod +x "$work/emulator"
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$work/emulator" "$(release_folder)/ldm-ort" >"$run"
}

main "$@"
