"""One fold in a process of its own: ``python -m SSLSegLib.selftraining.train_fold SPEC.json EVENTS.jsonl``.

Trains (or continues), then predicts the fold's validation cases; both leave files that a resumed run finds.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict

from SSLSegLib.files import write_json
from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.folders import DATASET, PLANS
from SSLSegLib.selftraining.options import Configuration, Schedule

__all__ = ["FoldSpec", "train_fold"]


class FoldSpec(BaseModel):
    """What the child is told. nnU-Net's folders come with the environment.

    Args:
        preprocessed: The round's ``nnUNet_preprocessed``.
        configuration: nnU-Net's.
        fold: Index into ``splits_final.json``.
        schedule: How to train.
        seed_names: What the draws are named by.
        warm_start: Checkpoint to start from, or None.
        done: Written at the very end.
        threads: CPU threads.
        device: ``cpu``, ``cuda`` (the first visible one) or ``mps``.
        interpreter: A real Python, for augmentation workers.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    preprocessed: Path
    configuration: Configuration
    fold: int
    schedule: Schedule
    seed_names: tuple[str | int, ...]
    warm_start: Path | None
    done: Path
    threads: int
    device: str = "cpu"
    interpreter: Path


def train_fold(spec: FoldSpec, progress: Progress) -> None:
    """Train one fold and predict its validation cases.

    Events: ``metric`` after each epoch (see :meth:`SSLSegLib.selftraining.trainer.FoldTrainer.create`), ``progress``
    after each predicted case.
    """
    import torch
    from batchgenerators.utilities.file_and_folder_operations import load_json

    from SSLSegLib.selftraining.trainer import FoldTrainer
    from SSLSegLib.selftraining.validation import predict_validation_cases

    torch.set_num_threads(spec.threads)
    dataset = spec.preprocessed / DATASET
    trainer = FoldTrainer.create(
        load_json(str(dataset / f"{PLANS}.json")),
        spec.configuration,
        spec.fold,
        load_json(str(dataset / "dataset.json")),
        torch.device(spec.device),
        schedule=spec.schedule,
        seed_names=spec.seed_names,
        on_epoch=lambda numbers: progress("metric", **numbers),
    )
    trainer.train(spec.warm_start)
    trainer.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_final.pth"))
    predicted = predict_validation_cases(trainer, progress)
    write_json(spec.done, {"fold": spec.fold, "predicted": predicted})


def main() -> None:
    """Entry point of the child process."""
    from SSLSegLib.selftraining.child_side import run_child

    run_child(FoldSpec, train_fold)


if __name__ == "__main__":
    main()
