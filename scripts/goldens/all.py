"""Makes the tiny models and all references again, with the packages of scripts/requirements.txt.

    python scripts/goldens/all.py              # the models, then the references
    python scripts/goldens/all.py --goldens    # the references alone, on the models as they are packed
    python scripts/goldens/all.py --list       # what would be run
    python scripts/goldens/all.py lora xl      # those with that in their name

Afterwards `git diff --stat` tells what came out otherwise, and `cargo test` whether the program still agrees.
"""

import argparse
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.append(str(ROOT / "scripts" / "fixtures"))

# Tokenizers before the models that take them, models before what is drawn with them.
FIRST = [
    "goldens/golden_tokenizer.py",
    "goldens/golden_tokenizer_t5.py",
    "fixtures/make_tiny_graphs.py",
    "fixtures/make_rewrites.py",
    "fixtures/make_fixtures.py",
    "fixtures/make_families.py",
    "fixtures/make_systems.py",
]
# Modules of the others; and the one that needs several commands.
NOT_RUN = {"all.py", "golden_case.py", "golden_tokenizer_texts.py", "scheduler_grid.py"}
ONE_THREAD = {"OMP_NUM_THREADS": "1"}


def unpacked():
    import seeds

    for pack in sorted((ROOT / "tests/fixtures/packed").glob("*.zip")):
        seeds.unpack(pack, ROOT / "tests/fixtures" / pack.stem)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--goldens", action="store_true", help="leave the models as they are")
    parser.add_argument("--list", action="store_true", help="print the scripts and run none")
    parser.add_argument("names", nargs="*", help="run the scripts with one of these in their name")
    options = parser.parse_args()
    goldens = sorted(f"goldens/{path.name}" for path in (ROOT / "scripts/goldens").glob("*.py") if path.name not in NOT_RUN)
    scripts = [] if options.goldens else FIRST
    scripts = scripts + [script for script in goldens if script not in FIRST]
    if options.names:
        scripts = [script for script in scripts if any(name in script for name in options.names)]
    if not options.list:
        unpacked()
    failed = []
    for script in scripts:
        print(f"== {script}", flush=True)
        if not options.list:
            run = subprocess.run([sys.executable, f"scripts/{script}"], cwd=ROOT, env=os.environ | ONE_THREAD)
            failed += [script] if run.returncode else []
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
