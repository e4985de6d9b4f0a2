"""The template bank that a person keeps for VESSA: what it holds, adding cases, taking templates out. No Qt."""

import shutil
from collections import Counter, namedtuple
from pathlib import Path

from slicer.i18n import tr as _

__all__ = [
    "BankContent",
    "bank_state",
    "bank_summary",
    "grow_steps",
    "has_templates",
    "read_bank_steps",
    "remove_steps",
    "sources",
]

BankContent = namedtuple("BankContent", "features templates damaged problem")
"""What a bank was indexed by, its templates, what is wrong with which of them, and that in a sentence or nothing."""

_SCRIPT = Path(__file__).resolve().parent.parent / "Scripts" / "grow_bank.py"
_LONGEST_ID = 40  # of a case, so that the ids of its slices stay short enough for file names


def has_templates(folder):
    """Whether there is anything in the folder of a bank."""
    from SSLSegLib.vessa.bank_files import is_vacant

    return not is_vacant(Path(folder))


def bank_state(folder):
    """Changes when files of a bank come, go or are written anew: quick to ask often."""
    from SSLSegLib.vessa.bank_files import BANK, FEATURES

    places = [Path(folder) / name for name in (BANK, *FEATURES, "images", "masks")]
    return [folder, *(place.stat().st_mtime_ns if place.exists() else None for place in places)]


def read_bank_steps(folder):
    """What a bank holds; None where there is no bank yet. A generator; a disk may take its time.

    Raises:
        CohortError: The folder holds no bank, or one of which no template can be used.
    """
    from SSLSegLib.vessa.bank_check import check_bank
    from SSLSegPanel.children import aside

    if not has_templates(folder):
        return None
    check = yield from aside(check_bank, Path(folder))
    return BankContent(check.record.features, check.record.templates, check.damaged, _advice(check))


def _advice(check):
    """What is wrong with a bank, and what to do about it here."""
    if not check.damaged:
        return ""
    todo = _("Select the marked templates in 2. Method, Template bank, and press Remove, or restore the folder.")
    return f"{check.problem()} {todo}"


def bank_summary(content):
    """One line: how many templates there are, and on how many each class can be seen."""
    counts = Counter(target for template in content.templates for target in template.targets)
    shown = ", ".join(_("{name} on {n}").format(name=name, n=count) for name, count in sorted(counts.items()))
    return _("{n} templates: {classes}").format(n=len(content.templates), classes=shown)


def sources(cases):
    """The cases of a scene whose slices can be templates: ``[(case, segmentation node, accepted)]``."""
    from SSLSegPanel.review import review_state

    found = []
    for case in cases:
        if case.role == "labelled" and case.segmentation is not None and not case.problem():
            found.append((case, case.segmentation, case.segmentation is case.result))
            continue
        reviewed = case.result is not None and review_state(case.result) in ("accepted", "corrected")
        if case.role == "unlabelled" and case.volume is not None and reviewed:
            found.append((case, case.result, True))
    return found


def grow_steps(cases, choices, folder):
    """Add the slices of the scene's labelled, accepted and corrected cases. A generator; its value is the new content.

    A template's id says which scan it is of by a checksum of its voxels: the same scan added again replaces its
    templates, and a scan of another scene never does.

    Args:
        cases: The scene's cases.
        choices: A :class:`SSLSegPanel.prepare.RunChoices`: weights, device, classes and grey levels.
        folder: The bank's.

    Raises:
        SSLSegError: There is no such case, a case cannot be read, the folder holds something else, or the bank was made
            with other weights.
    """
    from SSLSegLib.cases.cohort import Cohort
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.files import write_json
    from SSLSegLib.vessa.bank_files import refuse_other_files
    from SSLSegPanel.children import aside, child_steps
    from SSLSegPanel.prepare import cohort_of, export_steps, new_run_folder
    from SSLSegPanel.segment_classes import classes_of

    found = sources(cases)
    if not found:
        raise SSLSegError(
            _("No case of the scene is labelled, accepted or corrected."), remedy=_("Label or review one first.")
        )
    classes = classes_of([case for case, _node, _accepted in found], choices)
    refuse_other_files(Path(folder))  # said before any work
    content = yield from read_bank_steps(folder)
    if content is not None and content.problem:
        raise SSLSegError(content.problem)
    folder, work = Path(folder), new_run_folder(Path(folder).parent / "adding")
    try:
        entries, accepted = [], []
        for case, node, reviewed in found:
            yield _("Writing {name} …").format(name=case.name)
            entry = yield from export_steps(case, classes, work, node)
            digest = yield from aside(_digest, [work / each for each in entry["images"]])
            entry.update(id=f"{case.id[:_LONGEST_ID]}-{digest[:8]}", role="labelled")
            entries.append(entry)
            accepted += [entry["id"]] * reviewed
        cohort = Cohort.from_dict(cohort_of(entries, classes, choices), work)
        yield from aside(cohort.save, work / "cohort.json")
        wanted = {"cohort": str(work / "cohort.json"), "bank": str(folder), "accepted": accepted}
        wanted |= {"weights": choices.weights, "device": choices.device}
        yield from aside(write_json, work / "choices.json", wanted)
        yield _("Indexing the slices …")
        yield from child_steps([str(_SCRIPT), str(work / "choices.json")], work / "log.txt")
    finally:
        shutil.rmtree(work, ignore_errors=True)
        if work.parent.is_dir() and not any(work.parent.iterdir()):
            work.parent.rmdir()
    return (yield from read_bank_steps(folder))


def remove_steps(folder, identifiers):
    """Take templates out. A generator; its value is the new content.

    Raises:
        CohortError: The bank cannot be read, or nothing would be left of it.
    """
    from SSLSegLib.vessa.bank_files import remove_templates
    from SSLSegPanel.children import aside

    yield from aside(remove_templates, Path(folder), set(identifiers))
    return (yield from read_bank_steps(folder))


def _digest(paths):
    """One checksum of some files."""
    import hashlib

    from SSLSegLib.files import sha256_of

    return hashlib.sha256("".join(sha256_of(path) for path in paths).encode()).hexdigest()
