"""Export: reviewed results as NIfTI, ``.seg.nrrd`` and DICOM SEG, with manifest and decisions. No Qt."""

import csv
import io
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from SSLSegPanel.children import aside
from SSLSegPanel.dicom_export import write_dicom
from SSLSegPanel.review import review_state

__all__ = ["ExportChoices", "export_steps"]


@dataclass(frozen=True)
class ExportChoices:
    """What is written where.

    Args:
        folder: The target; made where it is missing.
        accepted_only: Accepted and corrected cases; otherwise all but the rejected ones.
        nifti, segmentation, dicom, manifest: Which files.
    """

    folder: Path
    accepted_only: bool = True
    nifti: bool = True
    segmentation: bool = True
    dicom: bool = False
    manifest: bool = True

    def cases(self, cases):
        """The cases that are exported, in their order."""
        wanted = ("accepted", "corrected") if self.accepted_only else ("unreviewed", "accepted", "corrected")
        return [case for case in cases if case.result is not None and review_state(case.result) in wanted]


def export_steps(cases, choices):
    """Write the files, case by case. A generator; its value is the list of paths.

    Raises:
        SSLSegError: A file of that name is there already (checked before anything is written), or cannot be written.
    """
    from SSLSegLib.errors import SSLSegError
    from SSLSegLib.files import write_text

    chosen = choices.cases(cases)
    names = _file_names(chosen)
    wanted = []
    for name in names.values():
        wanted += [f"{name}.nii.gz"] * choices.nifti + [f"{name}.seg.nrrd"] * choices.segmentation
        wanted += [f"{name}.SEG.dcm"] * choices.dicom
    wanted += ["review.csv"] * choices.manifest
    there = [name for name in wanted if (choices.folder / name).exists()]
    if there:
        raise SSLSegError(
            _("{name} is already in {folder} (of {n} such files).").format(
                name=there[0], folder=choices.folder, n=len(there)
            ),
            remedy=_("Choose another folder; nothing was written."),
        )
    written = []
    for case in chosen:
        yield _("Writing {name} …").format(name=case.name)
        if case.result is None or case.volume is None:
            raise SSLSegError(
                _("The scan or the label of {name} was deleted during the export.").format(name=case.name),
                remedy=_("The files of the cases before it are whole: {folder}").format(folder=choices.folder),
            )
        written += yield from _write_case(case, names[case.id], choices)
    if choices.manifest:
        written += _copy_manifests(chosen, choices.folder)
        write_text(choices.folder / "review.csv", _decisions(list(cases)))
        written.append(choices.folder / "review.csv")
    return written


def _write_case(case, name, choices):
    from SSLSegLib.cases.writing import write_label
    from SSLSegLib.pseudolabels.storage import read_result
    from SSLSegLib.scene.files import write_segmentation
    from SSLSegLib.scene.segmentations import read_segments_steps

    written = []
    if choices.nifti:
        classes = read_result(case.result_folder).classes if Path(case.result_folder).is_dir() else _classes(case)
        copied = yield from read_segments_steps(case.result, case.volume, classes)
        label = yield from aside(copied.label_map)
        path = choices.folder / f"{name}.nii.gz"
        yield from aside(write_label, path, label, classes, reference=label.geometry)
        written.append(path)
    if choices.segmentation:
        written.append(write_segmentation(choices.folder / f"{name}.seg.nrrd", case.result))
    if choices.dicom:
        written.append(write_dicom(case, choices.folder / f"{name}.SEG.dcm"))
    return written


def _file_names(cases):
    """Case id -> file name, after the volume and unique."""
    names = {}
    for case in cases:
        plain = re.sub(r"[^\w.-]+", "_", case.name).strip("._") or case.id
        taken = {name.lower() for name in names.values()}
        names[case.id] = plain if plain.lower() not in taken else f"{plain}_{case.id}"
    return names


def _classes(case):
    """The classes of a result whose job folder is gone: what the segments themselves say."""
    from SSLSegLib.cases.classes import SegmentClass

    segmentation = case.result.GetSegmentation()
    segments = [segmentation.GetNthSegment(index) for index in range(segmentation.GetNumberOfSegments())]
    return tuple(
        SegmentClass(value=value, name=each.GetName(), color=tuple(round(255 * part) for part in each.GetColor()))
        for value, each in enumerate(segments, start=1)
    )


def _copy_manifests(cases, folder):
    copied = []
    jobs = sorted({Path(case.result_folder).parent.parent for case in cases if case.result_folder})
    for number, job in enumerate(jobs, start=1):
        source = job / "manifest.json"
        target = folder / ("manifest.json" if len(jobs) == 1 else f"manifest_{number}.json")
        if source.is_file() and not target.exists():
            folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
            copied.append(target)
    return copied


def _decisions(cases):
    """Who decided what, as a table for spreadsheets; the words are not translated, programs read them."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(["case", "volume", "review", "job"])
    for case in cases:
        if case.result is not None:
            writer.writerow([case.id, case.name, review_state(case.result), case.result_folder])
    return text.getvalue()
