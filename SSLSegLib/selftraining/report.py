"""What a finished round leaves in writing: ``round.json``."""

import json
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from SSLSegLib.files import write_text
from SSLSegLib.selftraining.agreement import CaseChange, StopReason
from SSLSegLib.selftraining.errors import SelfTrainingError

__all__ = ["Outcome", "RoundReport", "RoundRoles", "read_report", "write_report"]


class RoundRoles(BaseModel):
    """Which case is what in a round.

    Args:
        labelled: Cases with a person's label, in every training set (with those corrected since).
        trained: Unlabelled cases that are trained on with their pseudo-label.
        left_out: Unlabelled case -> why its pseudo-label is not trained on.
        folds: Fold -> the cases it predicts.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    labelled: tuple[str, ...]
    trained: tuple[str, ...]
    left_out: dict[str, str]
    folds: dict[int, tuple[str, ...]]


class RoundReport(RoundRoles):
    """One finished round, or the baseline.

    Args:
        name: ``round 1`` or ``baseline``.
        configuration: nnU-Net's.
        checkpoints: Fold -> SHA-256 of its final checkpoint.
        agreement: Mean foreground Dice between the labels before and after (None for the baseline).
        changes: Case -> how its label changed.
        seconds: Wall time (of the last attempt, where the round was resumed).
    """

    schema_version: Literal[1] = 1
    name: str
    configuration: str
    checkpoints: dict[int, str]
    agreement: float | None
    changes: dict[str, CaseChange]
    seconds: float


class Outcome(BaseModel):
    """How a self-training ended.

    Args:
        rounds: Reports of all rounds, in order.
        stopped: Why it ended.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    rounds: tuple[RoundReport, ...]
    stopped: StopReason


def write_report(path: Path, report: RoundReport) -> None:
    """Write a report in one step."""
    write_text(path, report.model_dump_json(indent=2) + "\n")


def read_report(path: Path) -> RoundReport:
    """Read a report.

    Raises:
        SelfTrainingError: When it is damaged or from a newer version.
    """
    try:
        return RoundReport.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        raise SelfTrainingError(
            f"{path} is damaged or from a newer version.", remedy="Delete it; the round is then put together again."
        ) from error
