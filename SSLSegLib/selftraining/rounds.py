"""Self-training rounds: the while loop of Algorithm 1, each step resumable from what lies on disk.

::

    Y^u <- f(X^u | D^l)             the pseudo-labels given     first_labels (or what segments labelled cases better)
    while not converge do
        D <- {D^l, (X^u, Y^u)}      training set building       Run.one_round: build_training_set
        g <- train on D             model refinement            Run.one_round: train_folds
        Y^u <- g(X^u)               pseudo label updating       Run.one_round: publish_predictions
    end while
    return refined model g
"""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Unpack

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.selftraining.agreement import why_stop
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.first_labels import first_labels
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.options import SelfTrainingOptions
from SSLSegLib.selftraining.report import Outcome, RoundReport
from SSLSegLib.selftraining.run import How, Run

__all__ = ["revert", "self_train", "train_labelled_only"]


def self_train(
    cohort: Cohort,
    results: Path | Mapping[str, Path],
    work: Path,
    options: SelfTrainingOptions,
    **how: Unpack[How],
) -> Outcome:
    """Refine pseudo-labels by self-training until they converge (paper 1, Algorithm 1, from line 2 on).

    Run again with the same arguments after any end, kill -9 included: finished folds are kept and the others continue
    from their last checkpoint. Run again with more ``rounds`` to go on.

    Args:
        cohort: Labelled and unlabelled cases. References and test cases are never looked at.
        results: ``results`` folder of a pseudo-labelling job, or unlabelled case -> its folder in it.
        work: Folder of this run; see :mod:`SSLSegLib.selftraining.folders`.
        options: How to train.
        how: ``decisions`` (looked at anew before each round where they are left out), ``progress`` (also gets a
            ``metric`` event after each round with round, agreement), ``interpreter``, ``trainer``, ``held_out`` and
            ``device``: see :class:`~SSLSegLib.selftraining.run.How`.

    Returns:
        The reports of all rounds. The refined labels lie in ``rounds/N/predictions``, the model in ``rounds/N``.

    Raises:
        SelfTrainingError: When the folder holds another run or a child process fails.
        CaseError, CohortError: When the input cannot be used.
    """
    run = Run.prepare(cohort, results, work, options, **how)
    labels = first_labels(run)
    reports: list[RoundReport] = []
    stopped = None
    while stopped is None:
        number = len(reports) + 1
        report = run.one_round(run.work.round(number), labels)
        reports.append(report)
        agreements = [each.agreement for each in reports if each.agreement is not None]
        stopped = why_stop(agreements, options.rounds, options.stop_agreement, options.stop_gain)
        run.progress("metric", round=f"round {number}", agreement=report.agreement, stopped=stopped)
        labels = run.updated_labels(number, labels)
    return Outcome(rounds=tuple(reports), stopped=stopped)


def train_labelled_only(
    cohort: Cohort,
    results: Path | Mapping[str, Path],
    work: Path,
    options: SelfTrainingOptions,
    **how: Unpack[How],
) -> RoundReport:
    """The baseline: the same plan, network, number of folds and iterations, on the cohort's labelled cases only.

    Says what the unlabelled data brought. Cases that were corrected since are not used. Arguments and errors as in
    :func:`self_train`. The model lies in ``baseline``.
    """
    run = Run.prepare(cohort, results, work, options, **how)
    return run.one_round(run.work.baseline, run.given_labels(), labelled_only=True)


def revert(work: Path, last: int) -> list[int]:
    """Undo the rounds after ``last``: they move to ``reverted/`` and the next run goes on from round ``last``.

    Args:
        work: Folder of the run.
        last: The last round to keep; 0 undoes all.

    Returns:
        The rounds that were moved.

    Raises:
        SelfTrainingError: When there is no such round.
    """
    folder = WorkFolder(Path(work))
    finished = folder.finished_rounds()
    if last not in (0, *finished):
        raise SelfTrainingError(f"There is no finished round {last}.", remedy=f"Finished rounds: {finished or 'none'}.")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    moved = []
    for path in sorted((folder.path / "rounds").iterdir()) if (folder.path / "rounds").is_dir() else []:
        if path.name.isdigit() and int(path.name) > last:
            target = folder.path / "reverted" / f"{stamp}-{path.name}"
            target.parent.mkdir(exist_ok=True)
            path.rename(target)
            moved.append(int(path.name))
    return moved
