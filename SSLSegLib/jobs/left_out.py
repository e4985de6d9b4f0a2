"""Each labelled case as the job's method segments it from the other labelled cases; the first labels are chosen by it.

They lie in ``left-out/<case id>/`` of the job's folder, as results do.
"""

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.tffs import TffsParameters
from SSLSegLib.progress import Progress
from SSLSegLib.pseudolabels.storage import is_complete, save_pseudo_label

if TYPE_CHECKING:
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.selftraining.run import HeldOut

__all__ = ["held_out"]

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
    import torch

    from SSLSegLib.pipelines import leave_one_out
    from SSLSegLib.weights.loading import load_sam2

    def keep(label: "PseudoLabel") -> None:
        save_pseudo_label(folders[label.case_id], label, cohort.classes)

    progress("stage", stage="labelled cases left out in turn", total=None)
    threads = torch.get_num_threads()
    torch.set_num_threads(parameters.threads)
    try:
        model = load_sam2(parameters.weights, parameters.device)
        with tempfile.TemporaryDirectory(prefix="sslseg-") as scratch:
            leave_one_out(
                cohort,
                model,
                parameters.options,
                seed=seed,
                progress=_without_results(progress),
                scratch=Path(scratch),
                sink=keep,
                skip=finished,
            )
    finally:
        torch.set_num_threads(threads)


def _without_results(progress: Progress) -> Progress:
    """A labelled case is no result of the job."""

    def tell(event: str, **fields: object) -> None:
        if event != "result":
            progress(event, **fields)

    return tell
