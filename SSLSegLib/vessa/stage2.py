"""Stage 2: UniMatch v2 with VESSA as its guide, from a cohort to a model (paper 2, section 3.2)."""

from pathlib import Path
from typing import Any

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.cases.reading import read_volume
from SSLSegLib.progress import Progress, silent
from SSLSegLib.unimatch.data import StepBatches
from SSLSegLib.unimatch.model import save_model
from SSLSegLib.unimatch.run import UniMatchFolder
from SSLSegLib.unimatch.slices import StackBuilder, cohort_pixel_mm
from SSLSegLib.unimatch.train import Trainer, require_encoder
from SSLSegLib.vessa.features import Features
from SSLSegLib.vessa.guide import GuidedOptions, make_vessa_guide
from SSLSegLib.vessa.options import VessaOptions
from SSLSegLib.vessa.saving import LoadedVessa
from SSLSegLib.vessa.templates import TemplateBank

__all__ = ["train_guided"]


def train_guided(
    cohort: Cohort,
    folder: Path,
    options: GuidedOptions,
    vessa: LoadedVessa,
    bank: TemplateBank,
    features: Features,
    *,
    segmenting: VessaOptions | None = None,
    cached: bool = True,
    progress: Progress = silent,
) -> UniMatchFolder:
    """Train a specialist that teacher and VESSA supervise together.

    "At the beginning of training, all labeled images and their masks are inserted into the VESSA template bank"; what
    VESSA needs of the unlabelled slices is computed once (``vessa/`` in the folder); then the training runs. Run again
    with the same arguments after any end: it resumes.

    Args:
        cohort: References stay unseen.
        folder: See :class:`~SSLSegLib.unimatch.run.UniMatchFolder`.
        options: Of the training.
        vessa: The model; with a cache, its language model is let go of.
        bank: Of the labelled cases.
        features: By which templates are found.
        segmenting: Candidates and temperature.
        cached: False: without the cache, for measurements.
        progress: Gets ``stage``, ``progress`` and ``metric`` events.

    Raises:
        CohortError, CaseError: The input cannot be used, or a class is in no template.
        WeightsError: The encoder's weights cannot be used.
        JobError: The folder holds another training.
    """
    cohort.require(labelled=1, unlabelled=1)
    # What can be known to fail is better told before VESSA's features are computed, which may take hours.
    bank.require_features(features.name)
    bank.require_all_targets([each.name for each in cohort.classes])
    where = UniMatchFolder(Path(folder))
    require_encoder(where.training, options)
    pixel_mm = options.pixel_mm or cohort_pixel_mm(cohort, (*cohort.labelled, *cohort.unlabelled), options.size)
    builder = StackBuilder(cohort, where.slices, pixel_mm)
    progress("stage", stage="Preparing slices", total=None)
    labelled, unlabelled = builder.build(cohort.labelled, progress), builder.build(cohort.unlabelled, progress)
    guide = make_vessa_guide(
        cohort,
        vessa,
        bank,
        features,
        where.path / "vessa",
        prompting=options.prompting,
        feedback=options.feedback,
        options=segmenting,
        cached=cached,
        progress=progress,
    )
    trainer = Trainer(
        where.training,
        StepBatches(labelled, unlabelled, options),
        len(cohort.classes) + 1,
        options,
        guide,
        progress=progress,
        **_placed(vessa),
    )
    trainer.run()
    channels = read_volume(cohort, cohort.labelled[0]).array.shape[0]
    common: dict[str, Any] = {"channels": channels, "pixel_mm": pixel_mm, "options": options.what()}
    save_model(where.model / "student", trainer.student, cohort, which="student", **common)
    save_model(where.model, trainer.teacher, cohort, which="teacher", **common)
    return where


def _placed(vessa: LoadedVessa) -> dict[str, Any]:
    """Where the trainer works: beside VESSA. The CPU is its default."""
    if vessa.device.type == "cpu":
        return {}
    from SSLSegLib.unimatch.distributed import accelerator_on

    return {"accelerator": accelerator_on(vessa.device)}
