"""What a user without a network would do on the same generated subjects: multi-atlas registration, for comparison.

    python Testing/benchmarks/bench_registration.py [--subjects 9] [--atlases 1]

The subjects are those of ``bench_checkpoint.py``. Each labelled case is registered to the unlabelled one with SimpleITK
(affine, then B-spline, both on Mattes mutual information); the warped masks vote.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import SimpleITK
from bench_checkpoint import SIZES, draw_cohort
from rich.console import Console
from rich.progress import track
from rich.table import Table

from SSLSegLib.checkpoint.samples import CHANGES

SPACING = (1.0, 1.0, 2.0)  # mm; 128 x 128 x 48 voxels, as thick slices as those of the generator


def _image(array: np.ndarray) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array.astype(np.float32))
    image.SetSpacing(SPACING)
    return image


def _method(sampled: float) -> SimpleITK.ImageRegistrationMethod:
    method = SimpleITK.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(sampled, seed=1)
    method.SetInterpolator(SimpleITK.sitkLinear)
    return method


def register(fixed: SimpleITK.Image, moving: SimpleITK.Image) -> SimpleITK.Transform:
    """From the fixed image's space to the moving one's: affine, then B-spline with a point every 16 mm."""
    affine = SimpleITK.CenteredTransformInitializer(fixed, moving, SimpleITK.AffineTransform(3))
    method = _method(0.1)
    method.SetInitialTransform(affine)
    method.SetOptimizerAsGradientDescent(1.0, 100, 1e-6, 10)
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2])
    method.SetSmoothingSigmasPerLevel([2, 1])
    affine = method.Execute(fixed, moving)

    mesh = [max(1, round(size * step / 16)) for size, step in zip(fixed.GetSize(), SPACING, strict=True)]
    spline = SimpleITK.BSplineTransformInitializer(fixed, mesh)
    method = _method(0.2)
    method.SetMovingInitialTransform(affine)
    method.SetInitialTransform(spline)
    method.SetOptimizerAsLBFGSB(numberOfIterations=60)
    method.SetShrinkFactorsPerLevel([2])
    method.SetSmoothingSigmasPerLevel([1])
    return SimpleITK.CompositeTransform([affine, method.Execute(fixed, moving)])


def evaluate(index: int, atlases: int) -> dict:
    """Dice of one subject, and seconds."""
    images, masks, row = draw_cohort(index)
    started = time.perf_counter()
    fixed, votes = _image(images[-1]), np.zeros(masks[-1].shape)
    for image, mask in zip(images[:atlases], masks[:atlases], strict=True):
        transform = register(fixed, _image(image))
        votes += SimpleITK.GetArrayFromImage(SimpleITK.Resample(_image(mask), fixed, transform))
    found = votes / atlases > 0.5
    row["dice"] = float(2 * (found & masks[-1]).sum() / max(found.sum() + masks[-1].sum(), 1))
    row["overlap"] = float(2 * (masks[0] & masks[-1]).sum() / (masks[0].sum() + masks[-1].sum()))
    row["seconds"] = time.perf_counter() - started
    return row


def show(rows: list[dict]) -> None:
    """Print the table."""
    table = Table("subjects", "n", "before registration", "registered", title="Mean Dice")

    def add(name: str, some: list[dict]) -> None:
        if some:
            means = [f"{np.mean([row[column] for row in some]):.3f}" for column in ("overlap", "dice")]
            table.add_row(name, str(len(some)), *means)

    add("all", rows)
    for name, (low, high) in SIZES.items():
        add(name, [row for row in rows if low <= row["size"] < high])
    for change in CHANGES:
        add(f"contrast {change}", [row for row in rows if row["change"] == change])
    Console().print(table)
    print(f"{np.mean([row['seconds'] for row in rows]):.0f} s a subject")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--subjects", type=int, default=9)
    parser.add_argument("--atlases", type=int, default=1, choices=(1, 2, 3, 4))
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    SimpleITK.ProcessObject.SetGlobalDefaultNumberOfThreads(given.threads)
    rows = [evaluate(index, given.atlases) for index in track(range(given.subjects), "Subjects")]
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))
    show(rows)


if __name__ == "__main__":
    main()
