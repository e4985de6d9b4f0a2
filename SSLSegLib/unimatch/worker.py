"""A training, as one process does it: prepare slices, train, write the model.

As a child that trains with others: ``python -m SSLSegLib.unimatch.worker TASK.json EVENTS.jsonl``.
"""

from typing import Any

import torch

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.progress import Progress, silent
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.distributed import TrainingTask, accelerator_on, joined
from SSLSegLib.unimatch.folders import UniMatchFolder
from SSLSegLib.unimatch.guides import Guide, Sam2Guide, StoredGuide, pseudo_label_maps
from SSLSegLib.unimatch.model import save_model
from SSLSegLib.unimatch.options import UniMatchOptions
from SSLSegLib.unimatch.slices import StackBuilder, cohort_pixel_mm
from SSLSegLib.unimatch.train import Trainer
from SSLSegLib.weights.device import resolve_device

__all__ = ["train_task"]


def train_task(task: TrainingTask, progress: Progress) -> None:
    """Train to the end and write the model; what an earlier run has done is kept.

    Args:
        task: What to do.
        progress: Gets ``stage``, ``progress``, ``metric`` and ``device`` events, of the first process only.
    """
    cohort, options, where = task.loaded_cohort(), task.options, UniMatchFolder(task.folder)
    chosen = resolve_device(task.device)
    with joined(task):
        accelerator = accelerator_on(chosen.device)
        tell = progress if accelerator.is_main_process else silent
        tell("device", device=str(chosen.device), outcome=chosen.outcome)
        cases = (*cohort.labelled, *cohort.unlabelled)
        pixel_mm = options.pixel_mm or cohort_pixel_mm(cohort, cases, options.size)
        maps = pseudo_label_maps(cohort, task.guides) if options.guide == "tffs" else None
        builder = StackBuilder(cohort, where.slices, pixel_mm, maps)
        with accelerator.main_process_first():  # the others find the slices prepared
            tell("stage", stage="Preparing slices", total=None)
            labelled = builder.build(cohort.labelled, tell)
            unlabelled = builder.build(cohort.unlabelled, tell) if options.uses_unlabelled else []
        trainer = Trainer(
            where.training,
            StepBatches(labelled, unlabelled, options, task.rank),
            len(cohort.classes) + 1,
            options,
            _guide(options, task.sam2, chosen.device),
            accelerator=accelerator,
            progress=tell,
            workers=task.workers,
        )
        trainer.run()
        if accelerator.is_main_process:
            common: dict[str, Any] = {"channels": _channels(cohort), "pixel_mm": pixel_mm, "options": options.what()}
            save_model(where.model / "student", trainer.student, cohort, which="student", **common)
            save_model(where.model, trainer.teacher, cohort, which="teacher", **common)


def _guide(options: UniMatchOptions, sam2: str | None, device: torch.device) -> Guide | None:
    if options.guide == "tffs":
        return StoredGuide()
    if options.guide == "sam2":
        from SSLSegLib.weights.loading import load_sam2

        return Sam2Guide(load_sam2(sam2, device).model, options.prompting)
    return None


def _channels(cohort: Cohort) -> int:
    """Channels of the images (one file may hold several)."""
    from SSLSegLib.cases.reading import read_volume

    return read_volume(cohort, cohort.labelled[0]).array.shape[0]


def _work(task: TrainingTask, progress: Progress) -> None:
    torch.set_num_threads(task.threads)
    train_task(task, progress)


if __name__ == "__main__":
    from SSLSegLib.selftraining.child_side import run_child

    run_child(TrainingTask, _work)
