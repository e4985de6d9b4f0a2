"""TFFS-MedSAM2: pseudo-labels without training (paper 1, Algorithm 2)."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Case, Cohort
from SSLSegLib.pipelines.encoding import EncodedImage, LabelledCase, encode, encode_labelled
from SSLSegLib.pipelines.tracking import Tracking
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
    from SSLSegLib.cases.geometry import Geometry
    from SSLSegLib.pseudolabels.label import PseudoLabel
    from SSLSegLib.tffs.engine import TffsEngine
    from SSLSegLib.weights.loading import LoadedSam2

__all__ = ["METHOD", "ensemble", "pseudo_label", "segment_case"]

METHOD = "TFFS-MedSAM2"


def pseudo_label(
    cohort: Cohort,
    model: "LoadedSam2",
    options: TffsOptions,
    *,
    seed: int,
    sink: Callable[["PseudoLabel"], None],
    progress: Progress = silent,
    skip: Collection[str] = (),
    scratch: Path | None = None,
    case_scratch: Path | None = None,
    engine: "TffsEngine | None" = None,
    labelled: "Sequence[LabelledCase] | None" = None,
) -> "TffsEngine":
    """Pseudo-label every unlabelled case without training (SSL-MedSAM2, Algorithm 2).

    Every slice goes through the image encoder once: labelled cases first, then each unlabelled case in turn. What is
    drawn at random depends on (seed, case, labelled case, class) only, so neither order nor resuming changes a result.

    Args:
        cohort: At least one labelled and one unlabelled case, checked before (:func:`check_cohort`).
        model: From :func:`SSLSegLib.weights.loading.load_sam2`.
        options: R, threshold, precision and so on.
        seed: From which all insertion positions follow.
        sink: Given each pseudo-label the moment it is ready.
        progress: Hears stages, tracked frames and results.
        skip: Ids of unlabelled cases that are finished already.
        scratch: Folder for the image features of labelled cases; in memory without it.
        case_scratch: Folder for those of the unlabelled case in hand; in memory without it.
        engine: One that has been used before, with the same model and options.
        labelled: The labelled cases as :func:`encode_labelled` gave them before with that engine.

    Returns:
        The engine, whose counts say how much was computed.

    Raises:
        SSLSegError: A case cannot be read, or no labelled case shows any class.
    """
    from SSLSegLib.tffs.engine import TffsEngine

    cohort.require(labelled=1, unlabelled=1)
    engine = engine or TffsEngine(model.model, options, model.device)
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    if not waiting:
        return engine
    if labelled is None:
        labelled = encode_labelled(engine, cohort, cohort.labelled, model.image_size, progress, scratch)
    tracking = Tracking(progress, cohort, waiting, [labelled] * len(waiting), options.insertions)
    for case in waiting:
        began = time.monotonic()
        image = encode(engine, cohort, case, model.image_size, tracking.encoding(case), case_scratch)
        sink(segment_case(engine, cohort, case, image, labelled, model, options, seed, tracking))
        progress("result", case=case.id, seconds=round(time.monotonic() - began, 2))
    return engine


def ensemble(
    engine: "TffsEngine",
    case_id: str,
    image: "EncodedImage",
    segment: SegmentClass,
    labelled: Sequence["LabelledCase"],
    *,
    seed: int,
    insertions: int,
    progress: Progress = silent,
    place: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2 for one class of one case: the mean over R x M insertions, and the variance between them.

    Labelled cases that do not show the class are left out, and the mean is over those used.

    Args:
        place: Prior that the network is told, (K, J, I); only for weights that were trained to be told.

    Returns:
        Mean and variance of the probability, float32 (K, J, I) each; zero where no labelled case shows the class.
    """
    from SSLSegLib.tffs.ensemble import ProbabilitySums
    from SSLSegLib.tffs.positions import insertion_positions

    slices, in_plane = image.geometry.shape[0], tuple(image.geometry.shape[1:])
    sums = ProbabilitySums(slices, in_plane, engine.device)  # line 1
    for each in labelled:  # line 2
        template = each.template(engine, segment, in_plane)
        if template is None:
            continue
        positions = insertion_positions(seed, case_id, each.case.id, segment.name, slices, insertions)  # line 3
        engine.propagate(image.features, template, positions, in_plane, sums, progress, place=place)  # lines 4 to 7
    return sums.mean, sums.variance  # line 9


def segment_case(
    engine: "TffsEngine",
    cohort: Cohort,
    case: Case,
    image: EncodedImage,
    labelled: Sequence[LabelledCase],
    model: "LoadedSam2",
    options: TffsOptions,
    seed: int,
    tracking: "Tracking",
) -> "PseudoLabel":
    """All classes of one case, each on its own; then threshold, merge, largest component, uncertainty (line 10).

    Where a class lies in the labelled cases is told to the network, averaged with its answer, or left out
    (:func:`~SSLSegLib.tffs.place.use_of_place`).
    """
    from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
    from SSLSegLib.tffs.place import use_of_place, with_place

    use = use_of_place(options.place, model.configuration)
    probability, variance = [], []
    for segment in cohort.classes:
        if not any(each.shows(segment) for each in labelled):
            tracking.progress("warning", message=f"No labelled case shows '{segment.name}'.", case=case.id)
        place = _place(labelled, segment, image.geometry) if use else None
        mean, between = ensemble(
            engine,
            case.id,
            image,
            segment,
            labelled,
            seed=seed,
            insertions=options.insertions,
            progress=tracking.tracking(case),
            place=place if use == "told" else None,
        )
        if use == "averaged" and place is not None:
            mean = with_place(mean, place)
        probability.append(mean)
        variance.append(between)
    return build_pseudo_label(
        case.id,
        np.stack(probability),
        image.geometry,
        cohort.classes,
        variance=np.stack(variance),
        threshold=options.threshold,
        largest_component=options.largest_component,
        provenance=make_provenance(
            METHOD,
            seed=seed,
            labelled=[each.case.id for each in labelled],
            options=options.model_dump(mode="json") | {"place": use},
            weights=model.name,
            weights_sha256=model.sha256,
        ),
    )


def _place(labelled: Sequence[LabelledCase], segment: SegmentClass, geometry: "Geometry") -> np.ndarray | None:
    """How often a class lies at each voxel in the labelled cases, (K, J, I); None where none of them shows it.

    By relative position along anatomical axes: a scan may be stored turned round, and still show what the others show.
    """
    from SSLSegLib.tffs.place import place_prior

    orientation = geometry.orientation
    masks = [
        each.geometry.reoriented((each.label == segment.value).astype(np.uint8), orientation).astype(bool)
        for each in labelled
        if each.shows(segment)
    ]
    return place_prior(masks, geometry.shape) if masks else None
