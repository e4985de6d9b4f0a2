"""What a self-training run depends on, written beside it: a folder never mixes two runs."""

import json

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.files import write_json
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import WorkFolder
from SSLSegLib.selftraining.options import SelfTrainingOptions

__all__ = ["check_settings", "other_settings"]


def other_settings(work: WorkFolder, cohort: Cohort, options: SelfTrainingOptions) -> list[str]:
    """In what the run of a folder differs from this one; nothing where it is this one or there is none."""
    if not work.settings.is_file():
        return []
    there = json.loads(work.settings.read_text(encoding="utf-8"))
    ours = json.loads(json.dumps(_settings(cohort, options)))
    return [name for name, value in ours.items() if there.get(name) != value]


def check_settings(work: WorkFolder, cohort: Cohort, options: SelfTrainingOptions) -> None:
    """Write down what the run depends on; refuse to mix two runs in a folder.

    Raises:
        SelfTrainingError: The folder holds a run that differs.
    """
    if other := other_settings(work, cohort, options):
        raise SelfTrainingError(
            f"{work.path} holds a self-training run with other {', '.join(other)}.",
            remedy="Choose another folder, or give the same options; nothing was changed.",
        )
    if not work.settings.is_file():
        write_json(work.settings, _settings(cohort, options))


def _settings(cohort: Cohort, options: SelfTrainingOptions) -> dict[str, object]:
    """What a run depends on."""
    return {
        "schema_version": 1,
        "options": options.what(),
        "classes": [[each.value, each.name] for each in cohort.classes],
        "labelled": sorted(case.id for case in cohort.labelled),
        "unlabelled": sorted(case.id for case in cohort.unlabelled),
    }
