"""What guides a training, as the input of a manifest: pseudo-labels of a job, and people's decisions on them."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.jobs.manifest import InputFile
from SSLSegLib.unimatch.decisions import Decisions, guide_folder, guide_folders, read_decisions, reviewed_cohort
from SSLSegLib.unimatch.options import UniMatchOptions

__all__ = ["GuideSource", "guide_inputs", "guide_source", "refuse_wrong_guide"]


class GuideSource(BaseModel):
    """Pseudo-labels that guide, and what people had decided about them when the manifest was written.

    A decision that is changed later makes another job; it does not change a running one.

    Args:
        folders: Unlabelled case -> folder of its pseudo-label.
        rejected: Cases that take no part in the training.
        corrected: Case -> the person's label file; such cases are labelled ones.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    folders: dict[str, str] = Field(default_factory=dict)
    rejected: tuple[str, ...] = ()
    corrected: dict[str, str] = Field(default_factory=dict)

    @property
    def decisions(self) -> Decisions:
        """As the training takes them."""
        corrected = {case_id: Path(path) for case_id, path in self.corrected.items()}
        return Decisions(frozenset(self.rejected), corrected)


def refuse_wrong_guide(options: UniMatchOptions, guide_job: Path | None, sam2: str | None) -> None:
    """A guide and the source it needs must both be given, or neither.

    Raises:
        CohortError: Saying what is missing or too much.
    """
    given = {"tffs": guide_job, "sam2": sam2}
    flags = {"tffs": "--guide-job", "sam2": "--sam2"}
    for guide, source in given.items():
        if guide == options.guide and source is None:
            raise CohortError(
                f"The guide '{guide}' needs its {'pseudo-labels' if guide == 'tffs' else 'weights'}.",
                remedy=f"Name them with {flags[guide]}, or choose another guide.",
            )
        if guide != options.guide and source is not None:
            raise CohortError(
                f"{flags[guide]} is given, but the guide is '{options.guide}'.",
                remedy=f"Add --guide {guide}, or leave {flags[guide]} out.",
            )


def guide_source(cohort: Cohort, guide_job: Path | None) -> GuideSource:
    """The pseudo-labels and the decisions that lie beside them now.

    Raises:
        CaseError: A case that is neither rejected nor corrected has no whole pseudo-label of the cohort's classes.
    """
    if guide_job is None:
        return GuideSource()
    folders = guide_folders(cohort, Path(guide_job).absolute())
    decisions = read_decisions(folders)
    for case in reviewed_cohort(cohort, decisions).unlabelled:
        guide_folder(cohort, case, folders)
    return GuideSource(
        folders={case_id: str(folder) for case_id, folder in folders.items()},
        rejected=tuple(sorted(decisions.rejected)),
        corrected={case_id: str(path) for case_id, path in decisions.corrected.items()},
    )


def guide_inputs(guide: GuideSource) -> dict[str, InputFile]:
    """Every file of the pseudo-labels that guide, and the corrections.

    Raises:
        CaseError: A correction cannot be read.
    """
    from SSLSegLib.pseudolabels.storage import RESULT, read_result

    inputs = {f"{case_id}/correction": _correction(case_id, Path(path)) for case_id, path in guide.corrected.items()}
    for case_id in guide.folders.keys() - {*guide.rejected, *guide.corrected}:
        folder = Path(guide.folders[case_id])
        names = (RESULT, *read_result(folder).files)
        inputs |= {f"{case_id}/guide/{name}": InputFile.of(folder / name) for name in names}
    return dict(sorted(inputs.items()))


def _correction(case_id: str, path: Path) -> InputFile:
    try:
        return InputFile.of(path)
    except OSError as error:
        raise CaseError(
            f"The corrected label {path} cannot be read: {error.strerror}.",
            case_id=case_id,
            remedy="Restore it, or review the case again.",
        ) from error
