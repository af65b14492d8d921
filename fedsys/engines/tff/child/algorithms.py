"""Federated algorithms as TensorFlow Federated's own processes.

FedAvg, FedAvgM and FedSGD are TFF's `build_weighted_fed_avg` and `build_fed_sgd` with its own SGD
at client and server. Where TFF's formula is not the paper's, an optimizer within TFF's interface
says the paper's, and all else stays TFF's:

* FedAdam and FedYogi: TFF corrects the bias of the moments, which Reddi et al. 2021 do not.
* FedAdagrad: TFF divides by sqrt(s + epsilon), the paper by sqrt(s) + tau.
* FedProx: TFF's `build_weighted_fed_prox` adds -mu (w - anchor) to the gradient, which pushes
  away from the anchor. See `Proximal`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff


class Adaptive(tff.learning.optimizers.Optimizer):
    """Reddi et al. 2021, Algorithm 2, as a server's optimizer.

    first  <- beta1 first + (1 - beta1) delta
    second <- spread(second, delta^2), from tau^2
    w      <- w + rate first / (sqrt(second) + tau)

    A gradient is what TFF calls the negative of the clients' mean movement, delta.
    """

    def __init__(
        self, rate: float, beta1: float, tau: float, spread: Callable[[Any, Any], Any]
    ) -> None:
        self._rate, self._beta1, self._tau, self._spread = rate, beta1, tau, spread

    def initialize(self, specs: Any) -> Any:
        def filled(value: float) -> Any:
            return tf.nest.map_structure(lambda s: tf.fill(s.shape, tf.cast(value, s.dtype)), specs)

        return OrderedDict(first=filled(0.0), second=filled(self._tau**2))

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        def first_of(first: Any, gradient: Any) -> Any:
            return self._beta1 * first - (1 - self._beta1) * gradient

        def second_of(second: Any, gradient: Any) -> Any:
            return self._spread(second, gradient * gradient)

        def moved(weight: Any, first: Any, second: Any) -> Any:
            return weight + self._rate * first / (tf.sqrt(second) + self._tau)

        first = tf.nest.map_structure(first_of, state["first"], gradients)
        second = tf.nest.map_structure(second_of, state["second"], gradients)
        weights = tf.nest.map_structure(moved, weights, first, second)
        return OrderedDict(first=first, second=second), weights


class Proximal(tff.learning.optimizers.Optimizer):
    """FedProx as a client's optimizer: Li et al. 2020, Algorithm 2.

    Each gradient gains mu (w - anchor), where the anchor is what the weights were at the client's
    first step; `inner` takes the step. The sign is what TFF's own FedProx has wrong.
    """

    def __init__(self, mu: float, inner: Any) -> None:
        self._mu, self._inner = mu, inner

    def initialize(self, specs: Any) -> Any:
        anchor = tf.nest.map_structure(lambda s: tf.zeros(s.shape, s.dtype), specs)
        return OrderedDict(begun=False, anchor=anchor, inner=self._inner.initialize(specs))

    def next(self, state: Any, weights: Any, gradients: Any) -> tuple[Any, Any]:
        def begun_at(anchor: Any, weight: Any) -> Any:
            return tf.where(state["begun"], anchor, weight)

        def pulled(gradient: Any, weight: Any, at: Any) -> Any:
            return gradient + self._mu * (weight - at)

        anchor = tf.nest.map_structure(begun_at, state["anchor"], weights)
        gradients = tf.nest.map_structure(pulled, gradients, weights, anchor)
        inner, weights = self._inner.next(state["inner"], weights, gradients)
        return OrderedDict(begun=True, anchor=anchor, inner=inner), weights


class MeasuredMean(tff.aggregators.WeightedAggregationFactory):
    """TFF's weighted mean, which also tells what it came to and of how much weight.

    A round in which nobody counts has a mean of zero.
    """

    def create(self, value_type: Any, weight_type: Any) -> Any:
        mean = tff.aggregators.MeanFactory(no_nan_division=True).create(value_type, weight_type)

        @tff.federated_computation(
            mean.initialize.type_signature.result,
            tff.FederatedType(value_type, tff.CLIENTS),
            tff.FederatedType(weight_type, tff.CLIENTS),
        )
        def following(state: Any, value: Any, weight: Any) -> Any:
            given = mean.next(state, value, weight)
            told = OrderedDict(mean=given.result, weight=tff.federated_sum(weight))
            return tff.templates.MeasuredProcessOutput(
                given.state, given.result, tff.federated_zip(told)
            )

        return tff.templates.AggregationProcess(mean.initialize, following)


def _summed(second: Any, square: Any, beta2: float) -> Any:
    return second + square


def _averaged(second: Any, square: Any, beta2: float) -> Any:
    return beta2 * second + (1 - beta2) * square


def _towards(second: Any, square: Any, beta2: float) -> Any:
    return second - (1 - beta2) * square * tf.sign(second - square)


SPREADS = {"fedadagrad": _summed, "fedadam": _averaged, "fedyogi": _towards}
"""Strategy -> (second moment, square of delta, beta2) -> second moment."""


def server_optimizer(strategy: dict[str, Any], rate: float) -> Any:
    """The server's optimizer of a strategy. rate: that of its steps."""
    sgd = tff.learning.optimizers.build_sgdm
    name = strategy["name"]
    if name in SPREADS:
        spread = partial(SPREADS[name], beta2=strategy.get("beta2", 0.0))
        return Adaptive(rate, strategy["beta1"], strategy["tau"], spread)
    return sgd(rate, strategy.get("momentum") or None)


def client_optimizer(strategy: dict[str, Any], local: dict[str, Any]) -> Any:
    """The clients' optimizer: TFF's SGD, held near the anchor under FedProx."""
    sgd = tff.learning.optimizers.build_sgdm(local["rate"], local["momentum"] or None)
    if strategy["name"] == "fedprox" and strategy["mu"]:
        return Proximal(strategy["mu"], sgd)
    return sgd


def process(job: dict[str, Any], model: Callable[[], Any]) -> Any:
    """The learning process of a job."""
    strategy, local = job["strategy"], job["local"]
    if strategy["name"] == "fedsgd":
        # TFF's clients send gradients, the server steps; ours send how far a step moved them.
        return tff.learning.algorithms.build_fed_sgd(
            model,
            server_optimizer(strategy, strategy["rate"] * local["rate"]),
            model_aggregator=MeasuredMean(),
        )
    weighting = tff.learning.ClientWeighting
    return tff.learning.algorithms.build_weighted_fed_avg(
        model,
        client_optimizer(strategy, local),
        server_optimizer(strategy, strategy["rate"]),
        client_weighting=weighting.UNIFORM if job["uniform"] else weighting.NUM_EXAMPLES,
        model_aggregator=MeasuredMean(),
    )


MOMENTS = (("first", "first", 1), ("second", "second", 1))
KEPT: dict[str, tuple[tuple[str, str, int], ...]] = {
    "fedavgm": (("velocity", "accumulator", -1),),
    "fedadagrad": MOMENTS,
    "fedadam": MOMENTS,
    "fedyogi": MOMENTS,
}
"""Strategy -> (name in fedsys' server state, name in TFF's finalizer, sign) of what it keeps."""


def split(vector: np.ndarray, like: Any) -> Any:
    """A vector as the tensors of a structure."""
    tensors, low = [], 0
    for tensor in tf.nest.flatten(like):
        size = int(np.prod(tensor.shape))
        tensors.append(vector[low : low + size].reshape(tensor.shape))
        low += size
    return tf.nest.pack_sequence_as(like, tensors)


def joined(tensors: Any) -> np.ndarray:
    """The tensors of a structure as one vector."""
    return np.concatenate([np.ravel(tensor) for tensor in tf.nest.flatten(tensors)])


def moved(mean: Any, job: dict[str, Any]) -> np.ndarray:
    """How far clients moved on average: TFF's clients send the opposite, and in FedSGD the
    gradient of one step."""
    step = job["local"]["rate"] if job["strategy"]["name"] == "fedsgd" else 1.0
    return (-step * joined(mean)).astype(np.float32)


def filled(begun: Any, strategy: dict[str, Any], vectors: dict[str, np.ndarray]) -> Any:
    """A process' first state with the vectors of fedsys' server state in it."""
    weights = begun.global_model_weights
    weights = weights._replace(trainable=split(vectors["weights"], weights.trainable))
    finalizer = OrderedDict(begun.finalizer)
    for ours, theirs, sign in _kept(strategy, finalizer):
        finalizer[theirs] = split(sign * vectors[ours], finalizer[theirs])
    return begun._replace(global_model_weights=weights, finalizer=finalizer)


def read(state: Any, strategy: dict[str, Any], movement: np.ndarray) -> dict[str, np.ndarray]:
    """The vectors of fedsys' server state in a process' state, after a mean `movement`."""
    vectors = {"weights": joined(state.global_model_weights.trainable)}
    if strategy["name"] == "fedavgm":
        vectors["velocity"] = movement  # without momentum, TFF keeps none
    for ours, theirs, sign in _kept(strategy, state.finalizer):
        vectors[ours] = sign * joined(state.finalizer[theirs])
    return vectors


def _kept(strategy: dict[str, Any], finalizer: Any) -> list[tuple[str, str, int]]:
    return [each for each in KEPT.get(strategy["name"], ()) if each[1] in finalizer]
