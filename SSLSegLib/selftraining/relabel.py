"""The training data of a round: new labels beside the images that were preprocessed once.

nnU-Net's own preprocessing would read, normalise and resample every image again to put another label beside it. Here
a round gets hard links to the preprocessed images, and only the labels are cropped and resampled; voxels and sampled
class locations are those of the full preprocessing (tested). Nothing of another round is overwritten.
"""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.files import write_json
from SSLSegLib.progress import Progress, silent
from SSLSegLib.selftraining.folders import DATASET, PLANS, RoundFolder, WorkFolder
from SSLSegLib.selftraining.folds import Split
from SSLSegLib.selftraining.options import Configuration

if TYPE_CHECKING:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

__all__ = ["build_training_set", "link_or_copy", "relabel_case"]


def build_training_set(
    work: WorkFolder,
    target: RoundFolder,
    configuration: Configuration,
    labels: Mapping[str, Path],
    splits: list[Split],
    progress: Progress = silent,
) -> None:
    """Lay out nnU-Net's preprocessed folder of a round, anew.

    Args:
        work: The run; its base is planned and preprocessed.
        target: The round.
        configuration: Which of the plan's configurations.
        labels: nnU-Net case -> label file in nnU-Net's values, in the geometry of the image. Of all cases of the base.
        splits: See :func:`SSLSegLib.selftraining.folds.splits`.
        progress: Listener.
    """
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    shutil.rmtree(target.path, ignore_errors=True)  # what a killed run left here is not complete
    base, dataset = work.preprocessed / DATASET, target.preprocessed / DATASET
    dataset.mkdir(parents=True)
    for name in ("dataset.json", "dataset_fingerprint.json", f"{PLANS}.json"):
        shutil.copyfile(base / name, dataset / name)
    write_json(dataset / "splits_final.json", splits)

    plans = PlansManager(load_json(str(base / f"{PLANS}.json")))
    description = load_json(str(base / "dataset.json"))
    images = plans.get_configuration(configuration).data_identifier
    progress("stage", stage=f"labels of {target.name}", total=len(labels))
    for done, (case, label) in enumerate(sorted(labels.items()), start=1):
        kept = target.labels / f"{case}.nii.gz"
        link_or_copy(label, kept)
        link_or_copy(kept, dataset / "gt_segmentations" / kept.name)
        (dataset / images).mkdir(exist_ok=True)
        link_or_copy(base / images / f"{case}.b2nd", dataset / images / f"{case}.b2nd")
        relabel_case(
            base / images, dataset / images, case, kept, work.masks / f"{case}.npz", plans, configuration, description
        )
        progress("progress", stage=f"labels of {target.name}", done=done, total=len(labels), case=case)


def relabel_case(
    base: Path,
    target: Path,
    case: str,
    label: Path,
    mask: Path,
    plans: "PlansManager",
    configuration: Configuration,
    dataset: dict,
) -> None:
    """Write ``CASE_seg.b2nd`` and ``CASE.pkl`` of another label, without touching the image.

    Args:
        base: Folder with ``CASE.pkl`` of the full preprocessing.
        target: Folder to write to.
        case: nnU-Net's name of the case.
        label: The label file.
        mask: What :mod:`SSLSegLib.selftraining.plan` wrote: where the cropped image is not padding.
        plans: nnU-Net's plan.
        configuration: Which of its configurations.
        dataset: nnU-Net's ``dataset.json``.
    """
    from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle
    from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
    from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params, nnUNetDatasetBlosc2

    settings = plans.get_configuration(configuration)
    properties = load_pickle(str(base / f"{case}.pkl"))

    segmentation, _ = plans.image_reader_writer_class().read_seg(str(label))
    segmentation = segmentation.transpose([0, *(axis + 1 for axis in plans.transpose_forward)])
    box = tuple(slice(*side) for side in properties["bbox_used_for_cropping"])
    segmentation = segmentation[(slice(None), *box)].copy()
    segmentation[(segmentation == 0) & ~_unpacked(mask)[None]] = -1  # nnU-Net's label of padding

    spacing = [properties["spacing"][axis] for axis in plans.transpose_forward]
    spacing_wanted = list(settings.spacing)
    if len(spacing_wanted) < len(spacing):  # 2d: slices keep their distance
        spacing_wanted = [spacing[0], *spacing_wanted]
    shape = compute_new_shape(segmentation.shape[1:], spacing, spacing_wanted)
    segmentation = settings.resampling_fn_seg(segmentation, shape, spacing, spacing_wanted)

    properties["class_locations"] = settings.preprocessor_class._sample_foreground_locations(
        segmentation, plans.get_label_manager(dataset).foreground_labels
    )
    segmentation = np.ascontiguousarray(segmentation.astype(np.int8).astype(np.int16))
    blocks, chunks = comp_blosc2_params(segmentation.shape, tuple(settings.patch_size), segmentation.itemsize)
    nnUNetDatasetBlosc2.save_seg(segmentation, str(target / f"{case}_seg"), chunks_seg=chunks, blocks_seg=blocks)
    write_pickle(properties, str(target / f"{case}.pkl"))


def link_or_copy(source: Path, target: Path) -> None:
    """A hard link where the file system has them (no disk space), else a copy. An existing target is replaced."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _unpacked(mask: Path) -> np.ndarray:
    with np.load(mask, allow_pickle=False) as stored:
        shape = tuple(stored["shape"])
        return np.unpackbits(stored["mask"], count=int(np.prod(shape))).reshape(shape).astype(bool)
