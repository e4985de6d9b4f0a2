"""A tiny cohort on disk and tiny random SAM2 weights, for tests of whole paths. Random weights segment nothing useful;
they compute like any others."""

from pathlib import Path

import numpy as np
import SimpleITK

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.selftraining.options import Network, Schedule, SelfTrainingOptions

IMAGE_SIZE = 64

ONE_ITERATION = Schedule(
    epochs=1,
    iterations=1,
    validation_iterations=1,
    optimizer="adamw",
    augmentation="light",
    warm_start=True,
    workers=0,
    compile=False,
)


def tiny_training(schedule: Schedule = ONE_ITERATION, **changes) -> SelfTrainingOptions:
    """A self-training smaller than any preset: one round, one fold, the smallest network."""
    network = Network(features=4, most_features=8, convolutions=1, patch_size=(4, 32, 32), batch_size=2)
    return SelfTrainingOptions.of(
        "quick", **{"rounds": 1, "folds": 1, "network": network, "schedule": schedule, **changes}
    )


def write_small_cohort(
    folder: Path, *, labelled=2, unlabelled=2, classes=2, slices=5, size=(40, 36), box=(12, 10), thickness=4.0
) -> Path:
    """A ``cohort.json`` over volumes of noise with one bright box per class; returns its path.

    Slices are four times as thick as pixels are large, unless said otherwise: no other plane is looked at.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    cases = []
    for number in range(labelled + unlabelled):
        image = rng.normal(100, 5, (slices, *size)).astype(np.float32)
        label = np.zeros(image.shape, np.uint8)
        for value in range(1, classes + 1):
            row, column = rng.integers(4, 20, 2)
            inside = (slice(1, slices - 1), slice(row, row + box[0]), slice(column, column + box[1]))
            label[inside] = value
            image[inside] += 40 * value
        case = f"c{number}"
        known = "label" if number < labelled else "reference"
        cases.append(
            {
                "id": case,
                "role": "labelled" if number < labelled else "unlabelled",
                "images": [_write(folder / "images" / f"{case}.nii.gz", image, thickness)],
                known: _write(folder / "labels" / f"{case}.nii.gz", label, thickness),
            }
        )
    content = {
        "schema_version": 1,
        "name": "small",
        "modality": "MR",
        "classes": [
            {"value": value, "name": f"class {value}", "color": [200, 60 * value, 60]}
            for value in range(1, classes + 1)
        ],
        "cases": cases,
    }
    Cohort.from_dict(content, folder).save(folder / "cohort.json")
    return folder / "cohort.json"


def _write(path: Path, array: np.ndarray, thickness: float) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = SimpleITK.GetImageFromArray(array)
    image.SetSpacing((1.0, 1.2, thickness))
    SimpleITK.WriteImage(image, str(path))
    return f"{path.parent.name}/{path.name}"


def write_random_weights(path: Path, seed: int = 0) -> Path:
    """A very small SAM2 with random weights, lively enough that results depend on everything."""
    import torch

    from SSLSegLib.checkpoint.configuration import small_configuration
    from SSLSegLib.tffs.reference import mild_weights
    from SSLSegLib.weights.sam2_model import build_sam2
    from SSLSegLib.weights.saving import save_sam2

    configuration = small_configuration(image_size=IMAGE_SIZE, hidden=32, memory=16, trunk=16, stages=(1, 1, 1, 1))
    model = build_sam2(configuration)
    mild_weights(model, seed)
    save_sam2(path, model, configuration, dtype=torch.float32)
    return path
