import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny import make_cohort, truth_of

from SSLSegLib.checkpoint.configuration import small_configuration
from SSLSegLib.errors import CaseError
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.pseudolabels.storage import save_pseudo_label
from SSLSegLib.tffs.reference import mild_weights
from SSLSegLib.unimatch.guides import (
    GuideRequest,
    Sam2Guide,
    StoredGuide,
    pseudo_label_maps,
    with_background,
)
from SSLSegLib.unimatch.options import Prompting
from SSLSegLib.weights.sam2_model import build_sam2

SIDE, SAM = 32, 64


@pytest.fixture(scope="module")
def sam2() -> torch.nn.Module:
    """A real, very small SAM2 with random weights under which nothing is degenerate."""
    model = build_sam2(small_configuration(image_size=SAM, hidden=32, memory=16, trunk=16, stages=(1, 1, 1, 1)))
    mild_weights(model, 0)
    with torch.no_grad():
        model.sam_mask_decoder.pred_obj_score_head.layers[-1].bias.fill_(20.0)  # every object is said to be there
    return model


def request(*, images: torch.Tensor | None = None, fraction: float = 0.5) -> GuideRequest:
    """Two views: the first holds classes 1 and 2, the second class 1 only."""
    prediction = torch.full((2, 3, SIDE, SIDE), 0.05)
    prediction[:, 0] = 0.9
    for image, value, rows, columns in ((0, 1, (4, 12), (3, 20)), (0, 2, (18, 30), (10, 22)), (1, 1, (8, 25), (9, 28))):
        prediction[image, :, rows[0] : rows[1], columns[0] : columns[1]] = 0.1
        prediction[image, value, rows[0] : rows[1], columns[0] : columns[1]] = 0.8
    if images is None:
        images = torch.randint(
            0, 256, (2, SIDE, SIDE, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
        )
    return GuideRequest(images, prediction, None, fraction, np.random.default_rng(0))


def plain_answer(model, asked: GuideRequest, image: int, value: int, forms: tuple[str, ...]) -> torch.Tensor:
    """One view and class by the prompt encoder and mask decoder, as SAM2's image predictor uses them."""
    picture = asked.images[image : image + 1].permute(0, 3, 1, 2).float() / 255
    picture = F.interpolate(picture, (SAM, SAM), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
    mean, deviation = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    with torch.no_grad():
        levels = model.forward_image((picture - mean[:, None, None]) / deviation[:, None, None])["backbone_fpn"]
        embedding = levels[-1] + model.no_mem_embed.view(1, -1, 1, 1)
        mask = asked.prediction[image].argmax(0) == value
        points = None
        if "box" in forms:
            rows, columns = mask.any(1).nonzero().flatten(), mask.any(0).nonzero().flatten()
            corners = torch.tensor([[columns[0], rows[0]], [columns[-1] + 1, rows[-1] + 1]]).float() * SAM / SIDE
            points = (corners[None], torch.tensor([[2, 3]], dtype=torch.int32))
        else:
            points = (torch.zeros(1, 1, 2), -torch.ones(1, 1, dtype=torch.int32))
        logits = torch.logit(asked.prediction[image, value])[None, None] if "mask" in forms else None
        if logits is not None:
            size = model.sam_prompt_encoder.mask_input_size
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False, antialias=True)
        sparse, dense = model.sam_prompt_encoder(points=points, boxes=None, masks=logits)
        low, *_ = model.sam_mask_decoder(
            image_embeddings=embedding,
            image_pe=model.sam_prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=False,
            repeat_image=False,
            high_res_features=levels[:2],
        )
    return F.interpolate(low, (SIDE, SIDE), mode="bilinear", align_corners=False)[0, 0].sigmoid()


@pytest.mark.parametrize("forms", [("mask",), ("box",), ("mask", "box")])
def test_sam2_answers_all_views_and_classes_at_once_as_one_by_one(sam2, forms):
    asked = request()
    answer = Sam2Guide(sam2, Prompting(forms=forms, jitter=0.0))(asked)
    binary = {(0, 1): None, (0, 2): None, (1, 1): None}
    for image, value in binary:
        binary[image, value] = plain_answer(sam2, asked, image, value, forms)
    assert torch.stack(list(binary.values())).std() > 1e-3
    for image in range(2):
        classes = torch.stack([binary.get((image, value), torch.zeros(SIDE, SIDE)) for value in (1, 2)])
        torch.testing.assert_close(answer[image], with_background(classes[None])[0], atol=1e-5, rtol=1e-4)


def test_a_class_that_the_prediction_lacks_is_absent_in_the_answer(sam2):
    assert Sam2Guide(sam2)(request())[1, 2].max() < 1e-5


def test_where_nothing_is_found_the_answer_is_background(sam2):
    asked = request()
    asked.prediction[:] = torch.tensor([0.8, 0.1, 0.1])[None, :, None, None]
    assert (Sam2Guide(sam2)(asked).argmax(1) == 0).all()


def test_sam2_stays_silent_before_its_start(sam2):
    guide = Sam2Guide(sam2, Prompting(start=0.25))
    assert guide(request(fraction=0.2)) is None
    assert guide(request(fraction=0.25)) is not None


def test_every_form_of_prompt_and_the_image_change_the_answer(sam2):
    def answer(*forms: str, points: int = 1, images: torch.Tensor | None = None) -> torch.Tensor:
        return Sam2Guide(sam2, Prompting(forms=forms, points=points, jitter=0.0))(request(images=images))

    answers = [answer("mask"), answer("box"), answer("points"), answer("points", points=3), answer("mask", "points")]
    answers.append(answer("mask", images=torch.zeros(2, SIDE, SIDE, 3, dtype=torch.uint8)))
    for index, one in enumerate(answers):
        for other in answers[index + 1 :]:
            assert (one - other).abs().max() > 1e-4


def test_boxes_enclose_the_largest_component_and_points_lie_inside(sam2):
    mask = np.zeros((SIDE, SIDE), bool)
    mask[5:20, 10:26] = True
    mask[28:30, 2:4] = True
    guide = Sam2Guide(sam2, Prompting(forms=("box", "points"), points=3, jitter=0.0))
    inputs = guide._points([mask], np.random.default_rng(0), torch.zeros(1, SIDE, SIDE))
    places, kinds = inputs["point_coords"][0] * SIDE / SAM, inputs["point_labels"][0]
    assert kinds.tolist() == [2, 3, 1, 1, 1]
    assert places[:2].tolist() == [[10, 5], [26, 20]]
    for x, y in places[2:].tolist():
        assert mask[int(y), int(x)]
        assert 5 <= y < 20
    shifted = Sam2Guide(sam2, Prompting(forms=("box",), jitter=0.1))._points(
        [mask], np.random.default_rng(0), torch.zeros(1, SIDE, SIDE)
    )["point_coords"][0]
    moved = (shifted * SIDE / SAM - places[:2]).abs()
    assert 0 < moved.max() <= 1.6


def test_background_wins_exactly_where_no_class_reaches_one_half():
    binary = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    full = with_background(binary)
    torch.testing.assert_close(full.sum(1), torch.ones(2, 8, 8))
    best, index = binary.max(1)
    assert torch.equal(full.argmax(1), torch.where(best > 0.5, index + 1, 0))
    torch.testing.assert_close(with_background(binary[:, :1])[:, 1], binary[:, 0])


def test_stored_probabilities_are_handed_on_and_nothing_where_there_are_none():
    asked = request()
    assert StoredGuide()(asked) is None
    stored = torch.rand(2, 2, SIDE, SIDE)
    given = GuideRequest(asked.images, asked.prediction, stored, 0.0, asked.rng)
    torch.testing.assert_close(StoredGuide()(given), with_background(stored))


def test_maps_of_a_job_are_read_and_those_of_others_refused(tmp_path):
    from SSLSegLib.cases.reading import read_geometry

    cohort = make_cohort(tmp_path / "cohort", labelled=1, unlabelled=2, test=0)
    one, other = cohort.unlabelled
    geometry = read_geometry(cohort, one)
    label = build_pseudo_label(one.id, 0.9 * truth_of(cohort, one), geometry, cohort.classes, largest_component=False)
    save_pseudo_label(tmp_path / "job" / "results" / "short-name", label, cohort.classes)
    maps = pseudo_label_maps(cohort, tmp_path / "job")
    np.testing.assert_allclose(maps(one, geometry), 0.9 * truth_of(cohort, one), atol=1e-5)
    with pytest.raises(CaseError, match="no whole pseudo-label"):
        maps(other, read_geometry(cohort, other))
    with pytest.raises(CaseError, match="geometry"):
        maps(one, read_geometry(cohort, other))
    fewer = cohort.model_copy(update={"classes": cohort.classes[:1]}).at(cohort.folder)
    with pytest.raises(CaseError, match="classes"):
        pseudo_label_maps(fewer, tmp_path / "job")(one, geometry)
