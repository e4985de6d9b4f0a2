"""A trained model: nnU-Net's model folder of a round, in memory, without a search for trainer classes."""

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import RoundFolder, WorkFolder
from SSLSegLib.selftraining.report import RoundReport, read_report
from SSLSegLib.selftraining.trainer import load_checkpoint

__all__ = ["TrainedModel", "find_round", "load_model"]


@dataclass(frozen=True)
class TrainedModel:
    """The folds of a round.

    Args:
        plans: nnU-Net's plan.
        dataset: nnU-Net's ``dataset.json``.
        configuration: nnU-Net's.
        weights: One state dictionary a fold.
        mirror_axes: Axes over which predictions are mirrored and averaged, or None.
        report: The round's.
    """

    plans: dict[str, Any]
    dataset: dict[str, Any]
    configuration: str
    weights: list[dict[str, torch.Tensor]]
    mirror_axes: tuple[int, ...] | None
    report: RoundReport

    def predictor(self, device: torch.device) -> Any:
        """nnU-Net's own predictor over these folds."""
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
        from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels
        from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

        manager = PlansManager(self.plans)
        settings = manager.get_configuration(self.configuration)
        network = nnUNetTrainer.build_network_architecture(
            manager,
            settings,
            determine_num_input_channels(manager, settings, self.dataset),
            manager.get_label_manager(self.dataset).num_segmentation_heads,
            enable_deep_supervision=False,
        )
        with contextlib.redirect_stdout(io.StringIO()):  # it remarks on every device but CUDA
            predictor = nnUNetPredictor(tile_step_size=0.5, device=device, allow_tqdm=False)
        predictor.manual_initialization(
            network, manager, settings, self.weights, self.dataset, "nnUNetTrainer", self.mirror_axes
        )
        return predictor


def find_round(work: Path, which: int | str | None = None) -> RoundFolder:
    """A finished round: the last one, one by its number, or ``baseline``.

    Raises:
        SelfTrainingError: When it is not there.
    """
    folder = WorkFolder(Path(work))
    finished = folder.finished_rounds()
    if which == "baseline":
        target = folder.baseline
    elif which is not None and not str(which).isdecimal():
        raise SelfTrainingError(f"'{which}' is no round.", remedy="Give its number, or 'baseline'.")
    else:
        target = folder.round(int(which) if which is not None else (finished[-1] if finished else 1))
    if not target.report.is_file():
        raise SelfTrainingError(
            f"There is no finished {target.name} in {folder.path}.",
            remedy="Run self-train to its end first"
            + (f"; finished rounds: {', '.join(map(str, finished))}." if finished else "."),
        )
    return target


def load_model(target: RoundFolder) -> TrainedModel:
    """Load the folds of a finished round.

    Raises:
        SelfTrainingError: When a checkpoint is missing.
    """
    report = read_report(target.report)
    folder = target.model(report.configuration)
    checkpoints = []
    for fold in sorted(report.folds):
        path = target.fold(report.configuration, fold) / "checkpoint_final.pth"
        if not path.is_file():
            raise SelfTrainingError(f"{path} is missing.", remedy="Train the round again (revert it first).")
        checkpoints.append(load_checkpoint(path))
    axes = checkpoints[0]["inference_allowed_mirroring_axes"]
    return TrainedModel(
        plans=json.loads((folder / "plans.json").read_text(encoding="utf-8")),
        dataset=json.loads((folder / "dataset.json").read_text(encoding="utf-8")),
        configuration=report.configuration,
        weights=[checkpoint["network_weights"] for checkpoint in checkpoints],
        mirror_axes=None if axes is None else tuple(axes),
        report=report,
    )
