"""Running sums give the mean and the variance of the runs."""

import numpy as np
import torch

from SSLSegLib.tffs.ensemble import ProbabilitySums


def test_mean_and_variance_equal_those_of_the_stacked_runs():
    runs = torch.rand(7, 5, 4, 3, generator=torch.Generator().manual_seed(0))
    sums = ProbabilitySums(5, (4, 3))
    for run in runs:
        for index in (3, 0, 1, 4, 2):
            sums.add_slices([index], run[index : index + 1])
        sums.count += 1
    np.testing.assert_allclose(sums.mean, runs.mean(dim=0), rtol=1e-5)
    np.testing.assert_allclose(sums.variance, runs.var(dim=0, unbiased=False), atol=1e-6)


def test_several_chains_at_one_slice_all_count():
    sums = ProbabilitySums(3, (2, 2))
    sums.add_slices([1, 1, 2], torch.tensor([0.25, 0.5, 1.0])[:, None, None].expand(3, 2, 2))
    assert sums.total[:, 0, 0].tolist() == [0.0, 0.75, 1.0]
    assert sums.total_squared[:, 0, 0].tolist() == [0.0, 0.3125, 1.0]


def test_sums_of_parts_add_up():
    parts = [ProbabilitySums(1, (1, 1)) for _ in range(2)]
    for part, value in zip(parts, (0.2, 0.6), strict=True):
        part.add_slices([0], torch.full((1, 1, 1), value))
        part.count = 1
    parts[0].add(parts[1])
    assert parts[0].count == 2
    np.testing.assert_allclose(parts[0].mean, 0.4, rtol=1e-6)
    np.testing.assert_allclose(parts[0].variance, 0.04, rtol=1e-5)


def test_nothing_added_is_probability_zero():
    empty = ProbabilitySums(2, (3, 4))
    assert empty.mean.shape == empty.variance.shape == (2, 3, 4)
    assert not empty.mean.any()
    assert not empty.variance.any()
