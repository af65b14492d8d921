"""Fine-tuning over clients in a process of its own: what `qat.fine_tune_rows` calls there.

The server's part and the clients' parts are kept apart, although they run in one process: a client
reads global weights and ranges and its own rows, and gives back weights, a loss and ranges.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.edge.tuning import legacy, qat_graph
from fedsys.edge.tuning.qat_graph import Graph
from fedsys.edge.tuning.sparsity import Subspace, subspace
from fedsys.errors import DataError, ExportError, TrainingError
from fedsys.local import Local
from fedsys.partition import Partition
from fedsys.plan import draw_plan
from fedsys.randomness import Purpose, hashed
from fedsys.rounds import draw_cohort


@dataclass(frozen=True, eq=False)
class Federation:
    """Rows of all clients and how they are used. rows: [rows, ...] float32."""

    rows: np.ndarray
    labels: np.ndarray
    partition: Partition
    local: Local
    rounds: int
    cohort: int
    seed: int


@dataclass(frozen=True, eq=False)
class Compiled:
    """The three things that are done to rows, each one function of the graph.

    step: (rows, labels) -> loss, and the weights move. measure: rows -> the ranges widen.
    """

    step: Callable[[Any, Any], Any]
    measure: Callable[[Any], Any]


def fine_tune(
    keras_file: Path,
    rows: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    start: np.ndarray,
    objective: str,
    qat: bool,
    prune: float | None,
    cluster: int | None,
    ranges: str,
    rounds: int,
    cohort: int,
    epochs: int,
    batch: int,
    rate: float,
    seed: int,
    progress: Path,
) -> dict[str, Any]:
    """What `qat.fine_tune_rows` says; returns {"tflite", "keras", "report"}.

    progress: a file that lines are added to.
    """
    import tf_keras

    source = _load(keras_file)
    tf_keras.utils.set_random_seed(int(hashed(seed, Purpose.MODEL)) % 2**31)
    translated = legacy.translate(source)
    shape = _check(translated.model, rows, labels, objective)
    graph = qat_graph.wrap(translated)
    spaces = _sparse(graph, prune, cluster)
    federation = Federation(
        np.ascontiguousarray(rows, np.float32),
        labels,
        Partition(order, start),
        Local(epochs=epochs, batch=batch, rate=rate),
        rounds,
        cohort,
        seed,
    )
    trained = ("fixed" if ranges == "measured" else "moving") if qat else "float"
    compiled = _compile(graph, spaces, objective, rate, trained)
    if ranges != "cold":
        _measure_all(graph, compiled, federation)
    told = []
    with open(progress, "a", encoding="utf-8") as lines:
        for line in _rounds(graph, compiled, spaces, federation, ranges, qat):
            told.append(line)
            lines.write(f"round {line['round']}/{rounds}: loss {line['loss']:.4f}\n")
            lines.flush()
    if rounds and ranges != "cold" and (ranges == "measured" or not qat):
        _measure_all(graph, compiled, federation)
    graph.write_ranges(qat_graph.widened(graph.read_ranges()))
    report = {
        "method": {"qat": qat, "prune": prune, "cluster": cluster, "ranges": ranges},
        "rounds": told,
        "ranges": dict(zip(graph.ranges, graph.read_ranges().tolist(), strict=True)),
        "kernels": _kernels(graph, spaces),
        "payload": _payload(graph),
    }
    return {
        "tflite": qat_graph.convert(graph, shape, _ends(source)),
        "keras": _keras_bytes(source, translated, graph),
        "report": report,
    }


def _load(keras_file: Path) -> Any:
    """The Keras 3 model of a file. DataError in one line where it is none."""
    import keras

    try:
        return keras.saving.load_model(keras_file, compile=False)
    except Exception as error:  # Keras raises many kinds for a file that is not whole
        said = str(error).strip().splitlines() or [type(error).__name__]
        raise DataError(f"{keras_file}: not a Keras model that can be read: {said[0]}") from error


def _ends(source: Any) -> tuple[list[str], list[str]]:
    """What the file calls its input and its output: the input's name, the last layer's."""
    return [source.inputs[0].name], [source.outputs[0]._keras_history.operation.name]


def _check(model: Any, rows: np.ndarray, labels: np.ndarray, objective: str) -> tuple[int, ...]:
    """The shape of a row. Raises where the rows or the labels do not fit the model."""
    from fedsys.objectives import objective as known

    if len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ExportError(
            f"the model has {len(model.inputs)} inputs and {len(model.outputs)} outputs: "
            "fine-tuning needs one of each; quantise after training (--method int8)"
        )
    shape = tuple(model.inputs[0].shape[1:])
    if rows.shape[1:] != shape:
        raise DataError(f"rows have shape {rows.shape[1:]} but the model takes {shape}")
    known(objective).fits(tuple(model.outputs[0].shape), labels)
    return shape


def _sparse(graph: Graph, prune: float | None, cluster: int | None) -> dict[Any, Subspace]:
    """Draws the server's masks and clusters and moves the kernels to them."""
    if prune is None and cluster is None:
        return {}
    spaces = {}
    for key, kernels in graph.kernels.items():
        variable = graph.trainable[key]
        weights = variable.numpy()
        # A depthwise kernel's channels lie along two dimensions; a multiplier is rarely above 1.
        axis = None if not kernels.across else -2 if kernels.depthwise else -1
        if kernels.depthwise and cluster is not None and weights.shape[3] != 1:
            raise ExportError(
                f"layer {key[0]!r} has a depth multiplier of {weights.shape[3]}: "
                "clusters need a multiplier of 1"
            )
        spaces[key] = subspace(weights, axis, prune, cluster)
        if cluster is not None:
            kernels.scale = spaces[key].scale
        variable.assign(spaces[key].project(weights))
    return spaces


def _compile(
    graph: Graph, spaces: dict[Any, Subspace], objective: str, rate: float, trained: str
) -> Compiled:
    """The functions of a client. Tracing fixes what the quantisers do in each."""
    import tensorflow as tf

    from fedsys.objectives import objective as known

    loss_of = known(objective).loss
    variables = list(graph.trainable.items())

    @tf.function(reduce_retracing=True)
    def step(rows: Any, labels: Any) -> Any:
        graph.switch.does = trained
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(loss_of(labels, graph.model(rows, training=True)))
        gradients = tape.gradient(loss, [variable for _, variable in variables])
        for (key, variable), gradient in zip(variables, gradients, strict=True):
            if gradient is not None:
                inside = spaces[key].project(gradient) if key in spaces else gradient
                variable.assign_sub(rate * inside)
        return loss

    @tf.function(reduce_retracing=True)
    def measure(rows: Any) -> Any:
        graph.switch.does = "measure"
        return graph.model(rows, training=False)

    return Compiled(step, measure)


def _rounds(
    graph: Graph,
    compiled: Compiled,
    spaces: dict[Any, Subspace],
    federation: Federation,
    ranges: str,
    qat: bool,
) -> Iterator[dict[str, Any]]:
    """Runs the rounds; the graph holds the global weights and ranges after each."""
    clients = len(federation.partition)
    for number in range(1, federation.rounds + 1):
        cohort = draw_cohort(federation.seed, number, clients, federation.cohort)
        plan = draw_plan(federation.local, federation.partition, cohort, federation.seed, number)
        weights, pairs = graph.read(), graph.read_ranges()
        sums = [np.zeros(tensor.shape) for tensor in weights]
        spans, losses, total = np.zeros_like(pairs), [], 0.0
        for place, client in enumerate(cohort):
            size = len(federation.partition[int(client)])
            if not size:
                continue
            graph.write(weights)
            graph.write_ranges(pairs)
            steps = [
                compiled.step(federation.rows[picked], federation.labels[picked])
                for picked in plan.batches(place)
            ]
            losses.append(size * float(np.mean([float(loss) for loss in steps])))
            for total_of, tensor in zip(sums, graph.read(), strict=True):
                total_of += size * tensor.astype(np.float64)
            spans += size * graph.read_ranges()
            total += size
        if not total:  # a cohort without rows moves nothing
            graph.write(weights)
            yield {"round": number, "clients": 0, "rows": 0, "loss": float("nan")}
            continue
        graph.write([(each / total).astype(np.float32) for each in sums])
        graph.write_ranges(pairs if ranges == "measured" or not qat else spans / total)
        _tidy(graph, spaces)
        if not all(np.isfinite(tensor).all() for tensor in graph.read()):
            raise TrainingError(
                f"round {number}: the weights became NaN or infinite: try a lower rate"
            )
        if ranges == "measured" and qat:
            _measure_more(graph, compiled, federation, cohort)
        loss = sum(losses) / total
        yield {"round": number, "clients": len(losses), "rows": int(total), "loss": loss}


def _tidy(graph: Graph, spaces: dict[Any, Subspace]) -> None:
    """Takes the rounding of the average off, which is all that left the subspaces."""
    for key, space in spaces.items():
        graph.trainable[key].assign(space.project(graph.trainable[key].numpy()))


def _measured(graph: Graph, compiled: Compiled, federation: Federation, client: int) -> np.ndarray:
    """[ranges, 2] of what one client's rows come to; the only thing that leaves the client."""
    graph.write_ranges(np.zeros((len(graph.ranges), 2)))
    mine = federation.partition[client]
    for first in range(0, len(mine), 256):
        compiled.measure(federation.rows[mine[first : first + 256]])
    return graph.read_ranges()


def _envelope(graph: Graph, compiled: Compiled, federation: Federation, clients: Any) -> np.ndarray:
    """[ranges, 2]: the least low and the largest high of some clients."""
    merged = np.zeros((len(graph.ranges), 2))
    for client in clients:
        one = _measured(graph, compiled, federation, int(client))
        merged[:, 0] = np.minimum(merged[:, 0], one[:, 0])
        merged[:, 1] = np.maximum(merged[:, 1], one[:, 1])
    return qat_graph.widened(merged)


def _measure_all(graph: Graph, compiled: Compiled, federation: Federation) -> None:
    """Sets the ranges to the envelope of all clients."""
    everyone = range(len(federation.partition))
    graph.write_ranges(_envelope(graph, compiled, federation, everyone))


def _measure_more(graph: Graph, compiled: Compiled, federation: Federation, cohort: Any) -> None:
    """Sets the ranges to the cohort's envelope; a part of the clients may only widen them."""
    before = graph.read_ranges()
    now = _envelope(graph, compiled, federation, cohort)
    if len(cohort) < len(federation.partition):
        now[:, 0] = np.minimum(now[:, 0], before[:, 0])
        now[:, 1] = np.maximum(now[:, 1], before[:, 1])
    graph.write_ranges(now)


def _kernels(graph: Graph, spaces: dict[Any, Subspace]) -> dict[str, dict[str, Any]]:
    """What became of each kernel: share of zeros, and different values but for the scale."""
    told = {}
    for key in graph.kernels:
        weights = graph.trainable[key].numpy()
        space = spaces.get(key)
        told[key[0]] = {
            "weights": int(weights.size),
            "zeros": float((weights == 0).mean()),
            "clusters": space.clusters if space is not None and space.clusters else None,
        }
    return told


def _payload(graph: Graph) -> int:
    """Bytes that a client sends in a round: weights, and two float32 a range."""
    weights = sum(variable.numpy().nbytes for variable in graph.trainable.values())
    return int(weights) + 8 * len(graph.ranges)


def _keras_bytes(source: Any, translated: legacy.Translated, graph: Graph) -> bytes:
    """The Keras 3 model with the fine-tuned float weights, as a .keras file."""
    for key, variable in graph.trainable.items():
        translated.origin[key].assign(variable.numpy())
    with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
        path = Path(folder) / "model.keras"
        source.save(path)
        return path.read_bytes()
