"""VESSA whole: its training on pairs, and UniMatch v2 that it guides (paper 2, sections 3.1 and 3.2)."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import TYPE_CHECKING

from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.errors import WeightsError
from SSLSegLib.progress import Progress, silent

if TYPE_CHECKING:
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.unimatch.model import TrainedNetwork
    from SSLSegLib.vessa.features import Features
    from SSLSegLib.vessa.guide import GuidedOptions
    from SSLSegLib.vessa.model import Vessa
    from SSLSegLib.vessa.options import TrainingOptions, VessaOptions
    from SSLSegLib.vessa.saving import LoadedVessa
    from SSLSegLib.vessa.slices import LabelledSlices
    from SSLSegLib.vessa.templates import TemplateBank

__all__ = ["vessa_stage_1", "vessa_unimatch"]


def vessa_stage_1(
    slices: "LabelledSlices",
    model: "Vessa",
    folder: Path,
    training: "TrainingOptions",
    *,
    features: "Features | None" = None,
    device: str = "auto",
    progress: Progress = silent,
) -> "LoadedVessa":
    """Stage 1: train a VESSA on labelled data, to be used on other data (section 3.1, equations 1 to 3).

    Run again with the same arguments after any end: it resumes.

    Args:
        slices: Labelled slices of at least three subjects of each dataset.
        model: From :func:`SSLSegLib.vessa.model.build_vessa`, with the weights to start from.
        folder: See :class:`SSLSegLib.vessa.train.StageOne`.
        training: How.
        features: By which templates are found; those of its SAM2 by default.
        device: ``cpu``, or the one that accelerate finds; the trained model is loaded there.
        progress: Gets ``stage``, ``progress`` and ``metric`` events.

    Returns:
        The VESSA of the best validation.

    Raises:
        CohortError: A dataset has too few subjects.
        JobError: The folder holds another training.
    """
    from SSLSegLib.vessa.features import sam2_features
    from SSLSegLib.vessa.pairs import prepare_data
    from SSLSegLib.vessa.saving import load_vessa
    from SSLSegLib.vessa.train import StageOne

    features = features or sam2_features(model.segmenter.sam2)
    # 5 % of the subjects are the template bank, the others are trained and validated on.
    data = prepare_data(slices, features, training)
    # Equation 1 draws a template for each target; equations 2 and 3 are the loss.
    StageOne(folder, model, data, training, progress=progress, cpu=device == "cpu").run()
    return load_vessa(Path(folder) / "model", device)


def vessa_unimatch(
    cohort: Cohort,
    vessa: "Callable[[], LoadedVessa]",
    work: Path,
    training: "GuidedOptions",
    *,
    sink: "Callable[[PseudoLabel], None]",
    bank: "TemplateBank | Callable[[], TemplateBank] | None" = None,
    segmenting: "VessaOptions | None" = None,
    features: "Callable[[LoadedVessa], Features] | None" = None,
    device: str = "auto",
    progress: Progress = silent,
    skip: Collection[str] = (),
) -> "TrainedNetwork":
    """Labels for the unlabelled cases and a model for new ones, from a few labelled cases (VESSA, section 3.2).

    Run again with the same arguments after any end, kill -9 included: what is finished is kept. ``vessa/`` and
    ``slices/`` in the folder are large and of no more use once there is a model.

    Args:
        cohort: At least one labelled and one unlabelled case, checked before. References and test cases stay unseen.
        vessa: Gives the VESSA, where there is still something to train: trained here (:func:`vessa_stage_1`), read
            (:func:`SSLSegLib.vessa.saving.load_vessa`), or a SAM2 in the mode "without VLM"
            (:func:`SSLSegLib.vessa.saving.without_language`).
        work: Folder of the training (:class:`SSLSegLib.unimatch.folders.UniMatchFolder`).
        training: Of the specialist, with its seed.
        sink: Given each label the moment it is ready.
        bank: Templates, or what gives them where there is still something to train; all labelled slices that hold a
            class by default, as in the paper.
        segmenting: Candidates and temperature.
        features: By which templates are found; those of VESSA's SAM2 by default.
        device: Of the specialist when it labels; it trains where the VESSA lies.
        progress: Gets ``stage``, ``progress``, ``metric`` and ``result`` events.
        skip: Ids of unlabelled cases that are labelled already.

    Returns:
        The specialist: the teacher's weights.

    Raises:
        CohortError, CaseError: The input cannot be used.
        JobError: The folder holds another training.

    Example:
        >>> def f():
        ...     return without_language("MedSAM2_latest")
        >>> vessa_unimatch(cohort, f, work, GuidedOptions.of("standard"), sink=save)  # doctest: +SKIP
    """
    from SSLSegLib.unimatch.folders import UniMatchFolder
    from SSLSegLib.unimatch.model import load_model
    from SSLSegLib.unimatch.predict import predict_cases
    from SSLSegLib.vessa.features import sam2_features
    from SSLSegLib.vessa.slices import CohortSlices
    from SSLSegLib.vessa.stage2 import train_guided
    from SSLSegLib.vessa.templates import TemplateBank

    cohort.require(labelled=1, unlabelled=1)
    where = UniMatchFolder(Path(work))
    try:
        specialist = load_model(where.model, device)
    except WeightsError:  # not trained yet, or not to the end
        templates = bank() if callable(bank) else bank
        expert = vessa()
        found_by = sam2_features(expert.model.segmenter.sam2) if features is None else features(expert)
        # All labelled images and their masks are inserted into the template bank.
        if templates is None:
            templates = TemplateBank.of(CohortSlices(cohort, progress=progress), found_by)
        # What VESSA needs of the unlabelled slices is computed once. Then in every step teacher and VESSA label the
        # weak views, the student learns from both on strong ones (equations 7 to 9), and the teacher's prediction goes
        # back to VESSA as its prompt.
        train_guided(
            cohort, where.path, training, expert, templates, found_by, segmenting=segmenting, progress=progress
        )
        specialist = load_model(where.model, device)
    # At inference the specialist stands alone.
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    predict_cases(specialist, cohort, waiting, sink, progress=progress)
    return specialist
