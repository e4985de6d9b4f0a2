"""Refinement without Qt: jobs that improve on a run's labels, what they have left, and showing or undoing it."""

from collections import namedtuple
from pathlib import Path

import slicer
from slicer.i18n import tr as _

from SSLSegPanel.dicom_export import name_algorithm
from SSLSegPanel.progress import duration

__all__ = [
    "GUIDES",
    "PRESETS",
    "REFINABLE",
    "ROUND",
    "RUNS",
    "WITH_RESULTS",
    "Labels",
    "count_rounds",
    "finished_rounds",
    "history",
    "known_methods",
    "last_training",
    "load_labels_steps",
    "prepare",
    "roll_back",
    "shows_undone_round",
    "source_of",
    "start_steps",
    "trainings",
]

SELF_TRAINING, UNIMATCH = "selftraining", "unimatch"
REFINABLE = ("tffs", "ssl-medsam2", "vessa")
"""Kinds of jobs whose pseudo-labels can be refined."""
RUNS = (*REFINABLE, "vessa-unimatch")
"""Kinds of jobs that stand on their own: attached to as runs."""
WITH_RESULTS = (*RUNS, UNIMATCH)
"""Kinds of jobs whose results are shown case by case."""

PRESETS = ("quick", "standard", "paper")
GUIDES = ("tffs", "none", "sam2")
ROUND = "SSLSeg.Round"
"""Attribute of a segmentation that shows the labels of a round."""

Labels = namedtuple("Labels", "name trained agreement time number folder")
"""One state of the labels of a run. ``number`` is 0 for its pseudo-labels, N for round N of the self-training in
``folder``, None for the results of another job in ``folder``. The other fields are texts."""


def known_methods():
    """The kinds of refinement that this version can run as jobs."""
    from SSLSegLib.jobs.kinds import known_kinds

    return [kind for kind in (SELF_TRAINING, UNIMATCH) if kind in known_kinds()]


def source_of(training):
    """Folder of the job that a refinement refines, or None where none is known."""
    parameters = training.job.manifest.parameters
    if parameters.get("job"):
        return Path(parameters["job"])
    guides = list((parameters.get("guide") or {}).get("folders", {}).values())
    if guides:
        return Path(guides[0]).parent.parent
    beside = training.job.folder.with_name(training.job.folder.name.split(f"-{UNIMATCH}-")[0])
    return beside if beside != training.job.folder and (beside / "manifest.json").is_file() else None


# What is there


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


def count_rounds(run):
    """How many rounds of a run are finished: quick to ask often."""
    return sum(_count(folder) for folder in trainings(run))


def _round_file(folder, number):
    from SSLSegLib.selftraining.folders import WorkFolder

    return WorkFolder(folder).round(number).report


def _count(folder):
    from SSLSegLib.selftraining.folders import WorkFolder

    return len(WorkFolder(folder).finished_rounds())


def history(run):
    """The states that a run's labels have been in, from its pseudo-labels on; empty where nothing refines them."""
    found = []
    for folder in trainings(run):
        which = "" if folder.name == SELF_TRAINING else f" ({folder.name.removeprefix(SELF_TRAINING + '-')})"
        for number, report in enumerate(finished_rounds(folder), start=1):
            trained = _("{n} labelled + {m} others").format(n=len(report.labelled), m=len(report.trained))
            agreement = "–" if report.agreement is None else f"{report.agreement:.3f}"
            name = _("Round {n}").format(n=number) + which
            found.append(Labels(name, trained, agreement, duration(report.seconds), number, folder))
    found += _unimatch_results(run)
    return [Labels(_("Pseudo-labels"), "", "", "", 0, None), *found] if found else []


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


# Jobs


def prepare(run, kind, *, preset, rounds=None, guide="tffs", steps=None, device="auto"):
    """The job of a refinement, beside the run it refines: new, or the one there that does the same, to go on with.

    Touches no scene: a thread may do it.

    Args:
        run: A finished run.
        kind: One of :func:`known_methods`.
        preset: One of :data:`PRESETS`.
        rounds: The most rounds, for self-training.
        guide, steps: One of :data:`GUIDES`, and training steps (the preset's where it is None), for UniMatch.
        device: As in the panel.

    Raises:
        SSLSegError: An option is wrong, or the folder cannot be written.
    """
    if kind == UNIMATCH:
        from SSLSegLib.jobs.unimatch import unimatch_manifest
        from SSLSegLib.unimatch.options import UniMatchOptions

        source = run.job.manifest.checked_parameters()
        manifest = unimatch_manifest(
            source.loaded_cohort(),
            UniMatchOptions.of(preset, guide=guide, steps=steps),
            guide_job=run.job.folder if guide == "tffs" else None,
            sam2=getattr(source, "weights", None) or source.sam2 if guide == "sam2" else None,
            devices=(device,),
            seed=run.job.manifest.seed,
            report=source.report,
            scene=False,  # the scene at hand shows the results
        )
        name = f"{UNIMATCH}-{preset}-{guide}"
    else:
        from SSLSegLib.jobs.selftraining import selftraining_manifest

        manifest = selftraining_manifest(run.job, preset=preset, rounds=rounds, device=device)
        name = f"training-{preset}-{rounds}"
    return _job_beside(run.job.folder, name, manifest)


def start_steps(run, kind, **options):
    """:func:`prepare` and start, in a process that outlives Slicer. A generator; its value is the :class:`JobRun`."""
    from SSLSegPanel.children import aside
    from SSLSegPanel.job_run import JobRun

    yield _("Collecting the scans")
    training = JobRun((yield from aside(prepare, run, kind, **options)))
    yield from aside(training.start, detached=True)
    return training


def _job_beside(folder, name, manifest):
    """The first folder of this name that is free or holds the same work already."""
    from SSLSegLib.jobs.folder import Job

    number = 1
    while True:
        place = folder.parent / (f"{folder.name}-{name}" if number == 1 else f"{folder.name}-{name}-{number}")
        if not (place / "manifest.json").is_file() or Job.open(place).manifest.same_work(manifest):
            return Job.create(place, manifest)
        number += 1


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
        if labels.number:
            shown = yield from _show_round(run, labels, case)
        else:
            folder = _results_of(run, labels) / run.job.result_folder(case.id).name
            shown = (folder / "result.json").is_file()
            if shown:
                yield from publish_result(case, folder)
        count += bool(shown)
    return count


def _results_of(run, labels):
    return (run.job.folder if labels.folder is None else labels.folder) / "results"


def _show_round(run, labels, case):
    """The label of a round; the uncertainty of the pseudo-label stays, since a round has none of its own."""
    from SSLSegLib.cases.reading import read_label_file
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.scene.hierarchy import place_beside
    from SSLSegLib.scene.marks import PseudoLabelMarks
    from SSLSegLib.scene.segmentations import label_to_segmentation_node
    from SSLSegLib.scene.volumes import node_geometry
    from SSLSegLib.selftraining.folders import WorkFolder
    from SSLSegPanel.children import aside

    number = labels.number
    path = WorkFolder(labels.folder).round(number).predictions / f"{case.id}.nii.gz"
    if not path.is_file():
        return False
    classes = run.job.manifest.checked_parameters().loaded_cohort().classes
    label = yield from aside(read_label_file, path, classes, case_id=case.id)
    grid = node_geometry(case.volume)
    if label.geometry.matches(grid):  # the file keeps the grid in single precision
        label = LabelMap(label.array, grid)
    marks = PseudoLabelMarks(case_id=case.id, method=f"FSL-nnUNet, round {number}")
    with slicer.util.RenderBlocker():
        name = _("{name} round {n}").format(name=case.name, n=number)
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

    folders = [labels.folder] if labels.number else trainings(run)
    return sum(len(revert(folder, labels.number)) for folder in folders)


def shows_undone_round(run, case):
    """Whether a case shows, unreviewed, the labels of a round that is no longer there."""
    from SSLSegPanel.review import review_state

    shown = case.result.GetAttribute(ROUND) if case.result is not None else None
    if not shown or review_state(case.result) != "unreviewed":
        return False
    name, number = shown.rsplit("/", 1)
    return not _round_file(run.job.folder / name, int(number)).is_file()
