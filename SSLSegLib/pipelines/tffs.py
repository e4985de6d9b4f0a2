"""TFFS-MedSAM2: pseudo-labels without training (paper 1, Algorithm 2)."""

import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from SSLSegLib.cases.classes import SegmentClass
from SSLSegLib.cases.cohort import Cohort
from SSLSegLib.pipelines.encoding import EncodedCase, LabelledCase, encode_labelled
from SSLSegLib.pipelines.place import ClassPlace, class_places
from SSLSegLib.pipelines.tracking import Tracking
from SSLSegLib.progress import Progress, silent
from SSLSegLib.tffs.options import TffsOptions

if TYPE_CHECKING:
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

    Every slice goes through the image encoder once (once for each class where frames show the class's region): labelled
    cases first, then each unlabelled case in turn. What is drawn at random depends on (seed, case, labelled case,
    class) only, so neither order nor resuming changes a result.

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
    from SSLSegLib.cases.reading import read_geometry
    from SSLSegLib.tffs.engine import TffsEngine

    cohort.require(labelled=1, unlabelled=1)
    engine = engine or TffsEngine(model.model, options, model.device)
    waiting = [case for case in cohort.unlabelled if case.id not in skip]
    if not waiting:
        return engine
    if labelled is None:
        labelled = encode_labelled(engine, cohort, cohort.labelled, model, progress, scratch)
    tracking = Tracking(progress, cohort, waiting, [labelled] * len(waiting), options.insertions)
    for case in waiting:
        began = time.monotonic()
        image = EncodedCase(engine, cohort, case, model.image_size, read_geometry(cohort, case), case_scratch)
        sink(segment_case(engine, cohort, image, labelled, model, options, seed, tracking))
        progress("result", case=case.id, seconds=round(time.monotonic() - began, 2))
    return engine


def ensemble(
    engine: "TffsEngine",
    image: "EncodedCase",
    segment: SegmentClass,
    labelled: Sequence["LabelledCase"],
    where: ClassPlace,
    *,
    seed: int,
    told: bool,
    tracking: "Tracking",
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 2 for one class of one case: the mean over R x M insertions, and the variance between them.

    Labelled cases that do not show the class are left out, and the mean is over those used.

    Args:
        where: The place of the class: which region the frames show.
        told: The network is told it; only for weights that were trained to be told.

    Returns:
        Mean and variance of the probability, float32 (K, J, I) each; zero outside the region.
    """
    from SSLSegLib.tffs.ensemble import ProbabilitySums
    from SSLSegLib.tffs.positions import insertion_positions

    slices, *plane = image.geometry.shape
    region = where.region(image.geometry)
    rows, columns = region.of(tuple(plane))
    in_plane = rows.stop - rows.start, columns.stop - columns.start
    features = image.features(region, tracking.encoding(image.case))
    place = where.prior(image.geometry) if told else None
    progress = tracking.tracking(image.case)
    sums = ProbabilitySums(slices, in_plane, engine.device)  # line 1
    for each in labelled:  # line 2
        template = each.template(engine, segment, where.region(each.geometry), in_plane)
        if template is None:
            continue
        insertions = engine.options.insertions
        positions = insertion_positions(seed, image.case.id, each.case.id, segment.name, slices, insertions)  # line 3
        engine.propagate(features, template, positions, in_plane, sums, progress, place=place)  # lines 4 to 7
    mean, variance = np.zeros((2, slices, *plane), np.float32)
    mean[:, rows, columns], variance[:, rows, columns] = sums.mean, sums.variance  # line 9
    return mean, variance


def segment_case(
    engine: "TffsEngine",
    cohort: Cohort,
    image: EncodedCase,
    labelled: Sequence[LabelledCase],
    model: "LoadedSam2",
    options: TffsOptions,
    seed: int,
    tracking: "Tracking",
) -> "PseudoLabel":
    """All classes of one case, each on its own; then threshold, merge, largest component, uncertainty (line 10).

    Where a class lies in the labelled cases is told to the network, which then sees frames of that region; or averaged
    with its answer; or left out (:func:`~SSLSegLib.tffs.place.use_of_place`).
    """
    from SSLSegLib.pseudolabels.label import build_pseudo_label, make_provenance
    from SSLSegLib.tffs.place import use_of_place, with_place
    from SSLSegLib.tffs.region import CUT, share_at_edge

    use = use_of_place(options.place, model.configuration)
    places = class_places(labelled, cohort.classes, options, model)
    for each in labelled:
        each.encode((where.region(each.geometry) for where in places.values()), tracking.encoding(image.case))
    probability = np.zeros((len(cohort.classes), *image.geometry.shape), np.float32)
    variance = np.zeros_like(probability)
    for number, segment in enumerate(cohort.classes):
        where = places.get(segment.name)
        if where is None:
            tracking.progress("warning", message=f"No labelled case shows '{segment.name}'.", case=image.case.id)
            continue
        probability[number], variance[number] = ensemble(
            engine, image, segment, labelled, where, seed=seed, told=use == "told", tracking=tracking
        )
        if use == "averaged":
            probability[number] = with_place(probability[number], where.prior(image.geometry))
    regions = {name: where.region(image.geometry).shares for name, where in places.items()} if use == "told" else None
    label = build_pseudo_label(
        image.case.id,
        probability,
        image.geometry,
        cohort.classes,
        variance=variance,
        threshold=options.threshold,
        largest_component=options.largest_component,
        provenance=make_provenance(
            METHOD,
            seed=seed,
            labelled=[each.case.id for each in labelled],
            options=options.model_dump(mode="json") | {"place": use, "regions": regions},
            weights=model.name,
            weights_sha256=model.sha256,
        ),
    )
    for segment in cohort.classes:
        where = places.get(segment.name)
        if where and share_at_edge(label.mask == segment.value, where.region(image.geometry)) > CUT:
            tracking.progress(
                "warning",
                message=f"'{segment.name}' reaches the edge of the region where the labelled scans show it: it may be "
                "cut there. Look at it, or run again without its place (--no-place).",
                case=image.case.id,
            )
    return label
