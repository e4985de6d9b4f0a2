"""A fold's predictions of the cases it has not trained on: its share of the next pseudo-labels.

nnU-Net does the same at the end of a training, but in a pool of processes and all cases or none. Here each case is
written in one step and kept when the training is resumed; the voxels are the same (tested).
"""

from pathlib import Path

import torch
from nnunetv2.inference.export_prediction import convert_predicted_logits_to_segmentation_with_correct_shape
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.inference.sliding_window_prediction import compute_gaussian
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from SSLSegLib.files import atomic_path
from SSLSegLib.progress import Progress

__all__ = ["predict_validation_cases"]


def predict_validation_cases(trainer: nnUNetTrainer, progress: Progress) -> list[str]:
    """Predict the validation cases of a trained fold into ``fold_N/validation/CASE.nii.gz``, skipping those there.

    Args:
        trainer: With the final weights loaded.
        progress: Told after each case.

    Returns:
        The validation cases.
    """
    trainer.set_deep_supervision_enabled(False)
    trainer.network.eval()
    predictor = nnUNetPredictor(tile_step_size=0.5, device=trainer.device, allow_tqdm=False)
    predictor.manual_initialization(
        trainer.network,
        trainer.plans_manager,
        trainer.configuration_manager,
        None,
        trainer.dataset_json,
        type(trainer).__name__,
        trainer.inference_allowed_mirroring_axes,
    )
    predictor.use_mirroring = trainer.inference_allowed_mirroring_axes is not None
    _, cases = trainer.do_split()
    stored = trainer.dataset_class(trainer.preprocessed_dataset_folder, list(cases))
    writer = trainer.plans_manager.image_reader_writer_class()
    for done, case in enumerate(cases, start=1):
        target = Path(trainer.output_folder) / "validation" / f"{case}{trainer.dataset_json['file_ending']}"
        if not target.is_file():
            image, _, _, properties = stored.load_case(case)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:])).cpu()
            labels = convert_predicted_logits_to_segmentation_with_correct_shape(
                logits,
                trainer.plans_manager,
                trainer.configuration_manager,
                trainer.label_manager,
                properties,
                num_threads_torch=torch.get_num_threads(),
            )
            with atomic_path(target) as temporary:
                writer.write_seg(labels, str(temporary), properties)
        progress("progress", stage="predicting", done=done, total=len(cases), case=case)
    compute_gaussian.cache_clear()
    return list(cases)
