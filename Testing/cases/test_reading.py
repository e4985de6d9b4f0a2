"""Files as users bring them, written here by other libraries (nibabel, pydicom, raw bytes) and damaged by hand."""

import gzip
import struct

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.reading import read_geometry, read_image, read_label, read_label_file, read_volume
from SSLSegLib.errors import CaseError

CLASSES = (SegmentClass(value=1, name="Liver"), SegmentClass(value=4, name="Left kidney"))


def turned(shape=(4, 5, 6), spacing=(3.0, 0.7, 0.5)):
    """A turned, flipped and anisotropic affine, as nibabel takes it."""
    c, s = np.cos(0.3), np.sin(0.3)
    affine = np.eye(4)
    affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.diag([-spacing[2], spacing[1], -spacing[0]])
    affine[:3, 3] = (10, -20.5, 300)
    return Geometry(shape, affine)


def save_nifti(path, array, geometry):
    """An independent writer: nibabel takes (i, j, k) and RAS."""
    nibabel.save(nibabel.Nifti1Image(array.transpose(2, 1, 0), geometry.ijk_to_ras), path)


def noise(shape, dtype=np.int16):
    return np.random.default_rng(5).integers(-500, 1500, shape).astype(dtype)


SHAPES = {"usual": (4, 5, 6), "single slice": (1, 5, 6), "not square": (3, 4, 17)}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_a_nifti_file_of_nibabel_is_read_with_its_voxels_and_affine(shape, tmp_path):
    grid, voxels = turned(shape), noise(shape)
    save_nifti(tmp_path / "a.nii.gz", voxels, grid)
    volume = read_image(tmp_path / "a.nii.gz")
    assert volume.array.dtype == np.float32
    np.testing.assert_array_equal(volume.array, voxels[None])
    np.testing.assert_allclose(volume.geometry.ijk_to_ras, grid.ijk_to_ras, atol=1e-4)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".mhd", ".nhdr"])
def test_every_format_gives_the_same_volume(ending, tmp_path):
    grid, voxels = turned(), noise((4, 5, 6))
    SimpleITK.WriteImage(grid.to_sitk(voxels), str(tmp_path / f"a{ending}"), True)
    volume = read_image(tmp_path / f"a{ending}")
    np.testing.assert_array_equal(volume.array[0], voxels)
    assert volume.geometry.matches(grid, tolerance=1e-3)


def test_a_nifti_with_slope_and_intercept_is_read_in_its_units(tmp_path):
    image = nibabel.Nifti1Image(np.arange(24, dtype=np.int16).reshape(2, 3, 4), np.eye(4))
    image.header.set_slope_inter(2.0, -1000.0)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert read_image(tmp_path / "a.nii.gz").array.max() == 23 * 2 - 1000


def test_channels_come_from_several_files_or_from_one_vector_image(tmp_path):
    grid = turned()
    first, second = noise((4, 5, 6)), noise((4, 5, 6))[::-1]
    save_nifti(tmp_path / "a_0000.nii.gz", first, grid)
    save_nifti(tmp_path / "a_0001.nii.gz", second, grid)
    vector = SimpleITK.GetImageFromArray(np.stack([first, second], axis=-1), isVector=True)
    grid.place(vector)
    SimpleITK.WriteImage(vector, str(tmp_path / "v.nrrd"))
    apart = read_image([tmp_path / "a_0000.nii.gz", tmp_path / "a_0001.nii.gz"])
    together = read_image(tmp_path / "v.nrrd")
    np.testing.assert_array_equal(apart.array, np.stack([first, second]))
    np.testing.assert_array_equal(together.array, apart.array)
    assert together.array.flags.c_contiguous


def test_channels_of_different_grids_are_refused(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", noise((4, 5, 6)), turned())
    save_nifti(tmp_path / "b.nii.gz", noise((4, 5, 7)), turned((4, 5, 7)))
    with pytest.raises(CaseError, match=r"Case q.*another grid"):
        read_image([tmp_path / "a.nii.gz", tmp_path / "b.nii.gz"], case_id="q")


def refused(path, said):
    with pytest.raises(CaseError, match=said) as caught:
        read_image(path, case_id="q")
    assert caught.value.case_id == "q"
    assert caught.value.remedy


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
@pytest.mark.parametrize("packed", [True, False])
def test_a_truncated_file_is_refused(ending, packed, tmp_path):
    whole, cut = tmp_path / f"a{ending}", tmp_path / f"cut{ending}"
    SimpleITK.WriteImage(turned((20, 30, 40)).to_sitk(noise((20, 30, 40))), str(whole), packed)
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) * 2 // 3])
    refused(cut, "truncated|cannot be read")


def test_a_gzip_stream_cut_by_its_last_bytes_is_refused(tmp_path):
    save_nifti(tmp_path / "a.nii.gz", noise((20, 30, 40)), turned((20, 30, 40)))
    content = (tmp_path / "a.nii.gz").read_bytes()
    (tmp_path / "a.nii.gz").write_bytes(content[:-9])
    refused(tmp_path / "a.nii.gz", "truncated")


def test_a_gzip_file_of_several_members_is_read(tmp_path):
    save_nifti(tmp_path / "a.nii", noise((4, 5, 6)), turned())
    content = (tmp_path / "a.nii").read_bytes()
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content[:400]) + gzip.compress(content[400:]))
    np.testing.assert_array_equal(read_image(tmp_path / "b.nii.gz").array[0], noise((4, 5, 6)))


@pytest.mark.parametrize("content", [b"", b"hello" * 200])
@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha"])
def test_files_that_are_no_images_are_refused(ending, content, tmp_path):
    (tmp_path / f"a{ending}").write_bytes(content)
    refused(tmp_path / f"a{ending}", "empty|cannot be read")


def test_a_missing_file_and_an_unknown_kind_are_refused(tmp_path):
    refused(tmp_path / "no.nii.gz", "There is no file")
    (tmp_path / "a.jpg").write_bytes(b"x")
    refused(tmp_path / "a.jpg", "no kind that can be read")


def test_a_header_that_declares_an_enormous_volume_is_refused_before_memory_is_asked_for(tmp_path):
    save_nifti(tmp_path / "a.nii", noise((4, 5, 6)), turned())
    content = bytearray((tmp_path / "a.nii").read_bytes())
    struct.pack_into("<4h", content, 40, 3, 30000, 30000, 30000)
    (tmp_path / "b.nii").write_bytes(content)
    (tmp_path / "b.nii.gz").write_bytes(gzip.compress(content))
    refused(tmp_path / "b.nii", "truncated")
    refused(tmp_path / "b.nii.gz", "damaged|truncated")
    head = "NRRD0004\ntype: double\ndimension: 3\nsizes: 30000 30000 30000\nencoding: gzip\nendian: little\n\n"
    (tmp_path / "b.nrrd").write_bytes(head.encode() + b"\0" * 1000)
    refused(tmp_path / "b.nrrd", "damaged")


def test_a_volume_larger_than_memory_is_refused(tmp_path, monkeypatch):
    import collections

    save_nifti(tmp_path / "a.nii", noise((4, 5, 6)), turned())
    few = collections.namedtuple("memory", "available")(700)
    monkeypatch.setattr("psutil.virtual_memory", lambda: few)
    refused(tmp_path / "a.nii", "memory")


@pytest.mark.parametrize("shape", [(5, 6), (5, 6, 4, 3), (5, 6, 4, 1, 2)])
def test_pictures_and_time_series_are_refused(shape, tmp_path):
    nibabel.save(nibabel.Nifti1Image(np.ones(shape, np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", f"{len(shape)} dimensions")


def test_a_fourth_dimension_of_one_is_a_volume(tmp_path):
    voxels = noise((4, 5, 6), np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels.transpose(2, 1, 0)[..., None], np.eye(4)), tmp_path / "a.nii.gz")
    np.testing.assert_array_equal(read_image(tmp_path / "a.nii.gz").array[0], voxels)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels[None], isVector=False), str(tmp_path / "a.mha"))
    np.testing.assert_array_equal(read_image(tmp_path / "a.mha").array[0], voxels)


def test_a_colour_image_is_refused(tmp_path):
    SimpleITK.WriteImage(
        SimpleITK.GetImageFromArray(np.ones((4, 5, 6, 3), np.uint8), isVector=True), str(tmp_path / "a.nrrd")
    )
    refused(tmp_path / "a.nrrd", "colour")


def test_a_sheared_nifti_is_refused_with_the_way_out(tmp_path):
    affine = np.eye(4)
    affine[0, 1] = 0.4
    nibabel.save(nibabel.Nifti1Image(np.ones((4, 5, 6), np.float32), affine), tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "sheared")


# --- DICOM ---------------------------------------------------------------------------------------------------------


def save_dicom(folder, voxels, grid, *, series=None, skip=(), positions=None):
    """One file a slice by pydicom, in shuffled file order, as stored values with slope 1 and intercept -1000."""
    folder.mkdir(exist_ok=True)
    series = series or generate_uid()
    study, frame = generate_uid(), generate_uid()
    lps = np.diag([-1, -1, 1, 1]) @ grid.ijk_to_ras
    k, j, i = grid.spacing
    order = np.random.default_rng(1).permutation(len(voxels))
    for number, index in enumerate(order):
        if index in skip:
            continue
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = CTImageStorage
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = generate_uid()
        data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, study, frame
        data.Modality, data.PatientID, data.PatientName = "CT", "none", "none"
        data.InstanceNumber = int(number + 1)
        slot = index if positions is None else positions[index]
        data.ImagePositionPatient = [round(float(v), 6) for v in (lps @ [0, 0, slot, 1])[:3]]
        data.ImageOrientationPatient = [round(float(v), 8) for v in (*(lps[:3, 0] / i), *(lps[:3, 1] / j))]
        data.PixelSpacing, data.SliceThickness = [j, i], k
        data.Rows, data.Columns = voxels.shape[1:]
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 0
        data.RescaleSlope, data.RescaleIntercept = 1, -1000
        data.PixelData = (voxels[index].astype(np.int32) + 1000).astype(np.uint16).tobytes()
        data.save_as(folder / f"{number:03d}.dcm", enforce_file_format=True)


def dicom_grid(shape=(4, 5, 6)):
    """DICOM slices follow the right hand: no flip left over between the axes."""
    matrix = turned(shape).ijk_to_ras.copy()
    return Geometry(shape, matrix)


def test_a_dicom_series_is_read_in_hounsfield_units_and_in_place(tmp_path):
    grid, voxels = dicom_grid(), noise((4, 5, 6))
    save_dicom(tmp_path / "series", voxels, grid)
    volume = read_image(tmp_path / "series")
    assert volume.geometry.shape == grid.shape
    # Slice order is the reader's; each voxel must lie where it was written, with its value.
    index = np.argwhere(np.ones(grid.shape, bool))
    ours = (grid.ijk_to_ras @ np.c_[index[:, ::-1], np.ones(len(index))].T).T
    there = np.round((np.linalg.inv(volume.geometry.ijk_to_ras) @ ours.T).T[:, :3]).astype(int)
    back = (volume.geometry.ijk_to_ras @ np.c_[there, np.ones(len(there))].T).T
    np.testing.assert_allclose(back, ours, atol=1e-3)
    np.testing.assert_array_equal(volume.array[0][tuple(there[:, ::-1].T)], voxels.ravel())
    cohort = Cohort(classes=CLASSES, cases=[Case(id="q", role="unlabelled", images=["series"])]).at(tmp_path)
    assert read_geometry(cohort, cohort.case("q")).matches(volume.geometry)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"skip": (2,)}, "unevenly spaced"),
        ({"positions": [0, 1, 1, 2, 3, 4]}, "same place"),
    ],
)
def test_a_dicom_series_that_is_no_regular_volume_is_refused(arguments, said, tmp_path):
    save_dicom(tmp_path / "s", noise((6, 5, 6)), dicom_grid((6, 5, 6)), **arguments)
    refused(tmp_path / "s", said)


def test_a_folder_with_no_or_two_series_is_refused(tmp_path):
    (tmp_path / "none").mkdir()
    refused(tmp_path / "none", "no DICOM series")
    save_dicom(tmp_path / "s", noise((3, 5, 6)), dicom_grid((3, 5, 6)))
    moved = tmp_path / "other"
    save_dicom(moved, noise((3, 5, 6)), dicom_grid((3, 5, 6)))
    for file in moved.iterdir():
        file.rename(tmp_path / "s" / f"b{file.name}")
    refused(tmp_path / "s", "2 DICOM series")


# --- labels --------------------------------------------------------------------------------------------------------


def labels(shape=(4, 5, 6)):
    array = np.zeros(shape, np.uint8)
    array[1:3, 1:3, 1:3] = 1
    array[:, 3:, 3:] = 4
    return array


def cohort_with(tmp_path, label, grid, image_grid=None, name="l.nii.gz", **fields):
    save_nifti(tmp_path / "i.nii.gz", noise((image_grid or grid).shape), image_grid or grid)
    if label is not None:
        save_nifti(tmp_path / name, label, grid)
    cases = [Case(id="q", role="labelled", images=["i.nii.gz"], label=name)]
    return Cohort(classes=CLASSES, cases=cases, **fields).at(tmp_path)


def test_a_label_is_read_in_exactly_the_grid_of_its_image(tmp_path):
    cohort = cohort_with(tmp_path, labels(), turned())
    label = read_label(cohort, cohort.case("q"))
    np.testing.assert_array_equal(label.array, labels())
    np.testing.assert_array_equal(label.geometry.ijk_to_ras, read_volume(cohort, cohort.case("q")).geometry.ijk_to_ras)
    with pytest.raises(CaseError, match="no reference"):
        read_label(cohort, cohort.case("q"), "reference")


def test_a_label_of_another_grid_is_refused_and_resampled_only_where_asked(tmp_path):
    coarse = Geometry((4, 5, 6), turned().ijk_to_ras)
    fine = Geometry((4, 10, 12), turned().ijk_to_ras @ np.diag([0.5, 0.5, 1, 1]))
    cohort = cohort_with(tmp_path, labels(), coarse, image_grid=fine)
    with pytest.raises(CaseError, match=r"Case q.*another grid.*--resample-labels"):
        read_label(cohort, cohort.case("q"))
    label = read_label(cohort, cohort.case("q"), resample=True)
    assert label.geometry.shape == (4, 10, 12)
    np.testing.assert_array_equal(label.array[:, ::2, ::2], labels())
    assert set(np.unique(label.array)) == {0, 1, 4}, "no value comes from mixing two others"
    agreed = cohort.model_copy(update={"resample_labels": True})
    np.testing.assert_array_equal(read_label(agreed, agreed.case("q")).array, label.array)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_label_of_floating_point_numbers_is_refused(dtype, tmp_path):
    cohort = cohort_with(tmp_path, labels().astype(dtype), turned())
    with pytest.raises(CaseError, match=r"Case q.*whole numbers"):
        read_label(cohort, cohort.case("q"))


@pytest.mark.parametrize("value", [2, 300, -1])
def test_a_label_with_a_value_that_is_no_class_is_refused(value, tmp_path):
    array = labels().astype(np.int16)
    array[0, 0, 0] = value
    cohort = cohort_with(tmp_path, array, turned())
    with pytest.raises(CaseError, match=rf"no class: {value} .*1 = Liver, 4 = Left kidney"):
        read_label(cohort, cohort.case("q"))


def seg_nrrd(path, layers, segments, grid):
    """A file as 3D Slicer lays it out: layers as the fastest axis, raw, header by hand."""
    lps = np.diag([-1, -1, 1, 1]) @ grid.ijk_to_ras
    k, j, i = grid.shape
    vectors = " ".join("(" + ",".join(f"{v:.17g}" for v in lps[:3, axis]) + ")" for axis in range(3))
    many = len(layers) > 1
    lines = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {4 if many else 3}",
        "space: left-posterior-superior",
        f"sizes: {len(layers)} {i} {j} {k}" if many else f"sizes: {i} {j} {k}",
        f"space directions: {'none ' if many else ''}{vectors}",
        f"kinds: {'list ' if many else ''}domain domain domain",
        "encoding: raw",
        f"space origin: ({','.join(f'{v:.17g}' for v in lps[:3, 3])})",
    ]
    for number, (name, layer, value) in enumerate(segments):
        lines += [
            f"Segment{number}_ID:=Segment_{number}",
            f"Segment{number}_Name:={name}",
            f"Segment{number}_Layer:={layer}",
            f"Segment{number}_LabelValue:={value}",
        ]
    path.write_bytes(("\n".join(lines) + "\n\n").encode() + np.stack(layers, axis=-1).astype(np.uint8).tobytes())


def test_named_segments_are_matched_to_classes_whatever_their_values(tmp_path):
    first, second = (labels() == 1).astype(np.uint8) * 7, (labels() == 4).astype(np.uint8) * 9
    seg_nrrd(tmp_path / "a.seg.nrrd", [first + second], [("liver", 0, 7), ("LEFT KIDNEY", 0, 9)], turned())
    label = read_label_file(tmp_path / "a.seg.nrrd", CLASSES)
    np.testing.assert_array_equal(label.array, labels())
    assert label.geometry.matches(turned(), tolerance=1e-6)


def test_segments_in_several_layers_are_merged(tmp_path):
    first, second = (labels() == 1).astype(np.uint8), (labels() == 4).astype(np.uint8)
    seg_nrrd(tmp_path / "a.seg.nrrd", [second, first], [("Liver", 1, 1), ("Left kidney", 0, 1)], turned())
    np.testing.assert_array_equal(read_label_file(tmp_path / "a.seg.nrrd", CLASSES).array, labels())


def test_overlapping_segments_are_refused(tmp_path):
    both = (labels() == 1).astype(np.uint8)
    seg_nrrd(tmp_path / "a.seg.nrrd", [both, both], [("Liver", 1, 1), ("Left kidney", 0, 1)], turned())
    with pytest.raises(CaseError, match=r"'Left kidney' and 'Liver'.*overlap in 8 voxels"):
        read_label_file(tmp_path / "a.seg.nrrd", CLASSES, case_id="q")


def test_a_segment_that_is_no_class_is_refused_unless_it_is_empty(tmp_path):
    seg_nrrd(tmp_path / "a.seg.nrrd", [(labels() == 1).astype(np.uint8)], [("Tumour", 0, 1)], turned())
    with pytest.raises(CaseError, match=r"'Tumour'.*no class"):
        read_label_file(tmp_path / "a.seg.nrrd", CLASSES)
    seg_nrrd(tmp_path / "b.seg.nrrd", [(labels() == 1).astype(np.uint8)], [("Liver", 0, 1), ("x", 0, 2)], turned())
    assert read_label_file(tmp_path / "b.seg.nrrd", CLASSES).array.sum() == 8


def test_two_segments_of_one_name_and_missing_layers_are_refused(tmp_path):
    mask = (labels() == 1).astype(np.uint8)
    seg_nrrd(tmp_path / "a.seg.nrrd", [mask], [("Liver", 0, 1), ("liver", 0, 2)], turned())
    with pytest.raises(CaseError, match="Two segments"):
        read_label_file(tmp_path / "a.seg.nrrd", CLASSES)
    seg_nrrd(tmp_path / "b.seg.nrrd", [mask], [("Liver", 3, 1)], turned())
    with pytest.raises(CaseError, match="layer"):
        read_label_file(tmp_path / "b.seg.nrrd", CLASSES)


def test_a_cropped_segmentation_is_put_back_where_it_lies(tmp_path):
    shift = np.eye(4)
    shift[:3, 3] = (1, 1, 1)
    crop = Geometry((2, 3, 3), turned().ijk_to_ras @ shift)
    inside = np.zeros((4, 5, 6), np.uint8)
    inside[1:3, 1:3, 1:3] = 1
    seg_nrrd(tmp_path / "l.seg.nrrd", [inside[1:3, 1:4, 1:4]], [("Liver", 0, 1)], crop)
    cohort = cohort_with(tmp_path, None, turned(), name="l.seg.nrrd")
    np.testing.assert_array_equal(read_label(cohort, cohort.case("q")).array, inside)
