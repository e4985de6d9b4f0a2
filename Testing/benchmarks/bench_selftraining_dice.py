"""Dice over a whole self-training: pseudo-labels, each round, the final model on unseen cases, labelled-only.

    python Testing/benchmarks/bench_selftraining_dice.py [--job FOLDER] [--preset quick] [--seed 1] [--device cpu]

With --job, continues a finished pseudo-labelling job of a cohort with references; without, makes a phantom cohort
(3 labelled, 6 unlabelled, 4 test) and spoils its references into stand-ins for pseudo-labels: their surfaces are
moved by a smooth random field of 2 pixels, and one slice in eight is lost.
"""

import argparse
import resource
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import distance_transform_edt, gaussian_filter

LIBRARY = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(LIBRARY))

from SSLSegLib.cases.cohort import Case, Cohort  # noqa: E402
from SSLSegLib.cases.phantoms import make_phantom_cohort  # noqa: E402
from SSLSegLib.cases.reading import read_label, read_label_file  # noqa: E402
from SSLSegLib.cases.volume import LabelMap  # noqa: E402
from SSLSegLib.cases.writing import write_label  # noqa: E402
from SSLSegLib.evaluation.metrics import dice  # noqa: E402
from SSLSegLib.selftraining.disk import disk_use  # noqa: E402
from SSLSegLib.selftraining.folders import WorkFolder  # noqa: E402
from SSLSegLib.selftraining.model import find_round, load_model  # noqa: E402
from SSLSegLib.selftraining.options import SelfTrainingOptions  # noqa: E402
from SSLSegLib.selftraining.predict import predict_cases  # noqa: E402
from SSLSegLib.selftraining.rounds import self_train, train_labelled_only  # noqa: E402


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--job", type=Path)
    arguments.add_argument("--preset", default="quick")
    arguments.add_argument("--configuration")
    arguments.add_argument("--rounds", type=int)
    arguments.add_argument("--seed", type=int, default=1)
    arguments.add_argument("--device", default="cpu")
    arguments.add_argument("--work", type=Path)
    wanted = arguments.parse_args()
    folder = wanted.work or Path(tempfile.mkdtemp(prefix="sslseg-dice-"))
    cohort, results = _of_job(wanted.job) if wanted.job else _phantoms(folder / "cohort", wanted.seed)
    options = SelfTrainingOptions.of(
        wanted.preset, configuration=wanted.configuration, rounds=wanted.rounds, devices=(wanted.device,)
    )
    print(f"{len(cohort.labelled)} labelled, {len(cohort.unlabelled)} unlabelled, {len(cohort.test)} test; {options}")

    def score(name: str, cases: tuple[Case, ...], files: dict[str, Path], remark: str = "") -> None:
        rows = [_dice(cohort, case, files[case.id]) for case in cases if case.reference]
        by_class = ", ".join(
            f"{each.name} {value:.3f}" for each, value in zip(cohort.classes, np.mean(rows, 0), strict=True)
        )
        print(f"{name:42s} {np.mean(rows):.3f} +- {np.std(np.mean(rows, 1)):.3f}  ({by_class}) {remark}", flush=True)

    score("pseudo-labels, unlabelled cases", cohort.unlabelled, {k: v / "labels.nii.gz" for k, v in results.items()})
    work = folder / "work"
    began = time.monotonic()
    outcome = self_train(cohort, results, work, options)
    print(f"rounds: {time.monotonic() - began:.0f} s, {_child_seconds():.0f} s of CPU; stopped by {outcome.stopped}")
    for number, report in enumerate(outcome.rounds, start=1):
        predicted = WorkFolder(work).round(number).predictions
        files = {case.id: predicted / f"{case.id}.nii.gz" for case in cohort.unlabelled}
        score(f"{report.name}, unlabelled cases", cohort.unlabelled, files, f"agreement {report.agreement:.3f}")
    for number in range(1, len(outcome.rounds) + 1):
        _score_on_test(score, cohort, work, number, folder, wanted.device)
    began = time.monotonic()
    train_labelled_only(cohort, results, work, options)
    print(f"baseline: {time.monotonic() - began:.0f} s; all children so far {_child_seconds():.0f} s of CPU")
    _score_on_test(score, cohort, work, "baseline", folder, wanted.device)
    for part, size in disk_use(WorkFolder(work)).items():
        print(f"disk, {part}: {size / 1e6:.1f} MB")


def _score_on_test(score, cohort: Cohort, work: Path, which: int | str, folder: Path, device: str) -> None:  # type: ignore[no-untyped-def]
    target = find_round(work, which)
    output = folder / "predictions" / target.path.name
    predict_cases(load_model(target), cohort, cohort.test, output, device=device)
    score(
        f"{target.name} model, test cases",
        cohort.test,
        {case.id: output / case.id / "labels.nii.gz" for case in cohort.test},
    )


def _dice(cohort: Cohort, case: Case, path: Path) -> list[float]:
    truth = read_label(cohort, case, "reference").array
    found = read_label_file(path, cohort.classes).array
    return [dice(found == each.value, truth == each.value) for each in cohort.classes]


def _of_job(path: Path) -> tuple[Cohort, dict[str, Path]]:
    from SSLSegLib.jobs.folder import Job

    job = Job.open(path)
    cohort = job.manifest.checked_parameters().loaded_cohort()
    return cohort, {case.id: job.result_folder(case.id) for case in cohort.unlabelled}


def _phantoms(folder: Path, seed: int) -> tuple[Cohort, dict[str, Path]]:
    cohort = make_phantom_cohort(folder, seed=seed, labelled=3, unlabelled=6, test=4)
    for number, case in enumerate(cohort.unlabelled):
        truth, rng = read_label(cohort, case, "reference"), np.random.default_rng(100 * seed + number)
        spoilt = np.zeros_like(truth.array)
        for each in cohort.classes:
            mask = truth.array == each.value
            depth = distance_transform_edt(mask, sampling=(2, 1, 1)) - distance_transform_edt(~mask, sampling=(2, 1, 1))
            noise = gaussian_filter(rng.normal(size=mask.shape), (1.5, 5, 5))
            moved = depth + 2 * noise / noise.std() > 0
            moved[rng.random(len(moved)) < 0.12] = False
            spoilt[moved] = each.value
        target = folder / "results" / case.id / "labels.nii.gz"
        write_label(target, LabelMap(spoilt, truth.geometry), cohort.classes, reference=truth.geometry)
    return cohort, {case.id: folder / "results" / case.id for case in cohort.unlabelled}


def _child_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
