"""Kill -9 a two-round self-training at random moments, resume it, and compare with an uninterrupted run.

    python Testing/benchmarks/bench_selftraining_kill.py [--kills 10] [--work FOLDER] [--limit SECONDS]

In turn all processes of the run are killed at once, as a power cut would; the parent alone; one child alone. Prints one
line per kill (when, what, what was on disk, what lived on), and at the end whether all predictions and weights equal
the uninterrupted run's.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import psutil
import torch

LIBRARY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(LIBRARY))

from SSLSegLib.cases.cohort import Cohort  # noqa: E402
from SSLSegLib.selftraining.folders import WorkFolder  # noqa: E402
from SSLSegLib.selftraining.options import Network, Schedule, SelfTrainingOptions  # noqa: E402
from SSLSegLib.selftraining.rounds import self_train  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--kills", type=int, default=10)
    arguments.add_argument("--work", type=Path)
    arguments.add_argument("--planned", action="store_true", help="Leave planning out: kill trainings only.")
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--limit", type=float, default=float("inf"), help="Seconds after which nothing is killed.")
    arguments.add_argument("--child", nargs=2, type=Path, help=argparse.SUPPRESS)
    options = arguments.parse_args()
    if options.child:
        _run(*options.child)
        return
    folder = options.work or Path(tempfile.mkdtemp(prefix="sslseg-kill-"))
    cohort = _cohort(folder / "cohort")
    whole, cut = folder / "whole", folder / "cut"
    began = time.monotonic()
    end = began + options.limit
    _start(cohort, whole).wait()
    duration = time.monotonic() - began
    print(f"Uninterrupted: {duration:.0f} s")

    rng = np.random.default_rng(options.seed)
    shutil.rmtree(cut, ignore_errors=True)
    kills, runs, same, orphans = 0, 0, True, 0
    while kills < options.kills and time.monotonic() < end:
        if options.planned and not cut.exists():
            cut.mkdir()
            for name in ("settings.json", "cases.json", "folds.json"):
                shutil.copyfile(whole / name, cut / name)
            shutil.copytree(whole / "base", cut / "base")
        process = _start(cohort, cut)
        moment = rng.uniform(0.1, 0.9) * duration
        time.sleep(moment)
        if process.poll() is not None:
            runs, same = runs + 1, same and _compare(whole, cut)
            print(f"the run had ended before the kill, {'equal' if same else 'NOT EQUAL'}; another begins", flush=True)
            shutil.rmtree(cut)
            continue
        kills += 1
        what, lived_on = _kill(process, ("all", "the parent", "a child")[kills % 3])
        orphans += lived_on
        print(f"{kills}: after {moment:5.1f} s, {what}; {lived_on} lived on; {_on_disk(cut)}", flush=True)
    print("Resuming to the end:", "exit code", _start(cohort, cut).wait())
    same = same and _compare(whole, cut)
    print(f"{kills} kills, {runs + 1} runs, {orphans} orphans")
    print("Equal to the uninterrupted run:", "yes" if same else "NO")
    sys.exit(not same or orphans > 0)


def _kill(process: "subprocess.Popen[bytes]", whom: str) -> tuple[str, int]:
    """Kill some of a run, and see that the rest ends by itself: what was killed, and how many lived on."""
    children = psutil.Process(process.pid).children(recursive=True)
    if whom == "a child" and not children:
        whom = "the parent"
    victims = {"all": [process, *children], "the parent": [process], "a child": children[:1]}[whom]
    for victim in victims:
        victim.send_signal(signal.SIGKILL)
    process.wait(60)
    _, alive = psutil.wait_procs(children, timeout=15)
    return f"{whom} of {1 + len(children)} processes killed", len(alive)


def _cohort(folder: Path) -> Path:
    from SSLSegLib.cases.phantoms import make_phantom_cohort
    from SSLSegLib.cases.reading import read_label
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.cases.writing import write_label

    cohort = make_phantom_cohort(folder, seed=5, labelled=2, unlabelled=4, test=0, shape=(10, 40, 48))
    for case in cohort.unlabelled:  # stand-ins for pseudo-labels: the references, moved by a voxel
        label = read_label(cohort, case, "reference")
        moved = LabelMap(np.roll(label.array, 1, axis=2), label.geometry)
        target = folder / "results" / case.id / "labels.nii.gz"
        write_label(target, moved, cohort.classes, reference=label.geometry)
    return folder / "cohort.json"


def _options() -> SelfTrainingOptions:
    schedule = Schedule(
        epochs=4,
        iterations=3,
        validation_iterations=1,
        optimizer="adamw",
        augmentation="nnunet",
        workers=0,
        compile=False,
    )
    network = Network(features=4, most_features=16, convolutions=1, patch_size=(8, 32, 32), batch_size=4)
    return SelfTrainingOptions.of("quick", folds=2, rounds=2, schedule=schedule, network=network, stop_gain=-1)


def _run(cohort: Path, work: Path) -> None:
    loaded = Cohort.load(cohort)
    self_train(loaded, loaded.folder / "results", work, _options())


def _start(cohort: Path, work: Path) -> "subprocess.Popen[bytes]":
    command = [sys.executable, __file__, "--child", str(cohort), str(work)]
    environment = {**os.environ, "PYTHONPATH": str(LIBRARY), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)  # a run whose child dies says so there


def _on_disk(work: Path) -> str:
    folder = WorkFolder(work)
    folds = len(list(work.glob("rounds/*/res/*/*/fold_*/done.json")))
    latest = len(list(work.glob("rounds/*/res/*/*/fold_*/checkpoint_latest.pth")))
    planned = "planned" if folder.planned.exists() else "not planned yet"
    return f"{planned}, {folds} folds finished, {latest} folds with a checkpoint, rounds {folder.finished_rounds()}"


def _compare(whole: Path, cut: Path) -> bool:
    same = True
    for path in sorted(whole.glob("rounds/*/predictions/*")):
        same &= path.read_bytes() == (cut / path.relative_to(whole)).read_bytes()
    for path in sorted(whole.glob("rounds/*/res/*/*/fold_*/checkpoint_final.pth")):
        one, other = (
            torch.load(file, weights_only=True)["network_weights"] for file in (path, cut / path.relative_to(whole))
        )
        same &= all(torch.equal(one[name], other[name]) for name in one)
    for path in sorted(whole.glob("rounds/*/round.json")):
        agreements = [json.loads(file.read_text())["agreement"] for file in (path, cut / path.relative_to(whole))]
        same &= agreements[0] == agreements[1]
    return same


if __name__ == "__main__":
    main()
