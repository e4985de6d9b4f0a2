"""Create .venv from the lock files: pinned versions, hashes, no dependency resolution. Standard library only.

torch is taken as the CPU build where pip is offered one whose digest is pinned (an index or folder that the user
configured), else as PyPI has it. torchvision is never installed: the build that PyPI offers breaks CPU torch.

Usage: python3 tools/install.py [VENV_FOLDER]
"""

import hashlib
import json
import os
import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LOCKS = ROOT / "requirements"
TORCH = next(
    line.split()[0] for line in (LOCKS / "requirements-cpu.lock").read_text().splitlines() if "torch==" in line
)


def environment_digest(torch_lock: str) -> str:
    """One digest of all that decides what lies in the environment."""
    parts = [(LOCKS / name).read_bytes() for name in ("requirements-build.lock", "requirements.lock", torch_lock)]
    parts += [sys.version.encode(), (ROOT / "pyproject.toml").read_bytes()]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()


def pip(python: Path, *arguments: str) -> None:
    """Run pip of the new environment; a failure prints pip's own words and ends the installation."""
    command = [str(python), "-m", "pip", "--disable-pip-version-check", *arguments]
    done = subprocess.run(command, text=True, capture_output=True)
    if done.returncode:
        sys.exit(f"{done.stdout}{done.stderr}\nInstallation stopped: pip failed (exit {done.returncode}).")


def offered_cpu_torch(python: Path) -> bool:
    """Whether pip, as configured on this machine, would take a CPU build whose digest is pinned."""
    command = [str(python), "-m", "pip", "install", "--dry-run", "--quiet", "--no-deps", "--ignore-installed"]
    done = subprocess.run([*command, "--report", "-", TORCH], text=True, capture_output=True)
    if done.returncode:
        return False
    found = json.loads(done.stdout[done.stdout.index("{") :])["install"]
    digests = {item["download_info"].get("archive_info", {}).get("hashes", {}).get("sha256", "") for item in found}
    pinned = (LOCKS / "requirements-cpu.lock").read_text()
    return any(digest and digest in pinned for digest in digests)


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036  (the file is run by whatever python3 the machine has)
        sys.exit(f"SSLSeg needs Python 3.11 or newer; this is {sys.version.split()[0]}. Run: make PYTHON=python3.12")
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv")
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    stamp = folder / "sslseg-lock.json"
    if stamp.is_file():
        done = json.loads(stamp.read_text())
        if done["digest"] == environment_digest(done["torch"]):
            return
    if not python.is_file():
        print(f"Creating {folder} ...", flush=True)
        venv.create(folder, with_pip=True)
    torch_lock = "requirements-cpu.lock" if offered_cpu_torch(python) else "requirements-cuda.lock"
    for lock in ("requirements-build.lock", torch_lock, "requirements.lock"):
        print(f"Installing {lock} ...", flush=True)
        hashed = ["--no-deps", "--no-build-isolation", "--require-hashes", "-r", str(LOCKS / lock)]
        pip(python, "install", "--no-warn-script-location", *hashed)
    pip(python, "install", "--no-deps", "--no-build-isolation", "-e", str(ROOT))
    stamp.write_text(json.dumps({"digest": environment_digest(torch_lock), "torch": torch_lock}))


if __name__ == "__main__":
    main()
