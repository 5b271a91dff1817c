# Sourced by windows.sh and aarch64.sh: builds for another system with Debian's Rust, and checks the build in an emulator.
#
# The script that sources this sets `system` and `target`, the arrays `tools` (PROGRAM:PACKAGE) and `packages` (of Debian,
# besides its Rust), and the functions `unpack_more`, `cargo_for_target` and `emulator`, and calls `main "$@"`.
#
#   needs   lists the tools that are missing, and installs nothing
#   fetch   downloads Debian's Rust and what else is not installed, and unpacks it
#   build   builds the release program, and makes `run`, which runs it here
#   check   runs the demo model and commands in the emulator, next to this machine's build
#   test    builds the tests and runs those that compare with references in the emulator; arguments are filters
#
# Everything is kept in $CROSS_DIR, outside the repository: no package is installed, no setting changed, and apt's lists are
# the folder's own. JOBS limits the build's processes. Debian 12 or a system with its apt, its keys and a newer C library.
set -euo pipefail
cd "$(dirname "$0")/../.."
cross=$(realpath -m "${CROSS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/ldm-ort-cross}")
mirror=${DEBIAN_MIRROR:-http://deb.debian.org}
sysroot=$cross/rust/usr
work=$cross/$system
# The program, as one of this system: anything that takes the path of `ldm-ort` takes this.
run=$work/ldm-ort
linux=${LINUX_BUILD:-target/release/ldm-ort}

say() { printf '%s\n' "$*" >&2; }
fail() { say "$system: $*"; exit 1; }

needs() {
    local missing=0 tool
    for tool in "${tools[@]}" dpkg:dpkg apt-get:apt cmp:diffutils python3:python3; do
        command -v "${tool%%:*}" >/dev/null || { say "missing: ${tool%%:*} (package ${tool##*:})"; missing=1; }
    done
    return $missing
}

# apt with lists of its own, of Debian 12 for the host's processor and for arm64.
apt_of_debian() {
    local command=$1 apt=$cross/apt
    shift
    "$command" -o APT::Architecture=amd64 -o APT::Architectures=amd64,arm64 -o Dir::Etc::SourceList="$apt/sources.list" \
        -o Dir::Etc::SourceParts=/dev/null -o Dir::State::Lists="$apt/lists" -o Dir::State::status="$apt/status" \
        -o Dir::Cache="$apt/cache" -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false \
        -o Acquire::Languages=none -o APT::Sandbox::User=root "$@"
}

fetch() {
    local key=/usr/share/keyrings/debian-archive-keyring.gpg name
    local rust=(rustc-web cargo-web libstd-rust-web-dev rust-web-src)
    # The libraries that those load, besides those of every system.
    local loaded='^(libstd-rust-web|libllvm|libgit2|libmbed|libhttp-parser|libssh2)'
    mkdir -p "$cross"/apt/{lists/partial,cache/archives/partial} "$cross/packages" "$cross/rust"
    touch "$cross/apt/status"
    for name in "debian bookworm" "debian-security bookworm-security" "debian bookworm-backports"; do
        echo "deb [signed-by=$key] $mirror/$name main"
    done >"$cross/apt/sources.list"
    apt_of_debian apt-get update -qq
    mapfile -t -O "${#rust[@]}" rust < <(apt_of_debian apt-cache depends --recurse --no-recommends --no-suggests \
        --no-conflicts --no-breaks --no-replaces --no-enhances "${rust[@]}" | grep -E "$loaded" | grep -v : | sort -u)
    (cd "$cross/packages" && apt_of_debian apt-get download -q "${rust[@]}" "${packages[@]}")
    for name in "${rust[@]}"; do dpkg -x "$cross/packages/$name"_*_a[ml][dl]*.deb "$cross/rust"; done
    unpack_more
    rust rustc --version
}

# Runs one of Debian's Rust tools from where it was unpacked. rust-toolchain.toml names another compiler, which only
# rustup's cargo reads.
rust() {
    LD_LIBRARY_PATH=$sysroot/lib/x86_64-linux-gnu:$sysroot/lib PATH=$sysroot/bin:$PATH RUSTC_BOOTSTRAP=1 \
        CARGO_TARGET_DIR=$cross/target CARGO_BUILD_JOBS=${JOBS:-$(nproc)} "$@"
}

release_folder() { printf '%s' "$cross/target/$target/release"; }

build() {
    needs || fail "install what is missing first"
    [ -x "$sysroot/bin/rustc" ] || fail "Debian's Rust is not in $cross (fetch)"
    cargo_for_target build --bin ldm-ort
    emulator
    chmod +x "$run"
    say "$run"
}

check() {
    local out=$work/out
    [ -x "$run" ] || fail "not built (build)"
    [ -x "$linux" ] || fail "no $linux to compare with (cargo build --release, or name one by LINUX_BUILD)"
    rm -rf "$out" "$work/cache/graphs"
    mkdir -p "$out"

    say "the runtime is fetched"
    "$run" runtime install cpu >/dev/null
    say "the demo model draws the image that it draws on this machine"
    "$linux" run pipeline.toml --quiet --output "$out/linux" --save-latents "$out/linux.npy" >/dev/null
    "$run" run pipeline.toml --output "$out/other" --save-latents "$out/other.npy" >"$out/stdout" 2>"$out/stderr"
    python3 scripts/cross/same_image.py "$out"/linux/*.png "$out"/other/*.png "$out/linux.npy" "$out/other.npy"
    say "optimized graphs are kept, and the next run finds them"
    "$run" cache list | grep -q unet || fail "the cache has no unet: $("$run" cache list)"
    "$run" run pipeline.toml --output "$out/again" >"$out/stdout" 2>&1
    ! grep -E "optimi[sz]ing" "$out/stdout" || fail "graphs are optimized again"
    cmp "$out"/other/*.png "$out"/again/*.png
    say "the memory of a run is known"
    "$run" run pipeline.toml --quiet --steps 1 --memory --output "$out/memory" >/dev/null 2>"$out/stderr"
    grep -q denoising "$out/stderr" || fail "--memory prints nothing: $(cat "$out/stderr")"
    say "a folder instead of a graph is called one"
    ! "$run" inspect src 2>"$out/stderr" || fail "src passes for a model"
    ! grep -i "access" "$out/stderr" || fail "a folder is called inaccessible"
    say "exit codes, and problems of a pipeline file"
    printf '[model]\npath = "models/shapes"\n[task.text-to-image]\nprompt = "a"\n[run]\nstepz = 1\n' >"$out/wrong.toml"
    local code=0
    "$run" check "$out/wrong.toml" 2>"$out/stderr" || code=$?
    [ "$code" = 2 ] && grep -q "did you mean" "$out/stderr" || fail "exit code $code: $(cat "$out/stderr")"
    say "outputs do not replace each other"
    "$run" run pipeline.toml --quiet --steps 1 --seed 7 --output "$out/twice" >/dev/null
    "$run" run pipeline.toml --quiet --steps 2 --seed 7 --output "$out/twice" >/dev/null
    [ "$(find "$out/twice" -name '*.png' | wc -l)" = 2 ] || fail "$(ls "$out/twice")"
    say "the cache is cleared"
    "$run" cache clear >/dev/null
    say "all right"
}

# The tests that compare with references of diffusers, transformers and torch.
references=(schedulers::golden schedulers::compvis pipeline::every_ rng:: text::)

tests() {
    [ -x "$run" ] || fail "not built (build)"
    local filters=("$@")
    [ $# -gt 0 ] || filters=("${references[@]}")
    cargo_for_target test --lib --test it -- "${filters[@]}"
}

main() {
    case "${1:-}" in
        needs | fetch | build | check) "$1" ;;
        test) tests "${@:2}" ;;
        *) sed -n '2,/^set -/p' "$0" | sed '$d; s/^# \{0,1\}//'; exit 2 ;;
    esac
}
