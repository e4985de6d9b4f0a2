"""Each labelled case as the job's method segments it from the other labelled cases; the first labels are chosen by it.

They lie in ``left-out/<case id>/`` of the job's folder, as results do.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.tffs import TffsParameters
from SSLSegLib.progress import Progress
from SSLSegLib.pseudolabels.storage import is_complete, save_pseudo_label
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
    from SSLSegLib.evaluation.scores import CaseScores
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.selftraining.run import HeldOut
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["held_out", "segment_left_out"]

_FOLDER = "left-out"


def held_out(job: Job, cohort: Cohort, progress: Progress) -> "HeldOut | None":
    """What makes these labels when they are asked for; None for a job whose method has no such thing.

    It holds the weights in memory while it runs; finished labels are kept.
    """
    parameters = job.manifest.checked_parameters()
    if not isinstance(parameters, TffsParameters):
        return None
    folders = {case.id: job.folder / _FOLDER / case.id for case in cohort.labelled}

    def make() -> dict[str, Path]:
        finished = [case for case, folder in folders.items() if is_complete(folder)]
        if len(finished) < len(folders):
            _segment(parameters, job.manifest.seed, cohort, folders, finished, progress)
        return folders

    return make


def _segment(
    parameters: TffsParameters,
    seed: int,
    cohort: Cohort,
    folders: dict[str, Path],
    finished: list[str],
    progress: Progress,
) -> None:
    def keep(label: "PseudoLabel") -> None:
        save_pseudo_label(folders[label.case_id], label, cohort.classes)

    progress("stage", stage="labelled cases left out in turn", total=None)
    segment_left_out(
        cohort,
        parameters.weights,
        parameters.options,
        device=parameters.device,
        threads=parameters.threads,
        seed=seed,
        progress=_without_results(progress),
        sink=keep,
        skip=finished,
    )


def segment_left_out(
    cohort: Cohort,
    weights: str,
    options: TffsOptions,
    *,
    device: str,
    threads: int,
    loaded: "Callable[[LoadedSam2], None]" = lambda model: None,
    **how: Any,
) -> "list[CaseScores]":
    """:func:`~SSLSegLib.pipelines.leave_one_out` by weights that are in memory only meanwhile, and a scratch folder.

    Args:
        cohort: Its labelled cases take part.
        weights: A name in the catalogue or a file.
        options: Of the pseudo-labelling.
        device, threads: Where.
        loaded: Told of the model before it is used.
        how: ``seed``, ``progress``, ``sink`` and ``skip`` of :func:`~SSLSegLib.pipelines.leave_one_out`.
    """
    import torch

    from SSLSegLib.pipelines import leave_one_out
    from SSLSegLib.weights.loading import load_sam2

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        model = load_sam2(weights, device)
        loaded(model)
        with tempfile.TemporaryDirectory(prefix="sslseg-") as scratch:
            return leave_one_out(cohort, model, options, scratch=Path(scratch), **how)
    finally:
        torch.set_num_threads(before)


def _without_results(progress: Progress) -> Progress:
    """A labelled case is no result of the job."""

    def tell(event: str, **fields: object) -> None:
        if event != "result":
            progress(event, **fields)

    return tell
