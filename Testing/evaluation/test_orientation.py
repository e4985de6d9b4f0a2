"""Slices hang as in a reading room, whichever way they were stored."""

from itertools import permutations, product

import numpy as np
import pytest
import SimpleITK

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.evaluation.orientation import SliceOrientation

SHAPE = (4, 5, 6)
# Columns to the right and rows downwards run to these sides; slices either way.
WANTED = {"axial": "LPS", "coronal": "LIP", "sagittal": "PIL"}


def every_storage():
    for order, signs in product(permutations(range(3)), product((1, -1), repeat=3)):
        matrix = np.eye(4)
        matrix[:3, :3] = np.eye(3)[:, order] * signs * [1.0, 2.0, 3.0]
        yield pytest.param(matrix, id=f"{order}{signs}")


@pytest.mark.parametrize("matrix", list(every_storage()))
def test_pictures_equal_what_simpleitk_orients(matrix):
    geometry = Geometry(SHAPE, matrix)
    array = np.random.default_rng(0).integers(0, 1000, SHAPE).astype(np.int16)
    orientation = SliceOrientation.of(geometry)
    oriented = SimpleITK.DICOMOrient(geometry.to_sitk(array), WANTED[orientation.plane])
    expected = SimpleITK.GetArrayFromImage(oriented)
    pictures = orientation.picture(array)
    assert np.array_equal(pictures, expected) or np.array_equal(pictures, expected[::-1])
    assert orientation.pixel_mm == pytest.approx(oriented.GetSpacing()[1::-1])
    assert np.array_equal(orientation.picture(array[2]), pictures[2])


def test_edges_are_named_and_positions_are_those_of_the_slice_views():
    lps = Geometry(SHAPE, np.diag([-1.0, -2.0, 3.0, 1.0]))
    orientation = SliceOrientation.of(lps)
    assert (orientation.left, orientation.right, orientation.top, orientation.bottom) == ("R", "L", "A", "P")
    assert orientation.plane == "axial"
    assert orientation.position(2) == "S 6.0 mm"
    assert orientation.aspect == pytest.approx(2.0)
    sagittal = SliceOrientation.of(
        Geometry(SHAPE, np.array([[0, 0, -4.0, 10], [-0.5, 0, 0, 0], [0, -0.7, 0, 0], [0, 0, 0, 1]]))
    )
    assert (sagittal.left, sagittal.top, sagittal.plane) == ("A", "S", "sagittal")
    assert sagittal.position(3) == "L 2.0 mm"


def test_oblique_slices_take_the_nearest_names_and_a_half_turn_is_no_error():
    angle = np.pi / 4
    matrix = np.eye(4)
    matrix[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    orientation = SliceOrientation.of(Geometry(SHAPE, matrix))
    assert {orientation.left, orientation.right, orientation.top, orientation.bottom} == set("RLAP")
