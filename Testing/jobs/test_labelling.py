"""What jobs that label a cohort share: parameters that written manifests fit, and cases counted and kept once."""

import numpy as np
import pytest

from SSLSegLib.cases.geometry import Geometry
from SSLSegLib.jobs.folder import Job
from SSLSegLib.jobs.kinds import job_kind
from SSLSegLib.jobs.labelling import CohortParameters, Labelling
from SSLSegLib.jobs.manifest import Manifest
from SSLSegLib.pseudolabels.label import build_pseudo_label
from SSLSegLib.pseudolabels.storage import load_pseudo_label

TFFS = ["cohort", "weights", "options", "device", "threads", "report", "scene"]
VESSA = ["cohort", "bank", "bank_fingerprint", "model", "language", "sam2", "dino", "options"]
VESSA += ["device", "threads", "report", "scene"]
UNIMATCH = ["cohort", "options", "guide", "sam2", "devices", "threads", "workers", "test_cases", "report", "scene"]


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("tffs", TFFS),
        ("expect", TFFS),
        ("ssl-medsam2", [*TFFS, "training", "baseline"]),
        ("unimatch", UNIMATCH),
        ("vessa", VESSA),
        ("vessa-unimatch", [*VESSA, "training"]),
    ],
)
def test_parameters_stand_in_the_order_of_the_manifests_that_have_been_written(kind, fields):
    parameters = job_kind(kind).parameters
    assert issubclass(parameters, CohortParameters)
    assert list(parameters.model_fields) == fields


class Told(list):
    """A listener that writes down how many cases are done."""

    def __call__(self, event, **fields):
        if event == "cases":
            self.append((fields["done"], fields["total"]))


def test_a_result_is_dated_like_the_manifest_and_its_case_counted_once(tmp_path, small_cohort):
    manifest = Manifest(kind="tffs", parameters={"cohort": small_cohort.to_dict(), "weights": "any"})
    job, told = Job.create(tmp_path / "job", manifest), Told()
    labelling = Labelling(job, small_cohort, small_cohort.unlabelled, told)
    first, second = (case.id for case in small_cohort.unlabelled)
    assert labelling.finished() == []
    probability = np.full((1, 2, 3, 4), 0.75, np.float32)
    label = build_pseudo_label(second, probability, Geometry((2, 3, 4), np.eye(4)), small_cohort.classes)
    labelling.keep(label)
    labelling.count(second)
    assert told == [(1, 2), (1, 2)]
    assert labelling.finished() == [second]
    assert [case.id for case in labelling.waiting()] == [first]
    kept = load_pseudo_label(job.result_folder(second))
    assert kept.provenance["date"] == manifest.created
    assert Labelling(job, small_cohort, small_cohort.unlabelled, told).finished() == [second], (
        "as a resumed run sees it"
    )


@pytest.fixture
def small_cohort():
    from SSLSegLib.cases.classes import SegmentClass
    from SSLSegLib.cases.cohort import Case, Cohort

    cases = [Case(id="a", role="labelled", images=("a.nii.gz",), label="l.nii.gz")]
    cases += [Case(id=name, role="unlabelled", images=(f"{name}.nii.gz",)) for name in ("b", "c")]
    return Cohort(name="three", classes=(SegmentClass(value=1, name="one", color=(1, 2, 3)),), cases=tuple(cases))
