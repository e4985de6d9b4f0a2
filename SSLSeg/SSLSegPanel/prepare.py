"""Prepare: write a scene's cases as files and describe the run in a manifest. Works in small steps, so that the panel
can let Slicer breathe between them. Knows MRML and SSLSegLib, no Qt."""

import datetime
import time
from pathlib import Path

from slicer.i18n import tr as _

from SSLSegPanel.children import aside, child_steps
from SSLSegPanel.segment_classes import classes_of
from SSLSegPanel.settings import Place

__all__ = ["RunChoices", "cohort_of", "export_steps", "finish", "new_run_folder", "prepare_steps", "write_volume_steps"]

_SCRIPTS = Path(__file__).resolve().parent.parent / "Scripts"


class RunChoices:
    """What can be chosen for a run beside its cases; :meth:`from_parameters` takes it from the panel's node."""

    def __init__(
        self,
        *,
        method="tffs",
        weights="sslseg-small",
        preset="balanced",
        modality="MR",
        window=(40.0, 400.0),
        threshold=0.5,
        place="auto",
        seed=42,
        device="auto",
        ignored=(),
        paired=(),
        report=True,
        bank="",
    ):
        self.method, self.bank = method, bank
        self.weights, self.preset, self.modality, self.window = weights, preset, modality, window
        self.threshold, self.seed, self.device = threshold, seed, device
        self.place, self.report = Place(place), report
        self.ignored = set(ignored)
        self.paired = dict(paired) if isinstance(paired, dict) else dict.fromkeys(paired, True)

    @classmethod
    def from_parameters(cls, parameters, device="auto", bank=""):
        return cls(
            bank=bank,
            method=parameters.method,
            weights=parameters.weights,
            preset=parameters.preset.value,
            modality=parameters.modality.value,
            window=(parameters.windowLevel, parameters.windowWidth),
            threshold=round(parameters.threshold, 3),
            place=parameters.place.value,
            seed=parameters.seed,
            device=device,
            ignored=[name for name, ignored in parameters.ignoredSegments.items() if ignored],
            paired=dict(parameters.pairedSegments),
            report=parameters.writeReport,
        )


def new_run_folder(root):
    """A folder name for a run under ``root`` that is not taken: short and ASCII."""
    stamp = datetime.datetime.now().strftime("run-%Y%m%d-%H%M%S")
    folder, number = Path(root) / stamp, 1
    while folder.exists():
        number += 1
        folder = Path(root) / f"{stamp}-{number}"
    return folder


def prepare_steps(cases, choices, folder, *, kind=None):
    """Write everything a run needs. A generator: each ``yield`` gives a line of text and is a good place to pause.

    The last value is returned (``StopIteration.value``): the created job.

    Args:
        cases: A :class:`CaseList` or a list of cases; ignored and test cases are left out.
        choices: A :class:`RunChoices`.
        folder: New folder: ``inputs/`` with the scans, ``job/`` with manifest and results.
        kind: The chosen method by default, or ``expect`` for the leave-one-out estimate over the labelled cases.

    Raises:
        SSLSegError: A case cannot be used, naming it and the way out. What was written is removed.
    """
    from SSLSegLib.cases.cohort import Cohort

    kind = kind or choices.method
    roles = ("labelled",) if kind == "expect" else ("labelled", "unlabelled")
    used = [case for case in cases if case.role in roles]
    for case in used:
        _require_usable(case)
    classes = classes_of(used, choices)
    inputs = Path(folder) / "inputs"
    try:
        entries = []
        for case in used:
            yield _("Writing {name}").format(name=case.name)
            _require_usable(case)
            entry = yield from export_steps(
                case, classes, inputs, case.segmentation if case.role == "labelled" else None
            )
            entries.append(entry)
        cohort = Cohort.from_dict(cohort_of(entries, classes, choices), inputs)
        cohort.require(labelled=2 if kind == "expect" else 1, unlabelled=0 if kind == "expect" else 1)
        cohort = yield from aside(cohort.save, inputs / "cohort.json")
        create = _create_vessa_job if kind == "vessa" else _create_job
        return (yield from create(cohort, choices, Path(folder) / "job", kind))
    except BaseException:
        _remove(folder)
        raise


def _require_usable(case):
    """People go on working while scans are written: asked before each."""
    from SSLSegLib.errors import CaseError

    if case.node.GetScene() is None:
        sentence = _("It was removed from the table while scans were written.")
        raise CaseError(sentence, case_id=case.name, remedy=_("start again without it."))
    if problem := case.problem():
        raise CaseError(problem, case_id=case.name)


_BREATH = 0.02  # seconds between two looks of a window at its events


def finish(steps, breathe=None):
    """Run a generator of steps to its end and return its value: for the console and for tests.

    A step that yields a number waits for something else and asks to be left alone for so many seconds.

    Args:
        steps: The generator.
        breathe: Called between steps: lets a window live whose caller must wait.
    """
    while True:
        try:
            pause = next(steps)
            until = time.monotonic() + (pause if isinstance(pause, float) else 0)
            if breathe is None:
                time.sleep(max(until - time.monotonic(), 0))
                continue
            breathe()
            while time.monotonic() < until:
                time.sleep(_BREATH)
                breathe()
        except StopIteration as end:
            return end.value


def cohort_of(entries, classes, choices):
    """What ``cohort.json`` says of the exported cases of a scene."""
    window = {"level": choices.window[0], "width": choices.window[1]} if choices.modality == "CT" else None
    return {
        "schema_version": 1,
        "name": "scene",
        "modality": choices.modality,
        "window": window,
        "classes": [each.model_dump(mode="json", exclude_none=True) for each in classes],
        "cases": entries,
    }


def export_steps(case, classes, folder, segmentation):
    """Write a case's image, and a segmentation as its label unless the case is to be labelled by the run.

    A generator; its value is the case's entry for :func:`cohort_of`.
    """
    from SSLSegLib.cases.writing import write_label
    from SSLSegLib.scene.segmentations import read_segments_steps

    images = []
    for channel, node in enumerate(case.volumes):
        path = folder / "images" / f"{case.id}_{channel:04d}.nrrd"
        yield from write_volume_steps(path, node)
        images.append(f"images/{path.name}")
    entry = {"id": case.id, "role": case.role, "images": images}
    if segmentation is not None:
        # By name, as the table shows them: these classes are numbered anew, an older value means another one.
        copied = yield from read_segments_steps(segmentation, case.volume, classes, by_value=False)
        label = yield from aside(copied.label_map)
        path = folder / "labels" / f"{case.id}.nrrd"
        yield from aside(write_label, path, label, classes, reference=label.geometry)
        entry["label"] = f"labels/{path.name}"
    return entry


def write_volume_steps(path, *nodes):
    """Write a volume node's voxels, or those of several nodes as the channels of one image.

    A generator: only copying them keeps the scene's thread busy.

    Raises:
        CaseError: A node has no voxels, has colours, lies under a transform, or in another grid than the first.
    """
    from SSLSegLib.errors import CaseError
    from SSLSegLib.scene.volumes import node_voxels

    arrays, grid = [], None
    for node in nodes:
        array, geometry = node_voxels(node)
        grid = grid or geometry
        if not geometry.matches(grid):
            raise CaseError(
                _("Its channels lie in different grids: {difference}.").format(difference=geometry.difference(grid)),
                case_id=node.GetName(),
                remedy=_("Resample one onto the other (Resample Scalar Volume)."),
            )
        arrays.append(array)
        yield
    yield from aside(_write_plain, path, arrays, grid)


def _write_plain(path, arrays, geometry):
    """An image without compression: writing is then as fast as the disk, and the grid is kept in double precision."""
    import numpy as np
    import SimpleITK

    from SSLSegLib.files import atomic_path

    images = [geometry.to_sitk(array.astype(np.float32)) for array in arrays]
    with atomic_path(path) as temporary:
        SimpleITK.WriteImage(images[0] if len(images) == 1 else SimpleITK.Compose(images), str(temporary), False)


def _create_job(cohort, choices, folder, kind):
    from SSLSegLib.files import sha256_of
    from SSLSegLib.jobs.folder import Job
    from SSLSegLib.jobs.inputs import with_absolute_paths
    from SSLSegLib.jobs.labelling import threads_here
    from SSLSegLib.jobs.manifest import InputFile, Manifest
    from SSLSegLib.jobs.tffs import TffsParameters
    from SSLSegLib.tffs.options import TffsOptions
    from SSLSegLib.weights.store import weights_file

    options = TffsOptions(preset=choices.preset, threshold=choices.threshold, **choices.place.asked)
    weights = weights_file(choices.weights)
    files = {"weights": weights}
    for case in (*cohort.labelled, *cohort.unlabelled):
        for channel, path in enumerate(cohort.image_paths(case)):
            files[f"{case.id}/image_{channel}"] = path
        if (label := cohort.label_path(case)) is not None:
            files[f"{case.id}/label"] = label
    inputs = {}
    for role, path in files.items():
        digest = yield from aside(sha256_of, path)
        inputs[role] = InputFile(path=str(Path(path).resolve()), size=Path(path).stat().st_size, sha256=digest)
    parameters = TffsParameters(
        cohort=with_absolute_paths(cohort).to_dict(),
        weights=str(weights),
        options=options,
        device=choices.device,
        threads=threads_here(),
        report=choices.report,
        scene=False,  # the scene at hand shows the results
    )
    values = parameters.model_dump(mode="json")
    manifest = yield from aside(Manifest, kind=kind, seed=choices.seed, parameters=values, inputs=inputs)
    return (yield from aside(Job.create, folder, manifest))


def _create_vessa_job(cohort, choices, folder, kind):
    """The template bank and the job that uses it, by a child: indexing the labelled slices computes."""
    from SSLSegLib.files import write_json
    from SSLSegLib.jobs.folder import Job

    wanted = {
        "cohort": str(cohort.folder / "cohort.json"),
        "bank": str(folder.parent / "bank"),
        "source": choices.bank,
        "job": str(folder),
        "weights": choices.weights,
        "device": choices.device,
        "threshold": choices.threshold,
        "seed": choices.seed,
        "report": choices.report,
    }
    path = folder.parent / "choices.json"
    yield from aside(write_json, path, wanted)
    yield _("Copying the template bank …") if choices.bank else _("Indexing the labelled slices …")
    yield from child_steps([str(_SCRIPTS / "prepare_vessa.py"), str(path)], folder.parent / "prepare.log")
    return (yield from aside(Job.open, folder))


def _remove(folder):
    import shutil

    shutil.rmtree(folder, ignore_errors=True)
