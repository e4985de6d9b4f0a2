"""Labels and maps that leave: exactly what was meant, exactly where the image is, whole or not at all."""

import subprocess
import sys

import nibabel
import numpy as np
import pytest

from SSLSegLib.cases.classes import Code, SegmentClass, Terminology
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_image, read_label_file
from SSLSegLib.cases.volume import LabelMap, Volume
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError

LIVER = Terminology(type=Code(scheme="SCT", value="10200004", meaning="Liver"))
CLASSES = (
    SegmentClass(value=1, name="Liver", color=(221, 130, 101), terminology=LIVER),
    SegmentClass(value=4, name="Left kidney"),
    SegmentClass(value=9, name="Never there"),
)


def grid(shape=(4, 5, 6), flip=1.0):
    c, s = np.cos(0.3), np.sin(0.3)
    matrix = np.eye(4)
    tilt = np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ tilt @ np.diag([0.5 * flip, 0.7, 3.0])
    matrix[:3, 3] = (10, -20.5, 300)
    return Geometry(shape, matrix)


GRIDS = {
    "oblique": grid(),
    "flipped": grid(flip=-1.0),
    "single slice": grid((1, 5, 6)),
    "not square": grid((3, 4, 17)),
    "anisotropic": Geometry((3, 4, 5), np.diag([0.2, 0.2, 8.0, 1])),
}


def label_on(geometry):
    return LabelMap(np.random.default_rng(2).choice(np.array([0, 1, 4], np.uint8), geometry.shape), geometry)


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".nrrd", ".mha", ".seg.nrrd"])
def test_a_label_is_read_back_exactly(ending, kind, tmp_path):
    label = label_on(GRIDS[kind])
    write_label(tmp_path / f"l{ending}", label, CLASSES, reference=label.geometry)
    back = read_label_file(tmp_path / f"l{ending}", CLASSES)
    np.testing.assert_array_equal(back.array, label.array)
    assert back.geometry.matches(label.geometry, tolerance=1e-3)
    assert [path.name for path in tmp_path.iterdir()] == [f"l{ending}"]


@pytest.mark.parametrize("kind", GRIDS)
def test_nibabel_sees_the_label_where_it_was_written(kind, tmp_path):
    label = label_on(GRIDS[kind])
    write_label(tmp_path / "l.nii.gz", label, CLASSES, reference=label.geometry)
    seen = nibabel.load(tmp_path / "l.nii.gz")
    np.testing.assert_allclose(seen.affine, label.geometry.ijk_to_ras, atol=2e-4)
    np.testing.assert_array_equal(np.asarray(seen.dataobj).transpose(2, 1, 0), label.array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
def test_a_map_keeps_its_number_type_and_its_last_bit(dtype, tmp_path):
    values = (np.random.default_rng(3).random((4, 5, 6)) * 100).astype(dtype)
    for ending in (".nii.gz", ".nrrd", ".mha"):
        write_scalar(tmp_path / f"p{ending}", values, grid())
        np.testing.assert_array_equal(read_image(tmp_path / f"p{ending}").array[0], values.astype(np.float32))


def test_a_label_that_is_not_in_its_images_grid_is_not_written(tmp_path):
    label = label_on(grid())
    for other in (grid((4, 5, 7)), grid(flip=-1.0)):
        with pytest.raises(CaseError, match="another grid"):
            write_label(tmp_path / "l.nii.gz", label, CLASSES, reference=other)
    with pytest.raises(CaseError, match="do not fill"):
        write_scalar(tmp_path / "p.nii.gz", np.zeros((4, 5, 7), np.float32), grid())
    assert not list(tmp_path.iterdir())


def test_a_label_with_a_value_that_is_no_class_is_not_written(tmp_path):
    with pytest.raises(CaseError, match=r"values \[4\] are no class"):
        write_label(tmp_path / "l.nii.gz", label_on(grid()), CLASSES[:1], reference=grid())
    assert not list(tmp_path.iterdir())


def test_a_grid_that_the_format_cannot_hold_is_refused_and_an_earlier_file_stays(tmp_path):
    sheared = np.eye(4)
    sheared[0, 1] = 0.5
    geometry = Geometry((4, 5, 6), sheared)
    (tmp_path / "p.nii.gz").write_bytes(b"earlier")
    with pytest.raises(CaseError):
        write_scalar(tmp_path / "p.nii.gz", np.zeros((4, 5, 6), np.float32), geometry)
    assert (tmp_path / "p.nii.gz").read_bytes() == b"earlier"
    assert [path.name for path in tmp_path.iterdir()] == ["p.nii.gz"]


def test_an_unknown_ending_is_refused(tmp_path):
    with pytest.raises(CaseError, match="unknown kind"):
        write_scalar(tmp_path / "p.png", np.zeros((4, 5, 6), np.float32), grid())


def test_volumes_and_labels_must_fill_their_grid():
    with pytest.raises(ValueError, match="on its grid"):
        Volume(np.zeros((4, 5, 6), np.float32), grid())
    with pytest.raises(ValueError, match="uint8"):
        LabelMap(np.zeros((4, 5, 6), np.int16), grid())


SLICER = """
import sys, slicer, numpy as np, vtk
from vtk.util.numpy_support import vtk_to_numpy
scene = slicer.vtkMRMLScene()
logic = slicer.vtkSlicerSegmentationsModuleLogic()
logic.SetMRMLScene(scene)
node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
storage = slicer.vtkMRMLSegmentationStorageNode()
scene.AddNode(storage)
storage.SetFileName(sys.argv[1])
assert storage.ReadData(node), "not read"
segmentation = node.GetSegmentation()
for index in range(segmentation.GetNumberOfSegments()):
    segment = segmentation.GetNthSegment(index)
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation(segmentation.GetNthSegmentID(index), image)
    matrix = vtk.vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    scalars = image.GetPointData().GetScalars()
    voxels, where = 0, "none"
    if scalars is not None and image.GetNumberOfPoints():
        i0, i1, j0, j1, k0, k1 = image.GetExtent()
        mask = vtk_to_numpy(scalars).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1) == 1
        voxels = int(mask.sum())
        if voxels:
            k, j, i = (np.argwhere(mask)[0] + (k0, j0, i0)).tolist()
            where = " ".join(f"{v:.3f}" for v in matrix.MultiplyPoint((i, j, k, 1))[:3])
    text = vtk.mutable("")
    print("|".join([
        segment.GetName(), " ".join(f"{v:.3f}" for v in segment.GetColor()), str(voxels), where,
        str(text) if segment.GetTag("TerminologyEntry", text) else "",
        str(text) if segment.GetTag("SSLSeg.Method", text) else "",
    ]))
"""


def test_slicer_opens_the_segments_with_name_colour_place_codes_and_tags(tmp_path):
    pytest.importorskip("slicer_core", reason="the slicer-core wheel is not installed")
    label = label_on(grid())
    write_label(tmp_path / "l.seg.nrrd", label, CLASSES, reference=label.geometry, tags={"SSLSeg.Method": "TFFS|x: 1"})
    ran = subprocess.run(
        [sys.executable, "-c", SLICER, str(tmp_path / "l.seg.nrrd")], capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stderr
    rows = [line.split("|") for line in ran.stdout.splitlines() if line.count("|") == 5]
    assert [row[0] for row in rows] == ["Liver", "Left kidney", "Never there"]
    for row, segment in zip(rows, CLASSES, strict=True):
        mask = label.array == segment.value
        assert [float(v) for v in row[1].split()] == pytest.approx(segment.color_unit, abs=2e-3)
        assert int(row[2]) == mask.sum()
        if mask.any():
            k, j, i = np.argwhere(mask)[0]
            expected = (label.geometry.ijk_to_ras @ [i, j, k, 1])[:3]
            assert [float(v) for v in row[3].split()] == pytest.approx(expected, abs=2e-3)
        assert row[5] == "TFFS/x: 1"
    assert rows[0][4] == LIVER.serialized()
