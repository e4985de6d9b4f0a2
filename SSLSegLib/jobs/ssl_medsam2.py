"""A job that does all of SSL-MedSAM2: pseudo-labels, self-training rounds, the final model on the test cases, a report.

Beside what every job folder holds:

results/<case id>/            pseudo-labels, as in a ``tffs`` job
selftraining/                 rounds/1, rounds/2, ... and baseline, see :mod:`SSLSegLib.selftraining.folders`
left-out/<case id>/           labelled cases as segmented from the others, where the first labels are chosen by them
predictions/round_N/<case>/   the final model on the test cases; predictions/baseline/ the labelled-only network
report/report.html            one report of all steps
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.files import read_json, sha256_of, write_json
from SSLSegLib.jobs import tffs
from SSLSegLib.jobs.failed_start import free_place
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.inputs import cohort_inputs
from SSLSegLib.jobs.kinds import JobKind
from SSLSegLib.jobs.labelling import check_cases
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.jobs.selftraining import WORK, how_to_train, require_nnunet
from SSLSegLib.jobs.tffs import TffsParameters, tffs_manifest
from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
    from SSLSegLib.evaluation.rounds import Stage
    from SSLSegLib.selftraining.folders import RoundFolder
    from SSLSegLib.selftraining.report import RoundReport

__all__ = ["KIND", "SslMedSam2Parameters", "first_label_sentences", "score_steps", "ssl_medsam2_manifest"]

_MADE_FROM = "made-from.json"


class SslMedSam2Parameters(TffsParameters):
    """Parameters of an ``ssl-medsam2`` manifest: those of the pseudo-labelling, and these.

    Args:
        training: The self-training with all its numbers; its devices may be ``auto``.
        baseline: Also train the labelled-only network, where there are test cases to compare on.
    """

    training: SelfTrainingOptions = SelfTrainingOptions.of("quick", devices=("auto",))
    baseline: bool = True


def ssl_medsam2_manifest(
    cohort: Cohort,
    weights: str,
    options: TffsOptions,
    training: SelfTrainingOptions,
    *,
    seed: int = 42,
    baseline: bool = True,
    **settings: Any,
) -> Manifest:
    """Write down a run of SSL-MedSAM2: its files with their checksums, parameters, seed and software.

    Args:
        cohort: Labelled and unlabelled cases; test cases are predicted at the end.
        weights: Of MedSAM2: a name in the catalogue or a file.
        options: Of the pseudo-labelling.
        training: Of the self-training; its seed becomes ``seed``.
        seed: Everything random follows from it.
        baseline: Train the labelled-only network as well.
        settings: ``device``, ``threads``, ``report``, ``scene`` of :func:`tffs_manifest`.

    Raises:
        SSLSegError: Weights or files of a case are missing.
    """
    first = tffs_manifest(cohort, weights, options, seed=seed, **settings)
    parameters = SslMedSam2Parameters.model_validate(
        {
            **first.parameters,
            "training": training.model_copy(update={"seed": seed}).model_dump(mode="json"),
            "baseline": baseline,
        }
    )
    return Manifest(
        kind="ssl-medsam2",
        seed=seed,
        parameters=parameters.model_dump(mode="json"),
        inputs={**first.inputs, **cohort_inputs(cohort, cohort.test)},
    )


def preflight(job: Job, progress: Progress) -> None:
    """As for pseudo-labels, and nnU-Net must be installed: better said now than after the first step."""
    from SSLSegLib.jobs.cluster_folds import refuse_sending

    require_nnunet()
    refuse_sending(job.scheduler)
    check_cases(job, progress)


def run(job: Job, progress: Progress) -> None:
    """Algorithm 1, then the comparison and the predictions; whatever is finished is kept and skipped."""
    from SSLSegLib.jobs.cluster_folds import fold_trainer
    from SSLSegLib.pipelines import ssl_medsam2
    from SSLSegLib.selftraining.rounds import train_labelled_only

    parameters: SslMedSam2Parameters = job.manifest.checked_parameters()  # type: ignore[assignment]
    cohort, device = parameters.loaded_cohort(), _device_here(parameters)
    results, work, tell = _results(job, cohort), job.folder / WORK, _of_training(progress)

    def pseudo_label_cases() -> None:
        """Nothing is missing any more."""

    tffs.run(job, progress)  # with a first report and the scene, to look at while the networks train
    # Only now: on a cluster its workers would stand about until the pseudo-labels are there.
    with fold_trainer(job.scheduler, _devices(parameters), parameters.training.folds, progress, job.logs) as (
        devices,
        trainer,
    ):
        training = parameters.training.model_copy(update={"devices": devices})
        how = how_to_train(job, cohort, device, trainer, tell)
        refined = ssl_medsam2(cohort, pseudo_label_cases, results, work, training, **how)
        _predict(job, cohort, refined.model, device, tell)
        if parameters.baseline and any(case.reference for case in cohort.test):
            train_labelled_only(cohort, results, work, training, **how)
            _predict(job, cohort, _baseline(job), device, tell)
    if parameters.report:
        _write_report(job, cohort, progress)


def score_steps(job: Job, cohort: Cohort) -> "tuple[list[Stage], list[RoundReport]]":
    """Scores of every finished step against the references there are, and the reports of the finished rounds."""
    from SSLSegLib.evaluation.rounds import score_rounds
    from SSLSegLib.evaluation.rounds_report import BASELINE
    from SSLSegLib.selftraining.folders import WorkFolder
    from SSLSegLib.selftraining.report import read_report

    work = WorkFolder(job.folder / WORK)
    reports = [read_report(work.round(number).report) for number in work.finished_rounds()]
    predictions = {reports[-1].name: _predictions(job, reports[-1].name)} if reports else {}
    if work.baseline.report.is_file():
        predictions[BASELINE] = _predictions(job, work.baseline.name)
    return score_rounds(cohort, _results(job, cohort), work.path, predictions), reports


def first_label_sentences(job: Job) -> list[str]:
    """What round 1 was trained on and why, where there was a choice (:mod:`SSLSegLib.selftraining.first_labels`)."""
    from SSLSegLib.selftraining.choice import read_choice
    from SSLSegLib.selftraining.folders import WorkFolder

    choice = read_choice(WorkFolder(job.folder / WORK).choice)
    return choice.sentences() if choice else []


def _results(job: Job, cohort: Cohort) -> dict[str, Path]:
    return {case.id: job.result_folder(case.id) for case in cohort.unlabelled}


def _predictions(job: Job, name: str) -> Path:
    """Where ``predict`` puts them as well."""
    return job.folder / "predictions" / name.replace(" ", "_")


def _baseline(job: Job) -> "RoundFolder":
    from SSLSegLib.selftraining.folders import WorkFolder

    return WorkFolder(job.folder / WORK).baseline


def _devices(parameters: SslMedSam2Parameters) -> tuple[str, ...]:
    """Of the training; where it leaves the choice open, the device of the pseudo-labelling."""
    return tuple(parameters.device if name == "auto" else name for name in parameters.training.devices)


def _device_here(parameters: SslMedSam2Parameters) -> str:
    """For what this process computes itself."""
    from SSLSegLib.selftraining.children import real_device

    return real_device(_devices(parameters)[0])


def _predict(job: Job, cohort: Cohort, model: "RoundFolder", device: str, progress: Progress) -> None:
    """The test cases by a finished round or the baseline; predictions of an undone training are made again."""
    from SSLSegLib.selftraining.model import load_model
    from SSLSegLib.selftraining.predict import predict_cases
    from SSLSegLib.selftraining.report import read_report

    report = read_report(model.report)
    checkpoints = {str(fold): digest for fold, digest in report.checkpoints.items()}
    output = _predictions(job, report.name)
    missing = []
    for case in cohort.test:
        made = output / case.id / "result.json"
        if not made.is_file() or read_json(made).get("checkpoints") != checkpoints:
            missing.append(case)
            if made.parent.exists():
                aside = free_place(job.logs / "replaced" / case.id)
                aside.parent.mkdir(parents=True, exist_ok=True)
                made.parent.rename(aside)
    if missing:
        predict_cases(load_model(model), cohort, missing, output, device=device, progress=progress)


def _write_report(job: Job, cohort: Cohort, progress: Progress) -> None:
    """One report of all steps, unless the one there was made from the same files."""
    stamp, page = job.report / _MADE_FROM, job.report / "report.html"
    if stamp.is_file() and read_json(stamp) == _digests([*_sources(job, cohort), page]):
        return
    from SSLSegLib.evaluation.reporting import report_results
    from SSLSegLib.evaluation.rounds_report import rounds_section

    progress("stage", stage="Writing the report", total=None)
    training = job.manifest.checked_parameters().training  # type: ignore[attr-defined]
    stages, reports = score_steps(job, cohort)
    remarks = [*first_label_sentences(job), *_remarks(cohort, training, reports)]
    section = rounds_section(job.report, stages, reports, remarks=remarks)
    report_results(job.folder, cohort, job.report, title=f"SSL-MedSAM2 on {cohort.name}", sections=[section])
    write_json(stamp, _digests([*_sources(job, cohort), page]))


def _remarks(cohort: Cohort, training: SelfTrainingOptions, reports: "list[RoundReport]") -> list[str]:
    schedule = training.schedule
    said = [
        f"Training: preset '{training.preset}', nnU-Net {training.configuration}, {schedule.epochs} epochs of "
        f"{schedule.iterations} iterations per network and round, {len(reports[-1].folds)} networks a round."
    ]
    if training.preset == "quick":
        said.append("The quick preset shows how the method works; for labels to use, choose 'standard' or 'paper'.")
    last = reports[-1].name.replace("round ", "rounds/")
    said.append(
        f"The labels of the last round lie in {WORK}/{last}/predictions. The scores, pictures and cases further down "
        "are those of the first step, the pseudo-labels before any training."
    )
    if not cohort.test:
        said.append("The cohort has no test cases, so there is no comparison with the labelled scans alone.")
    return said


def _sources(job: Job, cohort: Cohort) -> Iterable[Path]:
    """Every file that the report depends on."""
    work = job.folder / WORK
    for case in cohort.unlabelled:
        yield from (job.result_folder(case.id) / name for name in ("checksums.json", "review.json"))
    yield from sorted(work.glob("rounds/*/round.json"))
    yield work / "baseline" / "round.json"
    yield work / "first" / "choice.json"
    yield from sorted((job.folder / "predictions").glob("*/*/result.json"))
    yield from filter(None, (cohort.label_path(case, "reference") for case in cohort.cases))


def _digests(paths: Iterable[Path]) -> dict[str, str]:
    return {str(path): sha256_of(path) for path in paths if path.is_file()}


def _of_training(progress: Progress) -> Progress:
    """The same listener; stages get names for people, and results of the training are no finished pseudo-labels."""

    def tell(event: str, **fields: Any) -> None:
        if "stage" in fields:
            fields["stage"] = _STAGES.get(fields["stage"], fields["stage"][:1].upper() + fields["stage"][1:])
        progress("refined" if event == "result" else event, **fields)

    return tell


_STAGES = {
    "dataset": "Self-training: collecting the scans",
    "planning": "Self-training: planning",
    "preprocessing": "Self-training: preparing the scans",
    "predicting": "Predicting the test scans",
    "training cross-validation": "Self-training: networks of the labelled scans (epochs)",
    "labelled cases left out in turn": "Self-training: labelled scans left out in turn",
    "comparing first labels": "Self-training: what to begin with",
    "first labels": "Self-training: first labels",
    "training round 1": "Self-training: round 1 (epochs)",
    "training round 2": "Self-training: round 2 (epochs)",
    "training round 3": "Self-training: round 3 (epochs)",
    "training baseline": "For comparison: labelled scans only (epochs)",
}

KIND = JobKind("ssl-medsam2", SslMedSam2Parameters, preflight, run, on_clusters=True)
