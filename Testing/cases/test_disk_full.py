"""A real limit on what may be written, as a full disk is one: nothing torn may lie where a result is expected."""

import signal
import sys

import numpy as np
import pytest

if sys.platform == "win32":
    pytest.skip("limits on file sizes as POSIX has them", allow_module_level=True)

import resource

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.cases.volume import LabelMap
from SSLSegLib.cases.writing import write_label, write_scalar
from SSLSegLib.errors import CaseError

GRID = Geometry((20, 40, 40), np.diag([1.0, 1.0, 2.0, 1.0]))


@pytest.fixture
def full_disk():
    before, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.parametrize("name", ["x.nii.gz", "x.nii", "x.nrrd", "x.mha"])
def test_a_map_that_does_not_fit_is_refused_with_its_size_and_the_old_one_stays(tmp_path, name, full_disk):
    write_scalar(tmp_path / name, np.zeros((1, 4, 4), np.float32), Geometry((1, 4, 4), np.eye(4)))
    before = (tmp_path / name).read_bytes()
    noise = np.random.default_rng(0).random(GRID.shape).astype(np.float32)
    with pytest.raises(CaseError, match=r"takes up to 0\.128 MB.*make space"):
        write_scalar(tmp_path / name, noise, GRID)
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == before


def test_a_label_that_does_not_fit_leaves_nothing(tmp_path, full_disk):
    labels = np.random.default_rng(0).integers(0, 200, GRID.shape).astype(np.uint8)
    classes = [SegmentClass(value=value, name=f"c{value}", color=(1, 2, 3)) for value in range(1, 201)]
    for name in ("x.nii.gz", "x.seg.nrrd"):
        with pytest.raises(CaseError, match="could not be written whole"):
            write_label(tmp_path / name, LabelMap(labels, GRID), classes, reference=GRID)
    assert list(tmp_path.iterdir()) == []
