#!/usr/bin/env bash
# Builds the program for Windows on Debian or Ubuntu, and runs it under Wine next to this machine's build.
#
#   scripts/cross/windows.sh needs | fetch | build | check | test [FILTER...]
#
# common.sh describes the steps. There is no std for Windows to download here, so it is built from source: 10 minutes of
# one core the first time, 2 after a change.
set -euo pipefail
system=windows
target=x86_64-pc-windows-gnu
gcc=x86_64-w64-mingw32-gcc-posix
# Debian's wine64 package alone leaves the program here.
wine=$(command -v wine64 || echo /usr/lib/wine/wine64)
tools=("$gcc:gcc-mingw-w64-x86-64-posix" "$wine:wine64")
packages=()
source "$(dirname "$0")/common.sh"

unpack_more() { :; }

# cargo looks for the sources of std, and rustc for the first and last object of a program, below the sysroot.
place_std_sources() {
    local sources root name
    sources=$(find "$sysroot" -type d -path '*/library/rtstartup' | head -1)
    [ -n "$sources" ] || fail "no sources of std in $cross (fetch)"
    root=$(rust rustc --print sysroot)/lib/rustlib
    [ -e "$root/src/rust/library" ] || { mkdir -p "$root/src/rust"; ln -sfn "$(dirname "$sources")" "$root/src/rust/library"; }
    mkdir -p "$root/$target/lib"
    for name in rsbegin rsend; do
        rust rustc --target "$target" --emit=obj -o "$root/$target/lib/$name.o" "$sources/$name.rs"
    done
}

cargo_for_target() {
    place_std_sources
    CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=$gcc CC_x86_64_pc_windows_gnu=$gcc \
        CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$work/emulator \
        rust cargo "$1" --release --locked -Zbuild-std=std,panic_abort --target "$target" "${@:2}"
}

emulator() {
    mkdir -p "$work"
    random_numbers "$(release_folder)"
    random_numbers "$(release_folder)/deps"
    cat >"$work/emulator" <<WRAPPER
#!/bin/sh
# Runs a Windows program under Wine.
export WINEPREFIX="\${WINEPREFIX:-$work/wine}" WINEDEBUG="\${WINEDEBUG:--all}"
export LDM_ORT_CACHE_DIR="\${LDM_ORT_CACHE_DIR:-$work/cache}"
exec "$wine" "\$@"
WRAPPER
    chmod +x "$work/emulator"
    printf '#!/bin/sh\nexec "%s" "%s" "$@"\n' "$work/emulator" "$(release_folder)/ldm-ort.exe" >"$run"
}

# Wine 8 lacks the library that std takes its random numbers from: one with that function over an older one's, in the
# folder of a program.
random_numbers() {
    cat >"$work/bcryptprimitives.c" <<'C'
#include <windows.h>
#include <bcrypt.h>
__declspec(dllexport) BOOL WINAPI ProcessPrng(PUCHAR out, SIZE_T length) {
    return BCryptGenRandom(NULL, out, (ULONG)length, BCRYPT_USE_SYSTEM_PREFERRED_RNG) == 0;
}
C
    "$gcc" -shared -o "$1/bcryptprimitives.dll" "$work/bcryptprimitives.c" -lbcrypt
}

main "$@"
