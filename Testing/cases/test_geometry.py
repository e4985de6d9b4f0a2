"""The geometry contract, against nibabel's reading of the same files and against SimpleITK's own arithmetic."""

import nibabel
import numpy as np
import pytest
import SimpleITK

from SSLSegLib.cases.geometry import Geometry


def oblique(shape=(5, 6, 7), spacing=(3.0, 0.7, 0.5), angle=0.4) -> Geometry:
    """A turned and tilted anisotropic grid; spacing is (k, j, i)."""
    c, s = np.cos(angle), np.sin(angle)
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    matrix = np.eye(4)
    matrix[:3, :3] = turn * np.array(spacing[::-1])
    matrix[:3, 3] = (-31.5, 12.25, 803.125)
    return Geometry(shape, matrix)


def flipped() -> Geometry:
    matrix = np.diag([-0.5, 0.7, -2.5, 1.0])
    matrix[:3, 3] = (90.0, -120.0, 40.0)
    return Geometry((4, 5, 6), matrix)


GRIDS = {
    "oblique": oblique(),
    "flipped": flipped(),
    "anisotropic": Geometry((4, 5, 6), np.diag([0.3, 0.3, 9.0, 1.0])),
    "single slice": oblique(shape=(1, 6, 7)),
    "not square": oblique(shape=(3, 4, 19)),
}


@pytest.mark.parametrize("kind", GRIDS)
def test_a_grid_survives_simpleitk_exactly(kind):
    grid = GRIDS[kind]
    back = Geometry.from_sitk(grid.to_sitk(np.zeros(grid.shape, np.uint8)))
    assert back.shape == grid.shape
    np.testing.assert_allclose(back.ijk_to_ras, grid.ijk_to_ras, atol=1e-12)


@pytest.mark.parametrize("kind", GRIDS)
def test_positions_are_those_that_simpleitk_computes_with_lps_turned_to_ras(kind):
    grid = GRIDS[kind]
    image = grid.to_sitk(np.zeros(grid.shape, np.uint8))
    last = tuple(size - 1 for size in grid.shape[::-1])
    lps = np.array(image.TransformIndexToPhysicalPoint(last))
    np.testing.assert_allclose((grid.ijk_to_ras @ [*last, 1])[:3], lps * [-1, -1, 1], atol=1e-9)


@pytest.mark.parametrize("kind", GRIDS)
def test_the_matrix_is_the_affine_that_nibabel_reads(kind, tmp_path):
    grid = GRIDS[kind]
    voxels = np.arange(np.prod(grid.shape), dtype=np.int16).reshape(grid.shape)
    SimpleITK.WriteImage(grid.to_sitk(voxels), str(tmp_path / "a.nii.gz"))
    seen = nibabel.load(tmp_path / "a.nii.gz")
    np.testing.assert_allclose(seen.affine, grid.ijk_to_ras, atol=2e-4)
    np.testing.assert_array_equal(np.asarray(seen.dataobj).transpose(2, 1, 0), voxels)


def test_spacing_is_in_array_order():
    np.testing.assert_allclose(oblique().spacing, (3.0, 0.7, 0.5))
    assert oblique().voxel_volume == pytest.approx(1.05)
    assert oblique().in_plane == (6, 7)


def test_rounding_of_a_float32_header_still_matches():
    grid = oblique()
    rounded = Geometry(grid.shape, grid.ijk_to_ras.astype(np.float32))
    assert grid.matches(rounded)
    assert grid.difference(rounded) == ""


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (oblique(shape=(5, 6, 8)), "voxels instead of"),
        (oblique(spacing=(3.5, 0.7, 0.5)), "spacing"),
        (oblique(angle=0.43), "turned"),
        (Geometry((5, 6, 7), oblique().ijk_to_ras + np.pad([[0, 0, 0, 2.0]], ((0, 3), (0, 0)))), "mm apart"),
    ],
)
def test_another_grid_is_told_apart_and_the_difference_said(other, said):
    assert not other.matches(oblique())
    assert said in other.difference(oblique())


def test_single_slices_of_different_slice_thickness_do_not_match():
    thin, thick = (Geometry((1, 6, 7), np.diag([1, 1, step, 1])) for step in (1.0, 5.0))
    assert not thin.matches(thick)


def test_a_flip_is_another_grid_even_where_the_volume_is_symmetric():
    straight = Geometry((3, 3, 3), np.diag([1.0, 1.0, 1.0, 1.0]))
    mirrored = np.diag([-1.0, 1.0, 1.0, 1.0])
    mirrored[0, 3] = 2.0
    assert not straight.matches(Geometry((3, 3, 3), mirrored))


@pytest.mark.parametrize("kind", GRIDS)
@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_an_array_is_reoriented_as_nibabel_does_it(kind, orientation):
    grid = GRIDS[kind]
    array = np.arange(np.prod(grid.shape), dtype=np.int32).reshape(grid.shape)
    found = grid.reoriented(array, orientation)
    # nibabel names axes by where they point, in the order i, j, k, as SimpleITK here; its arrays are (i, j, k).
    assert grid.orientation == "".join(nibabel.aff2axcodes(grid.ijk_to_ras))
    start = nibabel.io_orientation(grid.ijk_to_ras)
    change = nibabel.orientations.ornt_transform(start, nibabel.orientations.axcodes2ornt(orientation))
    np.testing.assert_array_equal(found.T, nibabel.apply_orientation(array.T, change))
    shape, spacing = grid.along(orientation)
    assert shape == found.shape
    image = SimpleITK.DICOMOrient(grid.to_sitk(array), orientation)
    np.testing.assert_allclose(spacing, image.GetSpacing()[::-1])


def test_a_crop_knows_where_it_lies():
    grid = oblique()
    shift = np.eye(4)
    shift[:3, 3] = (2, -1, 3)
    crop = Geometry((1, 2, 3), grid.ijk_to_ras @ shift)
    assert crop.offset_in(grid) == (3, -1, 2)
    shift[0, 3] = 2.5
    assert Geometry((1, 2, 3), grid.ijk_to_ras @ shift).offset_in(grid) is None


@pytest.mark.parametrize(
    ("shape", "matrix"),
    [((0, 1, 1), np.eye(4)), ((1, 1), np.eye(4)), ((1, 1, 1), np.zeros((4, 4))), ((1, 1, 1), np.full((4, 4), np.nan))],
)
def test_impossible_grids_are_refused(shape, matrix):
    with pytest.raises(ValueError):
        Geometry(shape, matrix)
