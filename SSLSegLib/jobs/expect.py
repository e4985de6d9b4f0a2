"""A job that estimates the quality to expect: each labelled case is segmented from the others and scored."""

from SSLSegLib.files import write_json
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import refuse_changed_inputs
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.left_out import segment_left_out
from SSLSegLib.jobs.tffs import TffsParameters
from SSLSegLib.progress import Progress

__all__ = ["EXPECTATION", "KIND"]

EXPECTATION = "expectation.json"
"""In the job's folder: Dice of each class over the labelled cases, and how far to trust it."""


def preflight(job: Job, progress: Progress) -> None:
    """Everything that can be known to fail before work starts."""
    from SSLSegLib.cases.preflight import check_cohort, raise_on_errors

    refuse_changed_inputs(job.manifest)
    cohort = job.manifest.checked_parameters().loaded_cohort()
    cohort.require(labelled=2, unlabelled=0)
    raise_on_errors(check_cohort(cohort, output=job.folder))


def run(job: Job, progress: Progress) -> None:
    """Leave one out over the labelled cases; the estimate is written once, at the end."""
    if (job.folder / EXPECTATION).exists():
        return
    from SSLSegLib.evaluation.scores import summarise
    from SSLSegLib.pipelines import advice

    parameters: TffsParameters = job.manifest.checked_parameters()
    progress("stage", stage="Loading the weights", total=None)
    scores = segment_left_out(
        parameters.loaded_cohort(),
        parameters.weights,
        parameters.options,
        device=parameters.device,
        threads=parameters.threads,
        loaded=lambda model: progress("device", device=str(model.device), outcome=model.device_outcome),
        seed=job.manifest.seed,
        progress=progress,
    )
    dice = [each for each in summarise(scores) if each.metric == "dice"]
    classes = [
        {"class": each.class_name, "mean": each.mean, "sd": each.sd if each.sd == each.sd else 0} for each in dice
    ]
    write_json(
        job.folder / EXPECTATION,
        {"cases": [each.case_id for each in scores], "classes": classes, "reliability": " ".join(advice(scores))},
    )


KIND = JobKind("expect", TffsParameters, preflight, run)
