# ruff: noqa: PT009 - the names are those of Slicer and Qt, the tests unittest's
"""Tests that run inside Slicer (Reload & Test, ctest), without torch and without network."""

import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer

__all__ = ["CasesTest", "PrepareTest", "ReviewTest"]

NEEDS = ("pydantic", "psutil")


def _make_case(name, value=60):
    array = np.full((6, 20, 24), 10, dtype=np.int16)
    array[2:5, 5:12, 6:14] = value
    volume = slicer.util.addVolumeFromArray(array, name=name)
    volume.SetSpacing(1.5, 2.0, 3.0)
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode", f"{name} drawn")
    segmentation.CreateDefaultDisplayNodes()
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    identifier = segmentation.GetSegmentation().AddEmptySegment("organ", "organ", [0.8, 0.4, 0.2])
    mask = (array == value).astype(np.uint8)
    slicer.util.updateSegmentBinaryLabelmapFromArray(mask, segmentation, identifier, volume)
    return volume, segmentation, mask


def _need_packages():
    from SSLSegPanel.session import missing_packages

    missing = missing_packages(NEEDS)
    if missing:
        raise unittest.SkipTest(f"{', '.join(missing)} not installed: open the module and use 7. Set-up")


class CasesTest(unittest.TestCase):
    """The list of cases follows what happens to the nodes."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_cases_survive_renamed_and_deleted_nodes(self):
        from SSLSegPanel.casenodes import CaseList

        volume, segmentation, _mask = _make_case("first")
        case = CaseList().add(volume, "labelled", segmentation)
        self.assertEqual(case.problem(), "")
        volume.SetName("renamed")
        self.assertEqual(CaseList().find(case.id).name, "renamed")
        slicer.mrmlScene.RemoveNode(segmentation)
        self.assertIn("segmentation", CaseList().find(case.id).problem())
        slicer.mrmlScene.RemoveNode(volume)
        self.assertIn("deleted", CaseList().find(case.id).problem())


class PrepareTest(unittest.TestCase):
    """What a run gets is what the scene shows, voxel for voxel."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)
        _need_packages()

    def test_files_have_the_voxels_and_the_grid_of_the_nodes(self):
        from SSLSegPanel.casenodes import CaseList
        from SSLSegPanel.prepare import RunChoices, finish, prepare_steps

        volume, segmentation, mask = _make_case("first")
        other, _drawn, _mask = _make_case("second")
        cases = CaseList()
        cases.add(volume, "labelled", segmentation)
        cases.add(other, "unlabelled")
        with tempfile.TemporaryDirectory() as folder:
            weights = Path(folder) / "weights.bin"
            weights.write_bytes(b"not looked at before the run")
            job = finish(prepare_steps(cases, RunChoices(weights=str(weights)), Path(folder) / "run"))
            cohort = job.manifest.checked_parameters().loaded_cohort()
            from SSLSegLib.cases.reading import read_label, read_volume

            image = read_volume(cohort, cohort.labelled[0])
            self.assertTrue(np.array_equal(image.array[0], slicer.util.arrayFromVolume(volume)))
            self.assertTrue(np.array_equal(read_label(cohort, cohort.labelled[0]).array, mask))
            self.assertEqual([each.id for each in cohort.unlabelled], ["case_002"])


class ReviewTest(unittest.TestCase):
    """Slices to look at come from the most to the least uncertain."""

    def setUp(self):
        slicer.mrmlScene.Clear(0)

    def test_the_most_uncertain_slice_comes_first(self):
        from SSLSegPanel.review import uncertain_slices

        array = np.zeros((5, 8, 8), dtype=np.float32)
        array[3], array[1] = 0.6, 0.2
        volume = slicer.util.addVolumeFromArray(array, name="uncertainty")
        self.assertEqual([k for k, _position in uncertain_slices(volume)], [3, 1])
