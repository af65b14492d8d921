"""Pruned and clustered weights as linear subspaces, which averages cannot leave.

A mask says which weights are zero; clusters say which are the same but for the scale of their
channel. Both are drawn once, by the server, from the global weights, and both leave a linear
subspace: weights = scale * value of their cluster, and zero where masked. If every client's steps
stay inside it, so does their weighted mean.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PASSES = 50
"""Most passes of Lloyd's algorithm; one-dimensional clusters settle sooner."""


@dataclass(frozen=True, eq=False)
class Subspace:
    """Where the weights of a kernel may lie.

    mask: [shape] float32 of ones and zeros, or None where nothing is pruned.
    member: [shape] int32, the cluster of each weight, or None where there are no clusters.
    scale: broadcasts to [shape], float32 above zero; the largest weight of each channel before
        the fine-tuning.
    clusters: how many there are, the one of zeros included.
    """

    mask: np.ndarray | None
    member: np.ndarray | None
    scale: np.ndarray
    clusters: int = 0

    def project(self, weights: Any) -> Any:
        """The nearest point of the subspace (least squares), by TensorFlow's operations.

        weights: [shape] float32, weights or a gradient, NumPy or TensorFlow.
        """
        import tensorflow as tf

        if self.mask is not None:
            weights = weights * self.mask
        if self.member is None:
            return weights
        # weights = scale * value: the best value of a cluster is sum(s * w) / sum(s * s).
        live = np.broadcast_to(self.scale, self.member.shape)
        live = live if self.mask is None else live * self.mask
        index, length = self.member.ravel(), self.clusters
        squares = np.bincount(index, (live * live).ravel().astype(np.float64), length)
        sums = tf.math.unsorted_segment_sum(tf.reshape(weights * live, [-1]), index, length)
        values = sums / np.where(squares > 0, squares, 1).astype(np.float32)
        return tf.reshape(tf.gather(values, index), self.member.shape) * live


def channel_scale(weights: np.ndarray, axis: int | None) -> np.ndarray:
    """The largest magnitude of each channel along `axis` (of all weights where it is None).

    Shaped to broadcast over the weights; one where all are zero.
    """
    kept = () if axis is None else (axis % weights.ndim,)
    others = tuple(i for i in range(weights.ndim) if i not in kept)
    peak = np.abs(weights).max(axis=others, keepdims=True)
    return np.where(peak > 0, peak, 1).astype(np.float32)


def subspace(
    weights: np.ndarray, axis: int | None, prune: float | None, cluster: int | None
) -> Subspace:
    """The subspace of a kernel, drawn from its weights.

    axis: of the channels that have scales of their own. prune: share of weights, the smallest
    magnitudes, that become zero. cluster: most values that weights over their scale may have,
    zero among them where some are pruned.
    """
    weights = np.asarray(weights, np.float32)
    scale = channel_scale(weights, axis)
    mask = None if prune is None else magnitude_mask(weights, prune)
    if cluster is None:
        return Subspace(mask, None, scale)
    relative = (weights / scale).astype(np.float64)
    member = np.zeros(weights.shape, np.int32)
    if mask is None:
        centres = centroids(relative.ravel(), cluster)
        member[...] = nearest(relative, centres)
        return Subspace(mask, member, scale, len(centres))
    live = mask > 0
    centres = centroids(relative[live], cluster - 1)
    member[live] = 1 + nearest(relative[live], centres)  # number 0 is that of the zeros
    return Subspace(mask, member, scale, 1 + len(centres))


def magnitude_mask(weights: np.ndarray, share: float) -> np.ndarray:
    """[shape] float32: zero for at least `share` of the weights, the smallest in magnitude.

    Of equal magnitudes the first go first, so every server draws the same.
    """
    mask = np.ones(weights.size, np.float32)
    smallest = np.argsort(np.abs(weights).ravel(), kind="stable")
    mask[smallest[: int(np.ceil(share * weights.size - 1e-9))]] = 0
    return mask.reshape(weights.shape)


def centroids(values: np.ndarray, clusters: int) -> np.ndarray:
    """At most `clusters` values, ascending, that the others lie near to.

    Lloyd's algorithm from values spread evenly between the least and the largest (the linear
    start of Han et al. 2016, section 3.2, which keeps a value near the rare large weights).
    values: [any number] float64.
    """
    if not len(values):
        return np.zeros(0)
    centres = np.unique(np.linspace(values.min(), values.max(), clusters))
    for _ in range(PASSES):
        member = nearest(values, centres)
        count = np.bincount(member, minlength=len(centres))
        total = np.bincount(member, values, len(centres))
        moved = (total / np.maximum(count, 1))[count > 0]
        if len(moved) == len(centres) and np.allclose(moved, centres, rtol=0, atol=1e-7):
            break
        centres = moved
    return centres


def nearest(values: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The number of the centre that each value is nearest to; centres ascend."""
    if not len(centres):
        return np.zeros(values.shape, np.int64)
    return np.searchsorted((centres[1:] + centres[:-1]) / 2, values)
