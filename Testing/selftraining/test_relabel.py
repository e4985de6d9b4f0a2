"""New labels beside old images: the same as preprocessing everything again."""

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from SSLSegLib.selftraining.children import Child, child_environment, run_children
from SSLSegLib.selftraining.dataset import export_dataset, result_folders
from SSLSegLib.selftraining.folders import DATASET, PLANS, WorkFolder
from SSLSegLib.selftraining.plan import PlanSpec
from SSLSegLib.selftraining.relabel import build_training_set

from .conftest import TINY_NETWORK, make_cohort

# Cases of different spacings, anisotropic, with padding around the body: labels are cropped, padded and resampled.
SPACINGS = ((2.5, 1.0, 1.0), (5.0, 0.8, 1.1), (3.0, 1.2, 0.9))


@pytest.fixture(scope="module")
def planned(tmp_path_factory):
    """A dataset planned and fully preprocessed for 2d and 3d with its first labels, in a child process each."""
    folder = tmp_path_factory.mktemp("relabel")
    cohort = make_cohort(folder / "cohort", labelled=1, unlabelled=2, test=0, spacings=SPACINGS, border=3)
    work = WorkFolder(folder / "work")
    export_dataset(work, cohort, result_folders(cohort, folder / "cohort" / "results"))
    _preprocess(work, "2d")
    _preprocess(work, "3d_fullres")
    return work


def _preprocess(work: WorkFolder, configuration: str) -> None:
    for mask in work.masks.glob("*.npz"):
        mask.unlink()
    spec = PlanSpec(
        work=work.path, configuration=configuration, network=TINY_NETWORK, processes=1, interpreter=sys.executable
    )
    environment = child_environment(
        threads=1, workers=1, nnUNet_raw=work.raw, nnUNet_preprocessed=work.preprocessed, nnUNet_results=work.path
    )
    child = Child("planning", "SSLSegLib.selftraining.plan", spec, work.path, "plan", environment)
    run_children([child], ["cpu"], Path(sys.executable), lambda child, event: None)


def _new_labels(work: WorkFolder, folder: Path) -> dict[str, Path]:
    """Moved labels; the first case loses a class, the second all."""
    folder.mkdir()
    labels = {}
    for place, path in enumerate(sorted(work.labels.glob("*.nii.gz"))):
        image = SimpleITK.ReadImage(str(path))
        array = np.roll(SimpleITK.GetArrayFromImage(image), (1, -3, 4), axis=(0, 1, 2))
        if place == 0:
            array[array == 2] = 0
        if place == 1:
            array[:] = 0
        moved = SimpleITK.GetImageFromArray(array)
        moved.CopyInformation(image)
        SimpleITK.WriteImage(moved, str(folder / path.name))
        labels[path.name.removesuffix(".nii.gz")] = folder / path.name
    return labels


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_relabelling_equals_full_preprocessing_voxel_for_voxel(planned, tmp_path, configuration):
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    labels = _new_labels(planned, tmp_path / "labels")
    target = WorkFolder(tmp_path / "run").round(1)
    build_training_set(planned, target, configuration, labels, [])

    plans = PlansManager(load_json(str(planned.preprocessed / DATASET / f"{PLANS}.json")))
    settings = plans.get_configuration(configuration)
    dataset = load_json(str(planned.preprocessed / DATASET / "dataset.json"))
    relabelled = nnUNetDatasetBlosc2(str(target.preprocessed / DATASET / settings.data_identifier))
    assert sorted(relabelled.identifiers) == sorted(labels)
    (tmp_path / "full").mkdir()
    for case, label in labels.items():
        images = dataset["dataset"][case]["images"]
        settings.preprocessor_class(verbose=False).run_case_save(
            str(tmp_path / "full" / case), images, str(label), plans, settings, dataset
        )
        image, wanted, _, facts = nnUNetDatasetBlosc2(str(tmp_path / "full"), [case]).load_case(case)
        same_image, found, _, known = relabelled.load_case(case)
        assert (found[:] == wanted[:]).all()
        assert found.dtype == wanted.dtype
        assert (found.chunks, found.blocks) == (wanted.chunks, wanted.blocks)
        assert (same_image[:] == image[:]).all()
        assert known.keys() == facts.keys()
        assert {name: len(places) for name, places in known["class_locations"].items()} == {
            name: len(places) for name, places in facts["class_locations"].items()
        }
        for name, places in facts["class_locations"].items():
            assert np.array_equal(known["class_locations"][name], places)
        for name in set(facts) - {"class_locations"}:
            assert str(known[name]) == str(facts[name])


def test_the_toy_cases_put_relabelling_to_the_test(planned, tmp_path):
    """Padding inside the crop, resampling and a vanished class occur, or the equality above would say little."""
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    labels = _new_labels(planned, tmp_path / "labels")
    target = WorkFolder(tmp_path / "run").round(1)
    build_training_set(planned, target, "3d_fullres", labels, [])
    stored = nnUNetDatasetBlosc2(str(target.preprocessed / DATASET / f"{PLANS}_3d_fullres"))
    found = {case: stored.load_case(case) for case in labels}
    assert [len(found["c0"][3]["class_locations"][value]) > 0 for value in (1, 2)] == [True, False]
    assert all(len(found["c1"][3]["class_locations"][value]) == 0 for value in (1, 2))
    assert any(case[1].shape[1:] != case[3]["shape_after_cropping_and_before_resampling"] for case in found.values())
    assert all(case[3]["shape_after_cropping_and_before_resampling"] != (10, 36, 40) for case in found.values())


def test_relabelling_leaves_the_base_and_its_links_as_they_are(planned, tmp_path):
    def contents() -> dict[Path, bytes]:
        return {path: path.read_bytes() for path in planned.path.rglob("*") if path.is_file()}

    before = contents()
    build_training_set(planned, WorkFolder(tmp_path).round(1), "2d", _new_labels(planned, tmp_path / "labels"), [])
    assert contents() == before
