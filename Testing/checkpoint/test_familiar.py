"""Phantom abdomens in training: the cohorts' own kind, never their subjects."""

import numpy as np
import torch

from SSLSegLib.cases.phantoms import make_phantom
from SSLSegLib.checkpoint.familiar import PhantomPool


def test_samples_are_of_two_subjects_that_no_cohort_holds():
    pool = PhantomPool(first=2, renewal=0.0)
    rng = np.random.default_rng(0)
    images, masks, distance, classes, known, run = pool.sample(rng, targets=2, labelled=4, chain=3)
    assert [x.shape for x in images] == [(4, 80, 96), (3, 80, 96)]
    assert [x.shape for x in masks] == [(2, 4, 80, 96), (2, 3, 80, 96)]
    assert masks[0][0].any()  # the leading target is on a labelled slice
    assert distance.shape == (4,)
    assert [x.shape for x in known] == [(2, len(known[0][0]), 80, 96)]
    assert known[0][0].any()
    assert run.shape == (3,)
    assert run.max() < len(known[0][0])
    assert all(torch.unique(some[mask.any(0)]).gt(0).all() for some, mask in zip(classes, masks, strict=True))
    assert (distance >= 1).all()
    assert len(pool.subjects) == 2
    assert not torch.equal(pool.subjects[0][0], pool.subjects[1][0])
    pool.sample(rng, targets=1, labelled=2, chain=2)
    assert len(pool.subjects) == 2  # reused
    cohort_image = torch.from_numpy(make_phantom(42, 0)[0].array[0])
    assert not any(torch.equal(cohort_image, image) for image, _ in pool.subjects)
