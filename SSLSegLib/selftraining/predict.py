"""The final model on images: the folds' outputs averaged, and where the folds disagree (paper 1, section FSL-nnUNet).

"All of the final refined 5-folds models are used for model inference on the unseen testing data by taking the average
of 5 different predictions." As in nnU-Net, the average is over logits, before the softmax.
"""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.headers import ENDINGS, read_header
from SSLSegLib.cases.reading import read_image
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError
from SSLSegLib.files import read_json, sha256_of, write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.selftraining.agreement import compare_labels
from SSLSegLib.selftraining.dataset import ClassValues, image_files
from SSLSegLib.selftraining.model import TrainedModel

__all__ = ["Prediction", "image_name", "named_images", "predict_case", "predict_cases", "predict_files"]


@dataclass(frozen=True, eq=False)
class Prediction:
    """What the model says about one image. All arrays lie in the image's geometry.

    Args:
        labels: uint8 (K, J, I), the cohort's label values.
        probability: float32 (classes, K, J, I), softmax of the folds' mean logits, background left out.
        disagreement: float32 (K, J, I) in 0..0.5: the largest over classes of the standard deviation of the folds'
            probabilities.
        fold_dice: Mean Dice of each fold's own labels with ``labels`` (None where both are empty); low where the
            folds disagree about a case as a whole.
        geometry: The image's.
    """

    labels: np.ndarray
    probability: np.ndarray
    disagreement: np.ndarray
    fold_dice: tuple[float | None, ...]
    geometry: Geometry


def predict_case(
    model: TrainedModel,
    images: Sequence[Path],
    classes: Sequence[SegmentClass],
    *,
    device: str = "cpu",
    case_id: str = "image",
    predictor: object = None,
) -> Prediction:
    """Predict one image.

    Args:
        model: The trained folds.
        images: One file (or DICOM folder) a channel, or one file with all channels; in the training's order.
        classes: The cohort's classes the model was trained for.
        device: ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        case_id: For messages.
        predictor: ``model.predictor(device)``, to build the network once for many images.

    Raises:
        CaseError: When the image cannot be read or has other channels than the training's.
    """
    from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape

    predictor = predictor or model.predictor(torch.device(device))
    values = ClassValues(classes)
    volume = read_image(list(images), case_id=case_id)
    if not np.isfinite(volume.array.sum(dtype=np.float64)):  # one such voxel makes every voxel of the result nonsense
        raise CaseError(
            "The image holds voxels that are not finite (NaN or infinite).",
            case_id=case_id,
            remedy="replace them, for example by 0, and save the file again.",
        )
    geometry = volume.geometry
    manager, settings = predictor.plans_manager, predictor.configuration_manager
    with tempfile.TemporaryDirectory() as scratch:
        files = image_files(images, Path(scratch), "image", case_id)
        if len(files) != len(model.dataset["channel_names"]):
            raise CaseError(
                f"The image has {len(files)} channels, the model was trained on {len(model.dataset['channel_names'])}.",
                case_id=case_id,
                remedy="Give the same channels in the same order as in the training.",
            )
        preprocessor = settings.preprocessor_class(verbose=False)
        data, _, properties = preprocessor.run_case(files, None, manager, settings, model.dataset)

    def in_image(logits: torch.Tensor) -> tuple[np.ndarray, np.ndarray]:
        return convert_predicted_logits_to_segmentation_with_correct_shape(
            logits, manager, settings, predictor.label_manager, dict(properties), return_probabilities=True
        )

    folds = [_logits(predictor, weights, torch.from_numpy(data)) for weights in model.weights]
    total = folds[0].clone()
    for logits in folds[1:]:  # in half precision and in this order, as the stock predictor adds them up
        total += logits
    labels, probability = in_image(total / len(folds) if len(folds) > 1 else total)
    of_folds = [in_image(logits) for logits in folds]
    spread = np.std(np.stack([own[1:] for _, own in of_folds]), axis=0).max(axis=0)
    return Prediction(
        labels=values.from_nnunet(labels.astype(np.uint8)),
        probability=np.ascontiguousarray(probability[1:], dtype=np.float32),
        disagreement=spread.astype(np.float32),
        fold_dice=tuple(compare_labels(labels, own, len(classes)).dice for own, _ in of_folds),
        geometry=geometry,
    )


def predict_files(
    model: TrainedModel,
    images: Mapping[str, Sequence[Path]],
    classes: Sequence[SegmentClass],
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[str]:
    """Predict images into ``output/<name>/``: labels, probabilities and fold disagreement; finished ones are skipped.

    Files: ``labels.nii.gz``, ``labels.seg.nrrd``, ``probability_<value>.nii.gz``, ``disagreement.nii.gz`` and, last,
    ``result.json``.

    Args:
        model: The trained folds.
        images: Name -> its files.
        classes: The cohort's classes.
        output: Folder.
        device: See :func:`predict_case`.
        progress: Listener.

    Returns:
        The names that were predicted now.

    Raises:
        CaseError: When an image cannot be used, or its folder holds the prediction of another image or model, or other
            files.
    """
    for name, files in images.items():  # a wrong one is said before the others are predicted
        for file in files:
            read_header(file, case_id=name)
    origins = {name: _origin(model, files) for name, files in images.items()}
    for name, origin in origins.items():
        _refuse_another(Path(output) / name, name, origin)
    Path(output).mkdir(parents=True, exist_ok=True)  # a place that cannot be written is said before any work
    predictor = model.predictor(torch.device(device))
    made = []
    progress("stage", stage="predicting", total=len(images))
    for done, (name, files) in enumerate(images.items(), start=1):
        folder = Path(output) / name
        if not (folder / "result.json").is_file():
            found = predict_case(model, list(files), classes, device=device, case_id=name, predictor=predictor)
            with _new_folder(folder) as part:
                _save(part, name, found, classes, model, origins[name])
            made.append(name)
            progress("result", case=name)
        progress("progress", stage="predicting", done=done, total=len(images), case=name)
    return made


def predict_cases(
    model: TrainedModel,
    cohort: Cohort,
    cases: Iterable[Case],
    output: Path,
    *,
    device: str = "cpu",
    progress: Progress = silent,
) -> list[str]:
    """Predict cases of a cohort (its test cases, say) into ``output/<case id>/``; see :func:`predict_files`."""
    images = {case.id: cohort.image_paths(case) for case in cases}
    return predict_files(model, images, cohort.classes, output, device=device, progress=progress)


def image_name(path: Path) -> str:
    """An image file's name without its ending, to name its prediction by.

    Example:
        >>> image_name(Path("scans/new_01.nii.gz"))
        'new_01'
    """
    name = path.name
    for ending in sorted(ENDINGS, key=len, reverse=True):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def named_images(paths: Iterable[Path]) -> dict[str, list[Path]]:
    """Images by the name of their prediction, one file each, as :func:`predict_files` takes them.

    Raises:
        CaseError: Two have one name: their predictions would have one place. Or one has none.
    """
    named: dict[str, list[Path]] = {}
    for path in paths:
        name = image_name(Path(os.path.abspath(path)))  # of "." too, a DICOM folder that one stands in
        if name in ("", ".", ".."):
            raise CaseError(f"{path} has no name to call its prediction by.", remedy="Rename it.")
        if name in named:
            raise CaseError(
                f"{named[name][0]} and {path} have one name, and so would their predictions.",
                case_id=name,
                remedy="Rename one, or predict them one after the other into folders of their own (--out).",
            )
        named[name] = [path]
    return named


def _origin(model: TrainedModel, files: Sequence[Path]) -> dict[str, object]:
    """What a prediction is made of: the images' and the folds' checksums."""
    every = [each for file in files for each in (sorted(file.iterdir()) if file.is_dir() else [file])]
    return {
        "images": [sha256_of(file) for file in every if file.is_file()],
        "checkpoints": {str(fold): digest for fold, digest in model.report.checkpoints.items()},
    }


def _refuse_another(folder: Path, name: str, origin: Mapping[str, object]) -> None:
    """A finished prediction is kept, but never taken for that of another image of the same name.

    Nor is a folder of the same name that somebody else has filled: predictions come whole, by one rename.
    """
    if not (folder / "result.json").is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise CaseError(
                f"{folder} is there already and holds no prediction.",
                case_id=name,
                remedy="Name another folder with --out. Nothing was changed.",
            )
        return
    record = read_json(folder / "result.json")
    for part, what in (("images", "image"), ("checkpoints", "model")):
        if record.get(part, origin[part]) != origin[part]:  # one written before this was recorded is believed
            raise CaseError(
                f"{folder} holds the prediction of another {what}.",
                case_id=name,
                remedy="Name another folder with --out. Nothing was changed.",
            )


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Yield an empty folder that becomes this one on success, so that files of a killed run are never mixed in."""
    part = folder.with_name(f".part-{folder.name}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if folder.is_dir():
            folder.rmdir()  # empty, or it fails; Windows renames onto no folder
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _logits(predictor: object, weights: dict[str, torch.Tensor], data: torch.Tensor) -> torch.Tensor:
    predictor.list_of_parameters = [weights]
    return predictor.predict_logits_from_preprocessed_data(data).cpu()


def _save(
    folder: Path,
    name: str,
    found: Prediction,
    classes: Sequence[SegmentClass],
    model: TrainedModel,
    origin: Mapping[str, object],
) -> None:
    label = LabelMap(found.labels, found.geometry)
    tags = {"SSLSeg.method": "FSL-nnUNet", "SSLSeg.model": model.report.name}
    write_label(folder / "labels.nii.gz", label, classes, reference=found.geometry)
    write_label(folder / "labels.seg.nrrd", label, classes, reference=found.geometry, tags=tags)
    for each, probability in zip(classes, found.probability, strict=True):
        write_scalar(folder / f"probability_{each.value}.nii.gz", probability, found.geometry)
    write_scalar(folder / "disagreement.nii.gz", found.disagreement, found.geometry)
    write_json(
        folder / "result.json",
        {
            "case_id": name,
            "method": "FSL-nnUNet",
            "model": model.report.name,
            "configuration": model.configuration,
            **origin,
            "fold_dice": list(found.fold_dice),
            "mean_disagreement_in_foreground": _mean_inside(found),
        },
    )


def _mean_inside(found: Prediction) -> float | None:
    inside = found.disagreement[found.labels > 0]
    return float(inside.mean()) if inside.size else None
