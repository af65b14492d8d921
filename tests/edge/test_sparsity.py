"""Masks and clusters: exact numbers, and subspaces that steps and averages do not leave."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from fedsys.edge.tuning.sparsity import centroids, magnitude_mask, nearest, subspace

KERNELS = arrays(
    np.float32, st.tuples(st.integers(1, 4), st.integers(2, 6)), elements=st.floats(-2, 2, width=16)
)


def projected(space, weights):
    return np.asarray(space.project(np.asarray(weights, np.float32)))


def test_the_smallest_weights_are_masked():
    weights = np.array([[0.1, -3.0], [2.0, -0.2]])
    assert magnitude_mask(weights, 0.5).tolist() == [[0, 1], [1, 0]]
    assert magnitude_mask(weights, 0.51).tolist() == [[0, 1], [0, 0]]  # at least so many
    assert magnitude_mask(np.ones((2, 2)), 0.25).tolist() == [[0, 1], [1, 1]]


def test_centroids_settle_in_the_middle_of_their_values():
    values = np.array([0.0, 0.2, 10.0, 10.4, -5.0])
    assert centroids(values, 3) == pytest.approx([-5.0, 0.1, 10.2])
    assert centroids(values, 200) == pytest.approx(np.sort(values))  # no more than there are
    assert nearest(np.array([9.0, -9.0, 0.3]), centroids(values, 3)).tolist() == [2, 0, 1]


def test_a_projection_is_the_least_squares_fit_by_hand():
    weights = np.array([[1.0, 4.0], [0.5, -4.0], [0.9, 0.1]], np.float32)
    space = subspace(weights, -1, None, 2)
    assert space.scale.tolist() == [[1.0, 4.0]]
    gradient = np.arange(6, dtype=np.float32).reshape(3, 2)
    expected = np.zeros((3, 2))
    for number in range(space.clusters):
        own = space.member == number
        scale = np.broadcast_to(space.scale, own.shape)[own].astype(np.float64)
        value, *_ = np.linalg.lstsq(scale[:, None], gradient[own].astype(np.float64), rcond=None)
        expected[own] = scale * value[0]
    assert projected(space, gradient) == pytest.approx(expected, abs=1e-6)


@settings(deadline=None, max_examples=40)
@given(KERNELS, st.sampled_from([None, 0.3, 0.75]), st.sampled_from([None, 2, 5]), st.booleans())
def test_averages_of_what_lies_inside_lie_inside(weights, prune, cluster, channels):
    space = subspace(weights, -1 if channels else None, prune, cluster)
    rng = np.random.default_rng(0)
    inside = [projected(space, weights + rng.normal(size=weights.shape)) for _ in range(3)]
    mean = 0.2 * inside[0] + 0.5 * inside[1] + 0.3 * inside[2]
    assert projected(space, mean) == pytest.approx(mean, abs=1e-5)
    if prune is not None:
        assert (mean == 0).sum() >= prune * weights.size
    if cluster is not None:
        # The same number in every channel, but for the channel's scale.
        values = np.unique(np.round(mean / space.scale, 4))
        assert len(values) <= cluster


@settings(deadline=None, max_examples=20)
@given(KERNELS)
def test_clusters_as_many_as_weights_change_nothing(weights):
    space = subspace(weights, None, None, 255)
    peak = max(1.0, float(np.abs(weights).max()))
    assert projected(space, weights) == pytest.approx(weights, abs=peak * 2 / 255)
