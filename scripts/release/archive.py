#!/usr/bin/env python3
"""Makes a release's archive of one system, with a software bill of materials and checksums.

usage: archive.py TARGET PROGRAM [--host PROGRAM] [--out FOLDER]

TARGET is Rust's name of the system and PROGRAM the binary built for it (scripts/cross builds those of other systems). --host
names a build for this machine, which writes the completions and the man page [default: PROGRAM]. FOLDER [default: target/dist]
receives

    ldm-ort-VERSION-TARGET.tar.gz (.zip for Windows): the program, README.md, CHANGELOG.md, the licences of the project and of
        all dependencies, the bill of materials, the demo model with its pipeline file, completions and the man page
    ldm-ort-VERSION-TARGET.cdx.json: the bill of materials, CycloneDX 1.5
    SHA256SUMS: the digests of all files in FOLDER

Needs cargo, git and cargo-cyclonedx (`cargo install --locked cargo-cyclonedx`). Two runs on the same commit and PROGRAM make the
same bytes: files are in the order of their names, and times are that of the commit, or SOURCE_DATE_EPOCH.
"""
import argparse
import gzip
import hashlib
import io
import json
import os
import subprocess
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SHELLS = {"bash": "ldm-ort.bash", "zsh": "_ldm-ort", "fish": "ldm-ort.fish", "powershell": "_ldm-ort.ps1", "elvish": "ldm-ort.elv"}
NAMES_OF_LICENCES = ("licen", "copying", "notice", "copyright", "unlicense")


def output(*command):
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout


def metadata(target):
    return json.loads(output("cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))


def linked_packages(graph):
    """Returns the packages that end up in the program: dependencies without those of tests and of build scripts."""
    packages = {package["id"]: package for package in graph["packages"]}
    nodes = {node["id"]: node for node in graph["resolve"]["nodes"]}
    [root] = [package["id"] for package in packages.values() if package["name"] == "ldm-ort"]
    found, left = set(), [root]
    while left:
        package = left.pop()
        if package in found:
            continue
        found.add(package)
        for dependency in nodes[package]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                left.append(dependency["pkg"])
    return sorted((packages[package] for package in found - {root}), key=lambda package: (package["name"], package["version"]))


def licence_files(package):
    """Returns a package's licence files, also those of sources of other projects in it."""
    folder = Path(package["manifest_path"]).parent
    files = (path for path in folder.rglob("*") if path.name.lower().startswith(NAMES_OF_LICENCES))
    return sorted(path for path in files if path.is_file() and path.suffix in ("", ".md", ".txt", ".ijg"))


def third_party_licences(packages):
    """Returns the licences of all dependencies, each text once, below the packages that it is from."""
    users = {}
    for package in packages:
        name = f"{package['name']} {package['version']} ({package['license'] or 'see its licence file'})"
        texts = {path.read_text(errors="replace").strip() for path in licence_files(package)}
        for text in texts or {"The package contains no licence file."}:
            users.setdefault(text, []).append(name)
    parts = ["ldm-ort contains these packages. Each list of packages is followed by their licence."]
    for text, names in sorted(users.items(), key=lambda item: (item[1], item[0])):
        parts.append("=" * 80 + "\n" + "\n".join(names) + "\n" + "-" * 80 + "\n" + text)
    return ("\n\n".join(parts) + "\n").encode()


def bill_of_materials(target, epoch):
    """Returns the bill of materials of cargo-cyclonedx, which writes it into the folder of each member of the workspace."""
    name = "ldm-ort-bill-of-materials"
    before = set(ROOT.rglob(f"{name}.json"))
    command = ["cargo", "cyclonedx", "--format", "json", "--spec-version", "1.5", "--target", target, "--override-filename", name]
    subprocess.run(command, cwd=ROOT, check=True, env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)})
    text = json.loads((ROOT / f"{name}.json").read_text())
    for path in set(ROOT.rglob(f"{name}.json")) - before:
        path.unlink()
    # Paths of this machine are of no use elsewhere.
    written = json.dumps(text, indent=1, sort_keys=True).replace(f"path+file://{ROOT}", "path+file:///ldm-ort")
    return (written + "\n").encode()


def contents(arguments, bill, packages):
    """Returns the files of an archive, by their names in its folder, each with its mode."""
    windows = "windows" in arguments.target
    files = {"ldm-ort.exe" if windows else "ldm-ort": (arguments.program.read_bytes(), 0o755)}
    for name in ("README.md", "CHANGELOG.md", "LICENSE-MIT", "LICENSE-APACHE", "pipeline.toml"):
        files[name] = ((ROOT / name).read_bytes(), 0o644)
    for name in output("git", "ls-files", "models/shapes").decode().splitlines():
        files[name] = ((ROOT / name).read_bytes(), 0o644)
    files["LICENSES-THIRD-PARTY.txt"] = (third_party_licences(packages), 0o644)
    files["ldm-ort.cdx.json"] = (bill, 0o644)
    for shell, name in SHELLS.items():
        files[f"completions/{name}"] = (output(arguments.host, "completions", shell), 0o644)
    files["man/ldm-ort.1"] = (output(arguments.host, "man"), 0o644)
    return dict(sorted(files.items()))


def write_tar(path, folder, files, epoch):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, (data, mode) in files.items():
            entry = tarfile.TarInfo(f"{folder}/{name}")
            entry.size, entry.mode, entry.mtime, entry.uname, entry.gname = len(data), mode, epoch, "root", "root"
            archive.addfile(entry, io.BytesIO(data))
    path.write_bytes(gzip.compress(packed.getvalue(), 9, mtime=0))


def write_zip(path, folder, files, epoch):
    moment = time.gmtime(epoch)[:6]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, (data, mode) in files.items():
            entry = zipfile.ZipInfo(f"{folder}/{name}", moment)
            entry.compress_type, entry.create_system, entry.external_attr = zipfile.ZIP_DEFLATED, 3, (0o100000 | mode) << 16
            archive.writestr(entry, data)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("target")
    parser.add_argument("program", type=lambda text: Path(text).resolve())
    parser.add_argument("--host", type=lambda text: Path(text).resolve())
    parser.add_argument("--out", type=Path, default=ROOT / "target/dist")
    arguments = parser.parse_args()
    arguments.host = arguments.host or arguments.program
    epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or output("git", "log", "-1", "--format=%ct"))
    graph = metadata(arguments.target)
    [version] = [package["version"] for package in graph["packages"] if package["name"] == "ldm-ort"]
    folder = f"ldm-ort-{version}-{arguments.target}"
    arguments.out.mkdir(parents=True, exist_ok=True)

    bill = bill_of_materials(arguments.target, epoch)
    (arguments.out / f"{folder}.cdx.json").write_bytes(bill)
    files = contents(arguments, bill, linked_packages(graph))
    if "windows" in arguments.target:
        write_zip(arguments.out / f"{folder}.zip", folder, files, epoch)
    else:
        write_tar(arguments.out / f"{folder}.tar.gz", folder, files, epoch)
    names = sorted(path.name for path in arguments.out.iterdir() if path.name != "SHA256SUMS")
    digests = (f"{hashlib.sha256((arguments.out / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
    (arguments.out / "SHA256SUMS").write_bytes("".join(digests).encode())


if __name__ == "__main__":
    main()
