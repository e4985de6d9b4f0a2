"""A tiny cohort on disk and one finished run on it: real nnU-Net, two rounds of a few iterations."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.selftraining.options import Network, Schedule, SelfTrainingOptions

CLASSES = (SegmentClass(value=2, name="ball"), SegmentClass(value=5, name="box", largest_component=False))

TINY_NETWORK = Network(features=4, most_features=8, convolutions=1, patch_size=(8, 32, 32), batch_size=2)
TINY_SCHEDULE = Schedule(
    epochs=2,
    iterations=2,
    validation_iterations=1,
    optimizer="adamw",
    learning_rate=0.01,
    augmentation="light",
    warm_start=True,
    workers=0,
    compile=False,
)


def tiny_options(**changes: object) -> SelfTrainingOptions:
    """Two folds, two rounds, four iterations a training."""
    values = {"rounds": 2, "folds": 2, "network": TINY_NETWORK, "schedule": TINY_SCHEDULE, **changes}
    return SelfTrainingOptions.of("quick", **values)


def make_cohort(
    folder: Path,
    *,
    labelled: int = 2,
    unlabelled: int = 3,
    test: int = 1,
    channels: int = 1,
    spacings: tuple[tuple[float, float, float], ...] = ((2.5, 1.0, 1.0),),
    border: int = 0,
) -> Cohort:
    """Balls and boxes in noise, oblique grids, label values 2 and 5; pseudo-labels are shifted references.

    Args:
        folder: Where to.
        labelled, unlabelled, test: Number of cases.
        channels: Image files a case.
        spacings: (k, j, i) of the cases in turn.
        border: Voxels of padding (0) around the image.
    """
    rng = np.random.default_rng(7)
    shape = (10, 36, 40)
    cases = []
    for number, role in enumerate(["labelled"] * labelled + ["unlabelled"] * unlabelled + ["test"] * test):
        case_id = f"c{number}"
        turn = np.radians(10 * number)
        matrix = np.eye(4)
        matrix[:3, :3] = np.array([[np.cos(turn), -np.sin(turn), 0], [np.sin(turn), np.cos(turn), 0], [0, 0, 1]])
        matrix[:3, :3] *= spacings[number % len(spacings)][::-1]
        matrix[:3, 3] = (-20, 10, 5 * number)
        grid = Geometry(shape, matrix)
        k, j, i = np.indices(shape)
        middle = rng.uniform(-2, 2, 3)
        labels = np.zeros(shape, np.uint8)
        labels[(2 * (k - 5 - middle[0])) ** 2 + (j - 12 - middle[1]) ** 2 + (i - 12 - middle[2]) ** 2 < 30] = 2
        labels[(abs(k - 5) < 3) & (abs(j - 24 - middle[1]) < 5) & (abs(i - 26 - middle[2]) < 4)] = 5
        for channel in range(channels):
            image = 100 + 70 * (labels == 2) + (120 - 60 * channel) * (labels == 5) + rng.normal(0, 15, shape)
            if border:
                inside = np.zeros(shape, bool)
                inside[border:-border, 2 * border : -border, border:-border] = True
                image[~inside] = 0
            write_scalar(folder / "images" / f"{case_id}_{channel}.nii.gz", image.astype(np.float32), grid)
        truth = folder / ("labels" if role == "labelled" else "references") / f"{case_id}.nii.gz"
        write_label(truth, LabelMap(labels, grid), CLASSES, reference=grid)
        if role == "unlabelled":
            shifted = np.roll(labels, 2, axis=2)
            write_label(
                folder / "results" / case_id / "labels.nii.gz", LabelMap(shifted, grid), CLASSES, reference=grid
            )
        known = {"label" if role == "labelled" else "reference": truth.relative_to(folder).as_posix()}
        images = tuple(f"images/{case_id}_{channel}.nii.gz" for channel in range(channels))
        cases.append(Case(id=case_id, role=role, images=images, **known))
    return Cohort(name="tiny", classes=CLASSES, cases=tuple(cases)).at(folder).save(folder / "cohort.json")


class FinishedRun:
    """A self-training that has ended, with all it said on the way."""

    def __init__(self, cohort: Cohort, options: SelfTrainingOptions, work: Path) -> None:
        from SSLSegLib.selftraining.rounds import self_train

        self.cohort, self.options, self.work = cohort, options, work
        self.results = cohort.folder / "results"
        self.events: list[tuple[str, dict]] = []
        self.outcome = self_train(cohort, self.results, work, options, progress=self.hear)

    def hear(self, event: str, **fields: object) -> None:
        json.dumps(fields)
        self.events.append((event, fields))

    def copy_planned(self, target: Path) -> Path:
        """The run as it was after planning, in another folder: tests need not plan again."""
        return copy_planned(self.work, target)


def copy_planned(work: Path, target: Path) -> Path:
    """A work folder as it was after planning, at another place."""
    target.mkdir(parents=True)
    for name in ("settings.json", "folds.json", "cases.json"):
        shutil.copyfile(work / name, target / name)
    shutil.copytree(work / "base", target / "base")
    return target


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    folder = tmp_path_factory.mktemp("finished")
    return FinishedRun(make_cohort(folder / "cohort"), tiny_options(), folder / "work")
