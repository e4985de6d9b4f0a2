"""What a person decided about a pseudo-label: ``review.json`` beside the result.

The decision lives in a file of its own so that it survives a repeated run and never changes what the method wrote.
It names the checksum of the label map it was made on: when the label map is another one now, the decision is stale.
"""

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from SSLSegLib.errors import CaseError
from SSLSegLib.files import read_json, sha256_of, write_json

__all__ = ["CORRECTED_LABEL", "REVIEW_FILE", "Review", "ReviewState", "load_review", "save_review"]

REVIEW_FILE = "review.json"
CORRECTED_LABEL = "corrected.nii.gz"
"""Where the person's own label map lies when the state is ``corrected``."""


class ReviewState(StrEnum):
    """A person's decision."""

    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    CORRECTED = "corrected"
    REJECTED = "rejected"


class Review(BaseModel):
    """A decision with its circumstances.

    Attributes:
        state: The decision.
        note: Free text.
        date: UTC, ISO 8601; None while unreviewed.
        labels_sha256: Checksum of the label map that was looked at.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: Literal[1] = 1
    state: ReviewState = ReviewState.UNREVIEWED
    note: str = ""
    date: str | None = None
    labels_sha256: str | None = None

    def is_stale(self, folder: Path) -> bool:
        """Whether the label map in the folder is another one than was looked at."""
        if self.state is ReviewState.UNREVIEWED:
            return False
        labels = Path(folder) / "labels.nii.gz"
        return not labels.is_file() or sha256_of(labels) != self.labels_sha256


def load_review(folder: Path) -> Review:
    """The decision on a case's result folder; ``unreviewed`` when there is none.

    Raises:
        CaseError: If the file is there but cannot be understood.
    """
    path = Path(folder) / REVIEW_FILE
    try:
        return Review.model_validate(read_json(path))
    except FileNotFoundError:
        return Review()
    except (OSError, ValueError) as error:  # a ValidationError is a ValueError
        raise CaseError(
            f"{REVIEW_FILE} is damaged or from a newer version.",
            case_id=path.parent.name,
            remedy=f"Delete {path} and review the case again.",
        ) from error


def save_review(folder: Path, state: ReviewState | str, note: str = "") -> Review:
    """Write down a decision about the result in a folder, replacing an earlier one.

    Args:
        folder: ``results/<case id>``.
        state: The decision. For ``corrected``, :data:`CORRECTED_LABEL` must be there first.
        note: Free text.

    Raises:
        CaseError: If there is no label map to decide on, or no corrected one.
    """
    folder = Path(folder)
    state = ReviewState(state)
    if state is ReviewState.UNREVIEWED:
        review = Review(note=note)
    else:
        _require(folder, "labels.nii.gz", "There is no pseudo-label to review.", "Run the job to its end first.")
        if state is ReviewState.CORRECTED:
            _require(
                folder, CORRECTED_LABEL, "There is no corrected label map.", f"Save it as {CORRECTED_LABEL} first."
            )
        review = Review(
            state=state,
            note=note,
            date=datetime.now(UTC).isoformat(timespec="seconds"),
            labels_sha256=sha256_of(folder / "labels.nii.gz"),
        )
    write_json(folder / REVIEW_FILE, review.model_dump(mode="json"))
    return review


def _require(folder: Path, name: str, problem: str, remedy: str) -> None:
    if not (folder / name).is_file():
        raise CaseError(problem, case_id=folder.name, remedy=remedy)
