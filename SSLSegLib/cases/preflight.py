"""The pre-flight: everything that can be known to be wrong with a cohort before work starts. Nothing is written."""

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.headers import read_header
from SSLSegLib.cases.nifti import count_not_finite, is_nifti
from SSLSegLib.cases.reading import read_image, read_label_file, read_label_on, refuse_no_scan
from SSLSegLib.errors import CaseError, CohortError
from SSLSegLib.progress import Progress, silent

__all__ = ["Finding", "check_cohort", "raise_on_errors"]

_BYTES_A_VOXEL_AND_CLASS = 4
_BYTES_A_VOXEL = 16  # uncertainty, spread, two label maps, pictures; unpacked, so an upper bound


@dataclass(frozen=True)
class Finding:
    """Something about a cohort that its owner should know. Errors must be mended before work starts."""

    severity: Literal["error", "warning"]
    problem: str
    case_id: str | None = None
    remedy: str | None = None

    def __str__(self) -> str:
        return str(CaseError(self.problem, case_id=self.case_id, remedy=self.remedy))


def check_cohort(
    cohort: Cohort,
    *,
    output: Path | str | None = None,
    resample_labels: bool | None = None,
    progress: Progress = silent,
) -> list[Finding]:
    """Look at every file of a cohort: headers of all first, then voxels, one case in memory at a time.

    Args:
        cohort: The cohort.
        output: The folder that results are to be written to: whether that is possible, and room enough there.
        resample_labels: Accept labels of another geometry (see :class:`Cohort`); as the cohort says by default.
        progress: Told the cases done.

    Returns:
        All findings, errors first. Having no unlabelled case is a warning: whoever needs some calls
        :meth:`Cohort.require`.
    """
    resample = cohort.resample_labels if resample_labels is None else resample_labels
    findings: list[Finding] = []
    if not cohort.labelled:
        findings.append(_as_error(_missing(cohort, labelled=1)))
    if not cohort.unlabelled:
        findings.append(_as_warning(_missing(cohort, unlabelled=1)))
    findings += _shared_images(cohort)

    voxels: dict[str, int] = {}
    channels: dict[str, int] = {}
    for case in cohort.cases:
        try:
            voxels[case.id], channels[case.id] = _check_headers(cohort, case)
        except CaseError as error:
            findings.append(_as_error(error))
    findings += _uneven_channels(channels)
    if output is not None:
        findings += _check_output(Path(output), cohort, voxels)

    seen: dict[str, set[int]] = {}
    for number, case in enumerate(cohort.cases):
        if case.id in voxels:
            findings += _check_voxels(cohort, case, resample, seen)
        progress("progress", stage="Checking the cases", done=number + 1, total=len(cohort.cases), case=case.id)
    findings += _absent_classes(cohort, seen)
    return sorted(findings, key=lambda finding: finding.severity != "error")


def raise_on_errors(findings: Sequence[Finding]) -> None:
    """Refuse a cohort with errors.

    Raises:
        CaseError: Where one case has one error.
        CohortError: Where several errors are, listing all of them.
    """
    errors = [finding for finding in findings if finding.severity == "error"]
    if not errors:
        return
    if len(errors) == 1:
        kind = CaseError if errors[0].case_id else CohortError
        raise kind(errors[0].problem, case_id=errors[0].case_id, remedy=errors[0].remedy)
    listed = "".join(f"\n  - {error}" for error in errors)
    raise CohortError(f"{len(errors)} things are wrong with the cohort:{listed}")


def _check_headers(cohort: Cohort, case: Case) -> tuple[int, int]:
    """Numbers of voxels and channels, from headers alone."""
    voxels, channels = 0, 0
    for path in cohort.image_paths(case):
        header = read_header(path, case_id=case.id)
        refuse_no_scan(header, path, case_id=case.id)
        voxels, channels = header.voxels // header.components, channels + header.components
    for which in ("label", "reference"):
        if (path := cohort.label_path(case, which)) is not None:
            read_header(path, case_id=case.id)
    return voxels, channels


def _check_voxels(cohort: Cohort, case: Case, resample: bool, seen: dict[str, set[int]]) -> list[Finding]:
    try:
        not_finite = sum(_not_finite_in_file(path, case) for path in cohort.image_paths(case))
        if not_finite:
            return [_not_finite("The image", not_finite, case)]
        volume = read_image(cohort.image_paths(case), case_id=case.id)
        findings = list(_check_intensities(volume.array, cohort, case))
        grid = volume.geometry
        del volume
        for which in ("label", "reference"):
            if (path := cohort.label_path(case, which)) is not None:
                _not_finite_in_file(path, case)
                findings += _check_label(cohort, case, grid, which, resample, seen)
    except CaseError as error:
        return [_as_error(error)]
    return findings


def _check_intensities(array: np.ndarray, cohort: Cohort, case: Case) -> Iterator[Finding]:
    for number, channel in enumerate(array):
        which = f"Channel {number} of the image" if len(array) > 1 else "The image"
        # A sum is not finite where a voxel is not; it needs no copy of the volume.
        if not np.isfinite(channel.sum(dtype=np.float64)):
            yield _not_finite(which, int(channel.size - np.isfinite(channel).sum()), case)
            continue
        lowest, highest = float(channel.min()), float(channel.max())
        if lowest == highest:
            yield Finding(
                "error",
                f"{which} is constant: every voxel is {lowest:g}.",
                case.id,
                "give the scan itself, or leave the case out.",
            )
        elif cohort.modality == "CT" and lowest >= 0:
            yield Finding(
                "warning",
                f"{which} has no negative values, as a CT in Hounsfield units would have.",
                case.id,
                "check the units, or the modality in cohort.json.",
            )


def _check_label(
    cohort: Cohort,
    case: Case,
    grid: Geometry,
    which: Literal["label", "reference"],
    resample: bool,
    seen: dict[str, set[int]],
) -> list[Finding]:
    label = read_label_on(cohort, case, grid, which, resample=resample)
    values = set(np.unique(label.array).tolist()) - {0}
    if which == "label":
        seen[case.id] = values
    findings = []
    if resample:
        path = cohort.label_path(case, which)
        own = read_label_file(path, cohort.classes, case_id=case.id)
        if not own.geometry.matches(grid):
            lost = set(np.unique(own.array).tolist()) - {0} - values
            if lost:
                return [
                    Finding(
                        "error",
                        f"Class '{_name(cohort, min(lost))}' of the {which} {path.name} lies outside the image or is "
                        "lost by resampling.",
                        case.id,
                        "give the label of this image.",
                    )
                ]
            difference = own.geometry.difference(grid)
            findings.append(
                Finding(
                    "warning", f"The {which} {path.name} is put onto the grid of the image ({difference}).", case.id
                )
            )
    if not values:
        findings.append(Finding("warning", f"The {which} is empty: it holds background only.", case.id))
    return findings


def _absent_classes(cohort: Cohort, seen: dict[str, set[int]]) -> Iterator[Finding]:
    if not seen or len(seen) < len(cohort.labelled):
        return  # a label that cannot be read may hold it
    there = set().union(*seen.values())
    for segment in cohort.classes:
        if segment.value not in there:
            yield Finding(
                "error",
                f"Class '{segment.name}' (value {segment.value}) is in none of the labelled cases.",
                remedy="label it in at least one case, or remove the class from cohort.json.",
            )


def _uneven_channels(channels: dict[str, int]) -> Iterator[Finding]:
    if not channels:
        return
    usual = max(channels.values(), key=list(channels.values()).count)
    for case_id, number in channels.items():
        if number != usual:
            yield Finding(
                "error",
                f"The image has {number} channel{'s' * (number > 1)}, those of most cases {usual}.",
                case_id,
                "give the same channels in the same order for every case.",
            )


def _shared_images(cohort: Cohort) -> Iterator[Finding]:
    owner: dict[Path, str] = {}
    for case in cohort.cases:
        for path in cohort.image_paths(case):
            first = owner.setdefault(Path(os.path.abspath(path)), case.id)
            if first != case.id:
                yield Finding(
                    "warning", f"The image {path.name} is that of case {first} too.", case.id, "is that meant so?"
                )


def _check_output(output: Path, cohort: Cohort, voxels: dict[str, int]) -> Iterator[Finding]:
    existing = Path(os.path.abspath(output))
    while not os.path.lexists(existing) and existing != existing.parent:
        existing = existing.parent
    if not existing.is_dir():
        yield Finding("error", f"{output} cannot become a folder: {existing} is a file.", remedy="name another folder.")
        return
    if not os.access(existing, os.W_OK | os.X_OK):
        yield Finding(
            "error", f"Nothing can be written to {existing}.", remedy="name another folder, or allow writing there."
        )
        return
    a_voxel = _BYTES_A_VOXEL + _BYTES_A_VOXEL_AND_CLASS * len(cohort.classes)
    needed = sum(voxels.get(case.id, 0) for case in cohort.unlabelled) * a_voxel
    free = shutil.disk_usage(existing).free
    if needed > free:
        yield Finding(
            "error",
            f"Results may take {needed / 1e9:.3g} GB; {free / 1e9:.3g} GB are free at {existing}.",
            remedy="free some space, or name another folder.",
        )


def _not_finite_in_file(path: Path, case: Case) -> int:
    """Reads a NIfTI file to its end; ITK would hide what is missing and what is no number."""
    return count_not_finite(path, case_id=case.id)[0] if is_nifti(path) else 0


def _not_finite(which: str, number: int, case: Case) -> Finding:
    return Finding(
        "error",
        f"{which} holds {number} voxel{'s that are' if number > 1 else ' that is'} not finite (NaN or infinite).",
        case.id,
        "replace them, for example by the background value.",
    )


def _name(cohort: Cohort, value: int) -> str:
    return next(segment.name for segment in cohort.classes if segment.value == value)


def _missing(cohort: Cohort, *, labelled: int = 0, unlabelled: int = 0) -> CohortError:
    try:
        cohort.require(labelled=labelled, unlabelled=unlabelled)
    except CohortError as error:
        return error
    raise AssertionError("the cohort has such cases")


def _as_error(error: CaseError | CohortError) -> Finding:
    return Finding("error", error.problem, error.case_id, error.remedy)


def _as_warning(error: CaseError | CohortError) -> Finding:
    return Finding("warning", error.problem, error.case_id, error.remedy)
