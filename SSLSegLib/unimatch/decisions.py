"""Which cases a training sees and as what: the method, pseudo-labels that guide, and what people decided about these.

Imports no torch.
"""

from collections.abc import Mapping
from pathlib import Path

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.pseudolabels.storage import RESULT, is_complete, read_result
from SSLSegLib.selftraining.dataset import Decisions, read_decisions
from SSLSegLib.unimatch.options import UniMatchOptions

__all__ = ["Decisions", "guide_folder", "guide_folders", "read_decisions", "reviewed_cohort", "trained_on"]


def guide_folders(cohort: Cohort, results: Path | str | Mapping[str, Path]) -> dict[str, Path]:
    """Unlabelled case -> folder of its pseudo-label; cases without one are left out.

    Args:
        cohort: Whose unlabelled cases are asked for.
        results: A pseudo-labelling job's folder, its ``results`` folder, or the mapping itself.
    """
    if not isinstance(results, Mapping):
        results = Path(results)
        inside = results / "results" if (results / "results").is_dir() else results
        results = {read_result(path.parent).case_id: path.parent for path in sorted(inside.glob(f"*/{RESULT}"))}
    return {case.id: Path(results[case.id]) for case in cohort.unlabelled if case.id in results}


def reviewed_cohort(cohort: Cohort, decisions: Decisions) -> Cohort:
    """What is trained on: corrected cases are labelled by the person's label, rejected ones take no part.

    The same rule as in self-training. Rejected cases are segmented like all others in the end.
    """

    def decided(case: Case) -> Case:
        if case.role != "unlabelled" or case.id not in decisions.corrected:
            return case
        label = str(Path(decisions.corrected[case.id]).absolute())
        return case.model_copy(update={"role": "labelled", "label": label, "reference": None})

    out = {case.id for case in cohort.unlabelled} & decisions.rejected
    return cohort.model_copy(update={"cases": tuple(decided(case) for case in cohort.cases if case.id not in out)})


def trained_on(cohort: Cohort, options: UniMatchOptions, decisions: Decisions) -> Cohort:
    """The cohort as a training sees it.

    Raises:
        CohortError: It has too few cases.
    """
    if options.method == "upper-bound":
        cohort = _all_labelled(cohort)
    cohort = reviewed_cohort(cohort, decisions)
    cohort.require(labelled=1, unlabelled=1 if options.uses_unlabelled else 0)
    return cohort


def guide_folder(cohort: Cohort, case: Case, folders: Mapping[str, Path]) -> Path:
    """Folder of the whole pseudo-label, of the cohort's classes, that guides on a case.

    Raises:
        CaseError: There is none, or one of other classes.
    """
    folder = folders.get(case.id)
    if folder is None or not is_complete(folder):
        raise CaseError(
            "There is no whole pseudo-label to guide by.",
            case_id=case.id,
            remedy="Finish the pseudo-labelling job (run it again), name another, or reject the case there.",
        )
    values = tuple(each.value for each in read_result(folder).classes)
    if values != cohort.class_values():
        raise CaseError(
            f"The pseudo-label has the classes {values}, the cohort {cohort.class_values()}.",
            case_id=case.id,
            remedy="Use a job that was run on this cohort.",
        )
    return folder


def _all_labelled(cohort: Cohort) -> Cohort:
    """The same cohort as if the labels of its unlabelled cases had never been hidden."""
    known = [case.id for case in cohort.unlabelled if case.reference is not None]
    if not known:
        raise CohortError(
            "The upper bound needs references of the unlabelled cases.", remedy="Choose the method 'supervised'."
        )
    labelled = [*(case.id for case in cohort.labelled), *known]
    return cohort.with_roles(labelled=labelled, test=[case.id for case in cohort.test])
