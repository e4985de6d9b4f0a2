"""The model that refinement has trained: as an nnU-Net folder, and on volumes that are in no list. No Qt."""

import shutil
from pathlib import Path

from slicer.i18n import tr as _

from SSLSegPanel.dicom_export import name_algorithm
from SSLSegPanel.label_history import finished_rounds, last_training
from SSLSegPanel.refinement import SELF_TRAINING

__all__ = ["apply_steps", "export_steps", "trained_round"]


def trained_round(run):
    """Name of the last finished round of a run, or None."""
    done = finished_rounds(last_training(run))
    return done[-1].name if done else None


def _training(run):
    """Which training of the job, where it is not the first."""
    name = last_training(run).name
    return [] if name == SELF_TRAINING else ["--training", name]


def export_steps(run, folder):
    """Write the last round as an nnU-Net v2 model folder, by a child: the checkpoints are large, and need torch.

    A generator; its value is the path of the model folder.

    Raises:
        SSLSegError: There is no round, or such a folder is there already.
    """
    from SSLSegPanel.children import child_steps

    before = set(Path(folder).rglob("plans.json"))
    arguments = ["-m", "SSLSegLib", "export-model", str(run.job.folder), "--out", str(folder), *_training(run)]
    yield from child_steps(arguments, run.job.logs / "export-model.log")
    return next(iter(set(Path(folder).rglob("plans.json")) - before), Path(folder)).parent


def apply_steps(run, volumes, device="auto"):
    """Segment volumes with the last round, in one child process. A generator; its value is the segmentation nodes.

    Args:
        run: The run whose model it is.
        volumes: Volume nodes of the training's kind of images, or lists of them: the channels of one image. None is
            changed.
        device: As in the panel.

    Raises:
        SSLSegError: A volume cannot be used, or the child failed, with its own last words.
    """
    from SSLSegPanel.children import child_steps
    from SSLSegPanel.prepare import new_run_folder, write_volume_steps

    folder = new_run_folder(run.job.folder.parent / "applied")
    images, nodes, method = {}, [], trained_round(run)
    try:
        for number, volume in enumerate(volumes, start=1):
            channels = list(volume) if isinstance(volume, (list, tuple)) else [volume]
            yield _("Writing {name} …").format(name=channels[0].GetName())
            images[f"volume_{number:03d}"] = channels[0]
            yield from write_volume_steps(folder / f"volume_{number:03d}.nrrd", *channels)
        yield _("Segmenting {n} volumes …").format(n=len(images))
        paths = [str(folder / f"{name}.nrrd") for name in images]
        options = ["--out", str(folder / "out"), "--device", device, *_training(run)]
        words = yield from child_steps(
            ["-m", "SSLSegLib", "predict", str(run.job.folder), *paths, *options], folder / "log.txt"
        )
        for name, volume in images.items():
            nodes.append((yield from _show(run, volume, folder / "out" / name, method, words)))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return nodes


def _show(run, volume, folder, method, words):
    """One prediction as a segmentation beside its volume."""
    from SSLSegLib.cases.reading import read_label_file
    from SSLSegLib.cases.volume import LabelMap
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.scene.hierarchy import place_beside
    from SSLSegLib.scene.marks import PseudoLabelMarks
    from SSLSegLib.scene.segmentations import label_to_segmentation_node
    from SSLSegLib.scene.volumes import node_geometry
    from SSLSegPanel.children import aside

    path = folder / "labels.nii.gz"
    if not path.is_file():
        raise SSLSegError(
            _("The model gave no result for “{name}”: {words}").format(
                name=volume.GetName(), words=words.strip()[-300:]
            )
        )
    classes = run.job.manifest.checked_parameters().loaded_cohort().classes
    label = yield from aside(read_label_file, path, classes)
    if volume.GetScene() is None:
        raise SSLSegError(_("The volume “{name}” was deleted while it was segmented.").format(name=volume.GetName()))
    grid = node_geometry(volume)
    if label.geometry.matches(grid):  # the file keeps the grid in single precision
        label = LabelMap(label.array, grid)
    marks = PseudoLabelMarks(case_id=folder.name, method=f"FSL-nnUNet, {method}")
    node = label_to_segmentation_node(
        label, classes, volume, _("{name} model").format(name=volume.GetName()), marks=marks
    )
    name_algorithm(node, marks.method)
    place_beside(node, volume)
    return node
