"""A trained round as a standard nnU-Net v2 model folder, for ``nnUNetv2_predict`` and SlicerNNUnet."""

import json
import shutil
from pathlib import Path

import torch

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.files import atomic_path, write_json, write_text
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import PLANS, RoundFolder
from SSLSegLib.selftraining.report import read_report
from SSLSegLib.selftraining.trainer import load_checkpoint

__all__ = ["export_model"]

_NEEDED = ("network_weights", "trainer_name", "init_args", "inference_allowed_mirroring_axes", "current_epoch")


def export_model(target: RoundFolder, output: Path, cohort: Cohort, name: str = "Dataset001_SSL") -> Path:
    """Write ``output/DatasetNNN_Name/nnUNetTrainer__nnUNetPlans__CONFIGURATION/`` with plans, dataset and fold weights.

    The trainer is named ``nnUNetTrainer`` (the stock class builds the same network), so the stock predictor finds it
    by its first look and needs no further package. Optimizer states and the paths of the training images are left out.

    Args:
        target: A finished round.
        output: Folder to write into.
        cohort: For the label values: nnU-Net's are 1, 2, ...; ``dataset.json`` says under ``sslseg`` which class value
            each stands for.
        name: nnU-Net's dataset name.

    Returns:
        The model folder.

    Raises:
        SelfTrainingError: When the folder is there already, or a checkpoint is missing.
    """
    report = read_report(target.report)
    source = target.model(report.configuration)
    model = Path(output) / name / f"nnUNetTrainer__{PLANS}__{report.configuration}"
    if model.exists():
        raise SelfTrainingError(f"{model} is there already.", remedy="Choose another folder; nothing was written.")
    dataset = json.loads((source / "dataset.json").read_text(encoding="utf-8"))
    dataset.pop("dataset", None)
    dataset["sslseg"] = {
        "round": report.name,
        "class_values": {each.name: each.value for each in cohort.classes},
        "checkpoints": {str(fold): digest for fold, digest in report.checkpoints.items()},
    }
    plans = json.loads((source / "plans.json").read_text(encoding="utf-8"))
    part = model.with_name(f".part-{model.name}")  # half a model in its place would be one that no tool can read
    shutil.rmtree(part, ignore_errors=True)
    try:
        for fold in sorted(report.folds):
            path = source / f"fold_{fold}" / "checkpoint_final.pth"
            if not path.is_file():
                raise SelfTrainingError(f"{path} is missing.", remedy="Train the round again (revert it first).")
            checkpoint = load_checkpoint(path)
            with atomic_path(part / f"fold_{fold}" / "checkpoint_final.pth") as temporary:
                torch.save({key: checkpoint[key] for key in _NEEDED}, temporary)
        fingerprint = (source / "dataset_fingerprint.json").read_text(encoding="utf-8")
        write_text(part / "dataset_fingerprint.json", fingerprint)
        write_json(part / "dataset.json", dataset)
        write_json(part / "plans.json", {**plans, "dataset_name": name})
        part.rename(model)
    finally:
        shutil.rmtree(part, ignore_errors=True)
    return model
