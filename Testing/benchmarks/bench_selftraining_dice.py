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

from SSLSegLib.cases.cohort import Cohort  # noqa: E402
from SSLSegLib.cases.phantoms import make_phantom_cohort  # noqa: E402
from SSLSegLib.cases.reading import read_label  # noqa: E402
from SSLSegLib.cases.volume import LabelMap  # noqa: E402
from SSLSegLib.cases.writing import write_label  # noqa: E402
from SSLSegLib.evaluation.rounds import plot_rounds, score_rounds, write_rounds_csv  # noqa: E402
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

    work = folder / "work"
    began = time.monotonic()
    outcome = self_train(cohort, results, work, options)
    print(f"rounds: {time.monotonic() - began:.0f} s; stopped by {outcome.stopped}", flush=True)
    began = time.monotonic()
    train_labelled_only(cohort, results, work, options)
    print(f"baseline: {time.monotonic() - began:.0f} s; all children {_child_seconds():.0f} s of CPU", flush=True)

    models = {f"round {number}": number for number in range(1, len(outcome.rounds) + 1)} | {"labelled only": "baseline"}
    predictions = {name: folder / "predictions" / str(which) for name, which in models.items()}
    began = time.monotonic()
    for name, which in models.items():
        model = load_model(find_round(work, which))
        predict_cases(model, cohort, cohort.test, predictions[name], device=wanted.device)
    print(f"predicting {len(cohort.test)} test cases with {len(models)} models: {time.monotonic() - began:.0f} s")
    stages = score_rounds(cohort, results, work, predictions)
    for stage in stages:
        by_class = np.mean([[each.dice for each in case.classes] for case in stage.cases], axis=0)
        named = ", ".join(f"{each.name} {value:.3f}" for each, value in zip(cohort.classes, by_class, strict=True))
        agreed = "" if stage.agreement is None else f"; agreement {stage.agreement:.3f}"
        print(
            f"{stage.name}, {len(stage.cases)} {stage.group}: "
            f"Dice {stage.dice:.3f} +- {stage.spread:.3f} ({named}{agreed})"
        )
    write_rounds_csv(folder / "rounds.csv", stages)
    plot_rounds(folder / "rounds.png", stages)
    for part, size in disk_use(WorkFolder(work)).items():
        print(f"disk, {part}: {size / 1e6:.1f} MB")


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
