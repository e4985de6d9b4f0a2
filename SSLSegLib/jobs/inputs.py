"""A cohort as the input of a manifest: every file with its checksum, and paths that hold from anywhere."""

import os
from collections.abc import Iterable
from pathlib import Path

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.errors import CaseError, JobError, WeightsError
from SSLSegLib.jobs.manifest import InputFile, Manifest

__all__ = ["cohort_inputs", "refuse_changed_inputs", "weights_input", "with_absolute_paths"]


def with_absolute_paths(cohort: Cohort) -> Cohort:
    """The same cohort, its paths absolute."""

    def absolute(path: str | None) -> str | None:
        return None if path is None else os.path.abspath(cohort.resolve(path))

    cases = tuple(
        case.model_copy(
            update={
                "images": tuple(absolute(path) for path in case.images),
                "label": absolute(case.label),
                "reference": absolute(case.reference),
            }
        )
        for case in cohort.cases
    )
    return cohort.model_copy(update={"cases": cases})


def cohort_inputs(cohort: Cohort, cases: Iterable[Case] | None = None) -> dict[str, InputFile]:
    """Role -> file for everything that results depend on: images and labels, but not references, which only score.

    Roles are ``<case id>/image_<channel>`` and ``<case id>/label``.

    Args:
        cohort: Whose.
        cases: Which; by default the labelled and unlabelled ones, since pseudo-labels do not depend on test cases.

    Raises:
        CaseError: A file is missing or cannot be read.
    """
    inputs = {}
    for case in (*cohort.labelled, *cohort.unlabelled) if cases is None else cases:
        for channel, path in enumerate(cohort.image_paths(case)):
            inputs[f"{case.id}/image_{channel}"] = _described(path, case)
        label = cohort.label_path(case)
        if label is not None:
            inputs[f"{case.id}/label"] = _described(label, case)
    return inputs


def refuse_changed_inputs(manifest: Manifest, of: Cohort | None = None) -> None:
    """Compare every input with its checksum.

    Args:
        manifest: Whose inputs.
        of: Only images and labels of this cohort: what weights, a guide and the like have become does not matter.

    Raises:
        JobError: Naming the first that has changed or is gone.
    """
    roles = [f"{case.id}/{kind}" for case in of.cases for kind in ("image_", "label")] if of else [""]
    changes = manifest.changed_inputs(tuple(roles))
    if changes:
        more = f" (and {len(changes) - 1} more)" if len(changes) > 1 else ""
        raise JobError(
            f"An input has changed since the job was made: {changes[0]}{more}.",
            remedy="Restore it, or start a new job in another folder.",
        )


def weights_input(path: Path | str, option: str) -> InputFile:
    """A file of weights that is named by its path.

    Args:
        path: The file.
        option: Of the command line, that names it.

    Raises:
        WeightsError: It is not there or cannot be read.
    """
    if not Path(path).is_file():
        raise WeightsError(f"There is no file {path}.", remedy=f"Name the weights with {option}, or leave it out.")
    try:
        return InputFile.of(Path(path))
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error.strerror}.", remedy="Give yourself the right to read it."
        ) from error


def _described(path: Path, case: Case) -> InputFile:
    try:
        return InputFile.of(path)
    except OSError as error:
        raise CaseError(
            f"{path} cannot be read: {error.strerror}.", case_id=case.id, remedy="Correct the path in cohort.json."
        ) from error
