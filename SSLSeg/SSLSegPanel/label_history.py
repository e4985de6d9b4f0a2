"""The states that a run's labels have been in: what there is, showing one in the scene, going back to one. No Qt."""

from collections import namedtuple

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.dicom_export import name_algorithm
from SSLSegPanel.progress import duration
from SSLSegPanel.refine_texts import first_labels_from
from SSLSegPanel.refinement import SELF_TRAINING, UNIMATCH

__all__ = [
    "ROUND",
    "Labels",
    "count_states",
    "finished_rounds",
    "history",
    "is_after",
    "last_training",
    "load_labels_steps",
    "roll_back",
    "shows_undone_round",
    "trainings",
]

ROUND = "SSLSeg.Round"
"""Attribute of a segmentation that shows the labels of a round, or the first labels (round 0) of a training."""

Labels = namedtuple("Labels", "name made_from agreement time number folder why missing", defaults=("", ""))
"""One state of the labels of a run. ``number`` is N for round N of the self-training in ``folder``, 0 for its first
labels, 0 without a folder for the run's pseudo-labels, None for the results of another job in ``folder``. ``missing``
says why they cannot be shown. All else are texts."""


def trainings(run):
    """Folders of the self-trainings of a run that have finished rounds; one with other options has its own."""
    places = run.job.folder.glob("selftraining*") if run is not None else []
    return sorted((each for each in places if _round_file(each, 1).is_file()), key=lambda each: (len(each.name), each))


def last_training(run):
    """The folder whose last round is the newest, or None."""
    return max(trainings(run), key=lambda each: _round_file(each, _count(each)).stat().st_mtime, default=None)


def finished_rounds(folder):
    """The reports of the finished rounds of a training, in order; empty where there is none (None)."""
    if folder is None:
        return []
    from SSLSegLib.selftraining.report import read_report

    return [read_report(_round_file(folder, number)) for number in range(1, _count(folder) + 1)]


def count_states(run):
    """A number that changes when labels of a run are made or undone: quick to ask often."""
    firsts = sum(1 + len(list(_work(folder).first.predictions.glob("*"))) for folder in _with_choice(run))
    return firsts + sum(_count(folder) for folder in trainings(run))


def _with_choice(run):
    """Folders of the self-trainings of a run that have chosen what to begin with, finished rounds or not."""
    places = run.job.folder.glob("selftraining*") if run is not None else []
    return [each for each in places if _work(each).choice.is_file()]


def _round_file(folder, number):
    return _work(folder).round(number).report


def _count(folder):
    return len(_work(folder).finished_rounds())


def _work(folder):
    from SSLSegLib.selftraining.folders import WorkFolder

    return WorkFolder(folder)


def history(run):
    """The states that a run's labels have been in, from its pseudo-labels on; empty where nothing refines them."""
    found = []
    for folder in sorted({*trainings(run), *_with_choice(run)}, key=lambda each: (len(each.name), each)):
        which = "" if folder.name == SELF_TRAINING else f" ({folder.name.removeprefix(SELF_TRAINING + '-')})"
        found += _first_labels(folder, which)
        for number, report in enumerate(finished_rounds(folder), start=1):
            trained = _("{n} labelled + {m} others").format(n=len(report.labelled), m=len(report.trained))
            agreement = "–" if report.agreement is None else f"{report.agreement:.3f}"
            name = _("Round {n}").format(n=number) + which
            found.append(Labels(name, trained, agreement, duration(report.seconds), number, folder))
    found += _unimatch_results(run)
    return [Labels(_("Pseudo-labels"), "", "", "", 0, None), *found] if found else []


def _first_labels(folder, which):
    """What round 1 of a training was begun with, where that was chosen: a list of none or one."""
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.selftraining.choice import read_choice

    name, work = _("First labels") + which, _work(folder)
    try:
        choice = read_choice(work.choice)
    except SSLSegError as error:
        return [Labels(name, "–", "", "", 0, folder, str(error), str(error))]
    if choice is None:
        return []
    missing = ""
    if not choice.given and not any(work.first.predictions.glob("*.nii.gz")):
        missing = _("They have been chosen, but are not written yet")
    return [Labels(name, first_labels_from(choice), "", "", 0, folder, "\n".join(choice.sentences()), missing)]


def _unimatch_results(run):
    """The finished UniMatch jobs beside a run."""
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.jobs.folder import Job

    found = []
    for folder in sorted(run.job.folder.parent.glob(f"{run.job.folder.name}-{UNIMATCH}-*")) if run else []:
        try:
            job = Job.open(folder)
            finished = job.manifest.kind == UNIMATCH and job.state().status == "finished"
        except SSLSegError:  # damaged or from a newer version: attaching to it says which
            continue
        if finished:
            name = _("UniMatch v2, {what}").format(what=folder.name.split(f"-{UNIMATCH}-")[-1])
            found.append(Labels(name, "", "", "", None, folder))
    return found


# Labels in the scene


def load_labels_steps(run, labels, cases):
    """Show a state of the labels in place of unreviewed ones. A generator; its value is how many cases show it.

    Args:
        run: The run whose labels they are.
        labels: A :class:`Labels`.
        cases: The scene's cases; reviewed results among them stay as they are.
    """
    from SSLSegPanel.publish import publish_result
    from SSLSegPanel.review import review_state

    count = 0
    for case in list(cases):
        if case.volume is None or (case.result and review_state(case.result) != "unreviewed"):
            continue
        yield _("Loading {name} …").format(name=case.name)
        if labels.number or _mixed(labels):
            shown = yield from _show_round(run, labels, case)
        else:
            folder = _results_of(run, labels) / run.job.result_folder(case.id).name
            shown = (folder / "result.json").is_file()
            if shown:
                yield from publish_result(case, folder)
        count += bool(shown)
    return count


def _results_of(run, labels):
    return (labels.folder if labels.number is None else run.job.folder) / "results"


def _mixed(labels):
    """Whether these are first labels that are not the pseudo-labels themselves."""
    from SSLSegLib.selftraining.choice import read_choice

    return labels.number == 0 and labels.folder is not None and not read_choice(_work(labels.folder).choice).given


def _show_round(run, labels, case):
    """The label of a round, or a first label; the pseudo-label's uncertainty stays, since it has none of its own."""
    from SSLSegLib.cases.reading import read_label_file
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.scene.hierarchy import place_beside
    from SSLSegLib.scene.marks import PseudoLabelMarks
    from SSLSegLib.scene.segmentations import label_to_segmentation_node
    from SSLSegLib.scene.volumes import node_geometry
    from SSLSegPanel.children import aside

    number, work = labels.number, _work(labels.folder)
    path = (work.round(number) if number else work.first).predictions / f"{case.id}.nii.gz"
    if not path.is_file():
        return False
    classes = run.job.manifest.checked_parameters().loaded_cohort().classes
    label = yield from aside(read_label_file, path, classes, case_id=case.id)
    grid = node_geometry(case.volume)
    if label.geometry.matches(grid):  # the file keeps the grid in single precision
        label = LabelMap(label.array, grid)
    marks = PseudoLabelMarks(case_id=case.id, method=f"FSL-nnUNet, {f'round {number}' if number else 'first labels'}")
    with slicer.util.RenderBlocker():
        name = _("{name} round {n}") if number else _("{name} first labels")
        name = name.format(name=case.name, n=number)
        node = label_to_segmentation_node(label, classes, case.volume, name, marks=marks)
        name_algorithm(node, marks.method)
        node.SetAttribute(ROUND, f"{labels.folder.name}/{number}")
        node.GetDisplayNode().SetVisibility(False)  # shown when the case is
        place_beside(node, case.volume)
        if case.result is not None:
            slicer.mrmlScene.RemoveNode(case.result)
        case.set_result(node, case.uncertainty, case.result_folder or str(run.job.result_folder(case.id)))
    return True


def roll_back(run, labels):
    """Undo the rounds after these labels; their files are kept in ``reverted/``. Returns how many."""
    from SSLSegLib.selftraining.rounds import revert

    folders = [labels.folder] if labels.folder is not None else trainings(run)
    return sum(len(revert(folder, labels.number)) for folder in folders)


def is_after(labels, other):
    """Whether labels would be undone by going back to other ones: only rounds are."""
    if not labels.number or other.number is None:
        return False
    return other.folder is None or (labels.folder == other.folder and labels.number > other.number)


def shows_undone_round(run, case):
    """Whether a case shows, unreviewed, the labels of a round that is no longer there."""
    from SSLSegPanel.review import review_state

    shown = case.result.GetAttribute(ROUND) if case.result is not None else None
    if not shown or review_state(case.result) != "unreviewed":
        return False
    name, number = shown.rsplit("/", 1)
    work = _work(run.job.folder / name)
    return not (work.round(number).report if int(number) else work.choice).is_file()
