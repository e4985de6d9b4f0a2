"""Split uv's universal lock into the files that tools/install.py installs, one after another.

    requirements-build.lock   setuptools, wheel, packaging: to build the few source-only packages without isolation
    requirements.lock         everything but torch
    requirements-cpu.lock     torch, the CPU build (where pip is offered one)
    requirements-cuda.lock    torch as PyPI has it, with the CUDA libraries it links to (Linux) or without (elsewhere)

Usage: python tools/split_lock.py ALL.lock OUTPUT_FOLDER
"""

import re
import sys
from pathlib import Path

# The CPU build carries a local version that the resolver does not list: its digests are written here.
CPU_TORCH = {
    "2.13.0": ["6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"],  # cp311 manylinux_2_28 x86_64
}
BUILD = re.compile(r"(setuptools|wheel|packaging)==")
CUDA = re.compile(r"(torch|triton|cuda-[a-z]+|nvidia-[a-z0-9-]+)==")
HEADER = "# Made by `make lock` from requirements.in. Installed by tools/install.py with --no-deps and hashes.\n"


def split(all_lock: str) -> dict[str, str]:
    """Return file name -> text for the text of a universal lock file."""
    files: dict[str, list[str]] = {"build": [], "": [], "cuda": [], "cpu": []}
    for entry in re.split(r"\n(?=[A-Za-z0-9])", all_lock.strip()):
        kind = "build" if BUILD.match(entry) else "cuda" if CUDA.match(entry) else ""
        files[kind].append(entry)
        if entry.startswith("torch=="):
            version = entry.split()[0].removeprefix("torch==")
            files["cpu"].append(
                " \\\n".join([f"torch=={version}"] + [f"    --hash=sha256:{digest}" for digest in CPU_TORCH[version]])
            )
    return {
        f"requirements{'-' if kind else ''}{kind}.lock": HEADER + "\n".join(entries) + "\n"
        for kind, entries in files.items()
    }


def main() -> None:
    source, folder = Path(sys.argv[1]), Path(sys.argv[2])
    for name, text in split(source.read_text()).items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main()
