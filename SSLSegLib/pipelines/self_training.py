"""SSL-MedSAM2 whole: pseudo-labels, then self-training (paper 1, Algorithm 1)."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from SSLSegLib.cases.cohort import Cohort

if TYPE_CHECKING:
    from SSLSegLib.selftraining.folders import RoundFolder
    from SSLSegLib.selftraining.options import SelfTrainingOptions
    from SSLSegLib.selftraining.report import Outcome
    from SSLSegLib.selftraining.run import How

__all__ = ["Refined", "ssl_medsam2"]


@dataclass(frozen=True)
class Refined:
    """What Algorithm 1 returns, and how it got there.

    Args:
        model: The refined model: the round whose folds are averaged
            (:func:`SSLSegLib.selftraining.model.load_model`, ``predict``, ``export``).
        outcome: Reports of all rounds, and why they ended.
    """

    model: "RoundFolder"
    outcome: "Outcome"


def ssl_medsam2(
    cohort: Cohort,
    pseudo_label_cases: Callable[[], Any],
    results: Mapping[str, Path],
    work: Path,
    training: "SelfTrainingOptions",
    **how: Unpack["How"],
) -> Refined:
    """Labels for the unlabelled cases and a model for new ones, from a few labelled cases (SSL-MedSAM2, Algorithm 1).

    Run again with the same arguments after any end, kill -9 included: what is finished is kept.

    Args:
        cohort: At least one labelled and one unlabelled case, checked before. References and test cases stay unseen.
        pseudo_label_cases: Writes the pseudo-labels that are missing in ``results``:
            :func:`SSLSegLib.pipelines.tffs.pseudo_label` with a sink.
        results: Unlabelled case -> folder of its pseudo-label.
        work: Folder of the self-training (:mod:`SSLSegLib.selftraining.folders`).
        training: How to train.
        how: See :class:`SSLSegLib.selftraining.run.How`.

    Raises:
        SSLSegError: A case cannot be used, or a training fails.

    Example:
        >>> def f():
        ...     pseudo_label(cohort, medsam2, TffsOptions(), seed=42, sink=save)
        >>> ssl_medsam2(cohort, f, results, work, SelfTrainingOptions.of("quick")).model  # doctest: +SKIP
    """
    from SSLSegLib.selftraining.rounds import self_train

    # Pseudo label initialization:   Y^u <- f(X^u | D^l)
    pseudo_label_cases()
    # While not converge:
    #     training set building:     D <- {D^l, (X^u, Y^u)}
    #     model refinement:          g <- train on D
    #     pseudo label updating:     Y^u <- g(X^u)
    outcome = self_train(cohort, results, work, training, **how)
    # Return refined model g
    # (Imported only now: it loads nnU-Net, and a resumed run need not wait for that.)
    from SSLSegLib.selftraining.model import find_round

    return Refined(find_round(work, len(outcome.rounds)), outcome)
