"""nnU-Net's trainer with a preset schedule, events, checkpoints that survive a kill, and draws by name.

The network, the loss, the sampling of patches and the training loop are nnU-Net's own.
"""

import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from SSLSegLib.files import atomic_path
from SSLSegLib.seeds import named_seed
from SSLSegLib.selftraining.options import Schedule

__all__ = ["FoldTrainer", "load_checkpoint"]

_LIGHT_TURN = 15.0 / 180.0 * np.pi


def load_checkpoint(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """Read a checkpoint of :class:`FoldTrainer`; no code in the file is run (``weights_only``)."""
    return torch.load(path, map_location=device, weights_only=True)


class FoldTrainer(nnUNetTrainer):
    """Trains one fold. Make it with :meth:`create`; the constructor is nnU-Net's."""

    schedule: Schedule
    seed_names: tuple[str | int, ...]
    on_epoch: Callable[[dict[str, Any]], None]

    @classmethod
    def create(
        cls,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset: dict[str, Any],
        device: torch.device,
        *,
        schedule: Schedule,
        seed_names: tuple[str | int, ...],
        on_epoch: Callable[[dict[str, Any]], None],
    ) -> "FoldTrainer":
        """A trainer ready to run. nnU-Net's folders are read from the environment (``nnUNet_preprocessed``, ...).

        Args:
            plans: nnU-Net's plan.
            configuration: Which of its configurations.
            fold: Index into ``splits_final.json``.
            dataset: nnU-Net's ``dataset.json``.
            device: Where to train.
            schedule: How.
            seed_names: What the draws of this training are named by, such as (seed, "round 1", fold).
            on_epoch: Gets epoch, train_loss, val_loss, pseudo_dice (per class; None where undefined), learning_rate
                and seconds after every epoch.
        """
        trainer = cls({**plans, "continue_training": False}, configuration, fold, dataset, device)
        trainer.schedule, trainer.seed_names, trainer.on_epoch = schedule, seed_names, on_epoch
        trainer.num_epochs = schedule.epochs
        trainer.num_iterations_per_epoch = schedule.iterations
        trainer.num_val_iterations_per_epoch = schedule.validation_iterations
        trainer.initial_lr = schedule.learning_rate
        trainer.save_every = schedule.save_every
        trainer._draw("network")
        trainer.initialize()
        return trainer

    def train(self, warm_start: Path | None = None) -> None:
        """Train to the last epoch: from the last checkpoint if one is there, else from ``warm_start``, else anew."""
        folder = Path(self.output_folder)
        if (folder / "checkpoint_final.pth").is_file():
            return
        if (folder / "checkpoint_latest.pth").is_file():
            self.load_checkpoint(str(folder / "checkpoint_latest.pth"))
        elif warm_start is not None:
            self._plain_network().load_state_dict(load_checkpoint(warm_start, self.device)["network_weights"])
        self.run_training()

    # Draws. Every epoch starts from its own seed, so a resumed training draws what an uninterrupted one would have.

    def _draw(self, *names: str | int) -> None:
        seed = named_seed(*self.seed_names, *names)
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002  nnU-Net draws from the global generator
        torch.manual_seed(seed)

    def on_epoch_start(self) -> None:
        self._draw("epoch", self.current_epoch)
        super().on_epoch_start()

    # What the schedule changes.

    def configure_optimizers(self):  # type: ignore[no-untyped-def]
        if self.schedule.optimizer == "sgd":
            return super().configure_optimizers()
        optimizer = torch.optim.AdamW(self.network.parameters(), lr=self.initial_lr, weight_decay=self.weight_decay)
        return optimizer, PolyLRScheduler(optimizer, self.initial_lr, self.num_epochs)

    def _do_i_compile(self) -> bool:
        return self.schedule.compile and self.device.type == "cuda" and os.name != "nt"

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):  # type: ignore[no-untyped-def]  # noqa: N802
        turn, dummy_2d, initial_patch, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.schedule.augmentation == "light":
            turn, mirror_axes = (-_LIGHT_TURN, _LIGHT_TURN), None
            self.inference_allowed_mirroring_axes = None  # predictions mirror only what training has mirrored
        return turn, dummy_2d, initial_patch, mirror_axes

    @staticmethod
    def get_training_transforms(*arguments, **options):  # type: ignore[no-untyped-def]
        transforms = nnUNetTrainer.get_training_transforms(*arguments, **options)
        for transform in transforms.transforms:  # a timed choice between two ways to blur would make runs differ
            inner = getattr(transform, "transform", transform)
            if hasattr(inner, "benchmark"):
                inner.benchmark = False
        return transforms

    # Events and checkpoints.

    def on_epoch_end(self) -> None:
        epoch = self.current_epoch
        self.logger.plot_progress_png = lambda folder: None  # two seconds an epoch, for what the events hold anyway
        super().on_epoch_end()
        value = self.logger.get_value
        self.on_epoch(
            {
                "epoch": epoch + 1,
                "epochs": self.num_epochs,
                "train_loss": float(value("train_losses", -1)),
                "val_loss": float(value("val_losses", -1)),
                "pseudo_dice": [_number(dice) for dice in value("dice_per_class_or_region", -1)],
                "learning_rate": float(value("lrs", -1)),
                "seconds": round(value("epoch_end_timestamps", -1) - value("epoch_start_timestamps", -1), 3),
            }
        )

    def save_checkpoint(self, filename: str) -> None:
        """Write a checkpoint in one step and as plain values.

        ``checkpoint_best`` is left out: it is the one that agrees best with the old pseudo-labels, which no one needs.
        """
        if Path(filename).name == "checkpoint_best.pth":
            return
        log = {name: [_plain(entry) for entry in values] for name, values in self.logger.get_checkpoint().items()}
        checkpoint = {
            "network_weights": self._plain_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict() if self.grad_scaler is not None else None,
            "logging": log,
            "_best_ema": None if self._best_ema is None else float(self._best_ema),
            "current_epoch": self.current_epoch + 1,
            "init_args": {"configuration": self.configuration_name, "fold": self.fold},
            # The stock class builds the same network; stock tools find it by this name.
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
        }
        with atomic_path(Path(filename)) as temporary:
            torch.save(checkpoint, temporary)

    def load_checkpoint(self, filename_or_checkpoint: str) -> None:
        """Continue from a checkpoint: weights, momentum, loss scale, epoch and log."""
        checkpoint = load_checkpoint(Path(filename_or_checkpoint), self.device)
        self._plain_network().load_state_dict(checkpoint["network_weights"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self._best_ema = checkpoint["_best_ema"]
        self.current_epoch = checkpoint["current_epoch"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]

    def plot_network_architecture(self) -> None:
        """Nothing: nnU-Net's drawing needs a package that is not maintained any more."""

    def _save_debug_information(self) -> None:
        """Nothing: it would write down the machine's name."""

    def _plain_network(self) -> torch.nn.Module:
        return getattr(self.network, "_orig_mod", self.network)


def _plain(entry: Any) -> Any:
    return [float(each) for each in entry] if isinstance(entry, list | tuple) else float(entry)


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
