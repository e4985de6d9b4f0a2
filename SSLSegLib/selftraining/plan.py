"""Fingerprint, plan and preprocess the dataset once; the plan is kept for all rounds.

Planning again in every round would change the network and the intensity statistics (which nnU-Net takes under the
labels, here pseudo-labels) from round to round. Runs in a child process:
``python -m SSLSegLib.selftraining.plan SPEC.json EVENTS.jsonl``.
"""

import os
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from SSLSegLib.files import atomic_path, write_json
from SSLSegLib.progress import Progress
from SSLSegLib.selftraining.errors import SelfTrainingError
from SSLSegLib.selftraining.folders import DATASET, PLANS, WorkFolder
from SSLSegLib.selftraining.options import Configuration, Network

__all__ = ["PlanSpec", "image_mask", "plan_and_preprocess"]


class PlanSpec(BaseModel):
    """What the planning child is told.

    Args:
        work: The run's folder; ``base/raw`` holds the dataset.
        configuration: The one to preprocess.
        network: Limits for the planner.
        processes: Cases preprocessed side by side; 1 works without a pool.
        interpreter: A real Python (see :mod:`SSLSegLib.processes`).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    work: Path
    configuration: Configuration
    network: Network
    processes: int
    interpreter: Path


def plan_and_preprocess(spec: PlanSpec, progress: Progress) -> None:
    """Do all that nnU-Net does before training; finished cases are kept when it is run again after a kill.

    Raises:
        SelfTrainingError: If nnU-Net plans no such configuration for these images.
    """
    from batchgenerators.utilities.file_and_folder_operations import load_json
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    folder = WorkFolder(spec.work)
    preprocessed = folder.preprocessed / DATASET
    progress("stage", stage="planning", total=1)
    if not (preprocessed / f"{PLANS}.json").is_file():
        extractor = DatasetFingerprintExtractor(DATASET, spec.processes)
        extractor.show_progress_bar = False
        extractor.run(overwrite_existing=True)
        _planner(spec.network).plan_experiment()
    plans = PlansManager(load_json(str(preprocessed / f"{PLANS}.json")))
    if spec.configuration not in plans.available_configurations:
        raise SelfTrainingError(
            f"nnU-Net plans no {spec.configuration} for these images.",
            remedy=f"Choose --configuration {' or '.join(plans.available_configurations)}.",
        )
    dataset = load_json(str(preprocessed / "dataset.json"))
    cases = get_filenames_of_train_images_and_targets(str(folder.raw / DATASET), dataset)
    target = preprocessed / plans.get_configuration(spec.configuration).data_identifier
    target.mkdir(parents=True, exist_ok=True)
    folder.masks.mkdir(parents=True, exist_ok=True)

    waiting = [case for case in cases if not (folder.masks / f"{case}.npz").is_file()]
    progress("stage", stage="preprocessing", total=len(cases))
    work = [(case, cases[case], target, folder.masks, plans.plans, spec.configuration, dataset) for case in waiting]
    for done, case in enumerate(_in_turn_or_side_by_side(work, spec.processes), start=len(cases) - len(waiting) + 1):
        progress("progress", stage="preprocessing", done=done, total=len(cases), case=case)
    write_json(folder.planned, {"configuration": spec.configuration, "cases": sorted(cases)})


def image_mask(images: np.ndarray) -> np.ndarray:
    """Where an image is not padding: any channel not 0, holes filled (nnU-Net's rule).

    Args:
        images: ``(C, K, J, I)``.

    Returns:
        ``bool (K, J, I)``.
    """
    from nnunetv2.preprocessing.cropping.cropping import create_nonzero_mask

    return create_nonzero_mask(images)


def _planner(limits: Network) -> Any:
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner

    class LimitedPlanner(ExperimentPlanner):
        """nnU-Net's planner with a smaller network, patch or batch where the options ask for it."""

        def get_plans_for_configuration(self, spacing, median_shape, *rest):  # type: ignore[no-untyped-def]
            largest = median_shape
            if limits.patch_size is not None:
                largest = np.minimum(median_shape, limits.patch_size[-len(spacing) :])
            plan = super().get_plans_for_configuration(spacing, largest, *rest)
            plan["median_image_size_in_voxels"] = median_shape
            plan["batch_size"] = limits.batch_size or plan["batch_size"]
            return plan

    planner = LimitedPlanner(DATASET)
    if limits.features is not None:
        planner.UNet_base_num_features = limits.features
    if limits.most_features is not None:
        planner.UNet_max_features_2d = planner.UNet_max_features_3d = limits.most_features
    if limits.convolutions is not None:
        planner.UNet_blocks_per_stage_encoder = (limits.convolutions,) * 14
        planner.UNet_blocks_per_stage_decoder = (limits.convolutions,) * 13
    return planner


def _in_turn_or_side_by_side(work: list[tuple[Any, ...]], processes: int):  # type: ignore[no-untyped-def]
    if processes == 1 or len(work) < 2:
        yield from map(_preprocess, work)
        return
    with ProcessPoolExecutor(min(processes, len(work)), mp_context=get_context("spawn")) as pool:
        yield from pool.map(_preprocess, work)


def _preprocess(work: tuple[Any, ...]) -> str:
    """Stock preprocessing of one case, and the mask that relabelling needs; the mask, written last, says it is done."""
    from batchgenerators.utilities.file_and_folder_operations import load_pickle
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    case, files, target, masks, plans, configuration, dataset = work
    manager = PlansManager(plans)
    settings = manager.get_configuration(configuration)
    for left_over in (".b2nd", "_seg.b2nd", ".pkl"):  # of a killed run: blosc2 refuses to overwrite
        (target / f"{case}{left_over}").unlink(missing_ok=True)
    preprocessor = settings.preprocessor_class(verbose=False)
    preprocessor.run_case_save(str(target / case), files["images"], files["label"], manager, settings, dataset)

    images, _ = manager.image_reader_writer_class().read_images(files["images"])
    images = images.transpose([0, *(axis + 1 for axis in manager.transpose_forward)])
    box = load_pickle(str(target / f"{case}.pkl"))["bbox_used_for_cropping"]
    mask = image_mask(images)[tuple(slice(*side) for side in box)]
    with atomic_path(masks / f"{case}.npz") as temporary:
        np.savez_compressed(temporary, mask=np.packbits(mask), shape=mask.shape)
    return case


def main() -> None:
    """Entry point of the child process."""
    from SSLSegLib.selftraining.child_side import run_child

    run_child(PlanSpec, plan_and_preprocess)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    main()
