"""What to expect of the pseudo-labels of a cohort, from its labelled cases alone."""

from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import CohortError
from SSLSegLib.pipelines.encoding import read_labelled
from SSLSegLib.pipelines.place import class_places, frames_to_track
from SSLSegLib.pipelines.tffs import segment_case
from SSLSegLib.pipelines.tracking import Tracking
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
    from SSLSegLib.evaluation.scores import CaseScores
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["advice", "leave_one_out", "reliability"]


def leave_one_out(
    cohort: Cohort,
    model: "LoadedSam2",
    options: TffsOptions,
    *,
    seed: int,
    progress: Progress = silent,
    scratch: Path | None = None,
    sink: "Callable[[PseudoLabel], None] | None" = None,
    skip: Collection[str] = (),
) -> list["CaseScores"]:
    """Leave one out: segment each labelled case from the others and score it against its own label.

    The honest estimate of quality before any unlabelled case is touched. A class's region is that of the labelled cases
    which are left; where frames show all of the stored slices, features are encoded once and used in both roles. It is
    a little pessimistic: the real run has one labelled case more.

    Args:
        cohort: Its labelled cases take part.
        model: SAM2 in memory.
        options: Of the pseudo-labelling.
        seed: As in the real run.
        progress: Listener.
        scratch: Folder for features that do not fit into memory.
        sink: Gets every label as soon as it is made.
        skip: Labelled cases that are not segmented (but help to segment others).

    Returns:
        Scores of each labelled case that was segmented, in the cohort's order.

    Raises:
        CohortError: There are fewer than two labelled cases.
    """
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.evaluation.scores import score_case
    from SSLSegLib.tffs.engine import TffsEngine

    if len(cohort.labelled) < 2:
        raise CohortError(
            "Leave-one-out needs at least two labelled cases: with one, nothing is left to predict it from.",
            remedy="Label one more case, or run and look at the results yourself.",
        )
    engine = TffsEngine(model.model, options, model.device)
    labelled = read_labelled(engine, cohort, cohort.labelled, model, scratch)
    wanted = [each for each in labelled if each.case.id not in skip]
    others = [[other for other in labelled if other is not held_out] for held_out in wanted]
    places = (class_places(some, cohort.classes, options, model) for some in others)
    shown = zip(wanted, places, strict=True)
    tracking = Tracking(progress, (frames_to_track(known, each.geometry, options) for each, known in shown))
    scores = []
    for held_out, templates in zip(wanted, others, strict=True):
        found = segment_case(engine, cohort, held_out, templates, model, options, seed, tracking)
        held_out.put_away()
        if sink is not None:
            sink(found)
        prediction = LabelMap(found.mask, held_out.geometry)
        truth = LabelMap(held_out.label, held_out.geometry)
        scores.append(score_case(held_out.case.id, prediction, truth, cohort.classes))
        progress("result", case=held_out.case.id, dice=round(scores[-1].mean("dice"), 4))
    return scores


def reliability(labelled: int) -> str:
    """What to think of a leave-one-out estimate over so few cases; empty where there are enough to trust the mean."""
    if labelled < 3:
        return (
            f"With {labelled} labelled cases each was predicted from one other: too few to say more than whether the "
            "method works at all here."
        )
    if labelled < 5:
        return f"With {labelled} labelled cases this is a rough estimate: look at the spread, not at the mean alone."
    return ""


def advice(scores: "Sequence[CaseScores]") -> list[str]:
    """What to think of a leave-one-out estimate, and which labelled cases to look at; empty where all is well."""
    from SSLSegLib.selftraining.choice import stranger_sentence, strangers

    strange = strangers({each.case_id: each.mean("dice") for each in scores})
    said = [reliability(len(scores)), *(stranger_sentence(case, dice) for case, dice in strange.items())]
    return [sentence for sentence in said if sentence]
