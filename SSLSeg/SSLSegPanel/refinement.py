"""Refinement without Qt: the jobs that improve on a run's labels."""

from pathlib import Path

from slicer.i18n import tr as _

__all__ = [
    "FIRST_LABELS",
    "GUIDES",
    "PRESETS",
    "REFINABLE",
    "RUNS",
    "WITH_RESULTS",
    "known_methods",
    "prepare",
    "preset_first_labels",
    "source_of",
    "start_steps",
    "why_given",
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
FIRST_LABELS = ("best", "given")


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


def preset_first_labels(preset):
    """What a preset of self-training begins with, one of :data:`FIRST_LABELS`."""
    from SSLSegLib.selftraining.options import SelfTrainingOptions

    return SelfTrainingOptions.of(preset).first_labels


def why_given(run):
    """Why self-training takes a run's labels as they are, whatever is asked for; empty where there is a choice."""
    if run is None:
        return ""
    if run.job.manifest.kind == "vessa":
        return _("A run of VESSA does not segment its own labelled cases: its labels are taken as they are.")
    cases = run.job.manifest.parameters["cohort"]["cases"]
    if sum(case["role"] == "labelled" for case in cases) < 2:
        return _("With one labelled case there is nothing to compare on: the labels are taken as they are.")
    return ""


def prepare(run, kind, *, preset, rounds=None, first_labels=None, guide="tffs", steps=None, device="auto"):
    """The job of a refinement, beside the run it refines: new, or the one there that does the same, to go on with.

    Touches no scene: a thread may do it.

    Args:
        run: A finished run.
        kind: One of :func:`known_methods`.
        preset: One of :data:`PRESETS`.
        rounds: The most rounds, for self-training.
        first_labels: One of :data:`FIRST_LABELS`, for self-training; the preset's where it is None.
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

        if first_labels == preset_first_labels(preset):
            first_labels = None  # said as on the command line without it: the same work, to go on with
        manifest = selftraining_manifest(
            run.job, preset=preset, rounds=rounds, first_labels=first_labels, device=device
        )
        name = f"training-{preset}-{rounds}" + (f"-{first_labels}" if first_labels else "")
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
