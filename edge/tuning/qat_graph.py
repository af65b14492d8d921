"""The model that is fine-tuned: TFMOT's, whose quantisers can also measure and stand aside.

TFMOT's own quantisers either follow moving averages that begin at -6 and 6 and take thousands of
steps to arrive, or use what is there. Here each is replaced by one that does what the `Switch`
says. That also mends two things of TFMOT 0.8.1: kernels of a layer that a ReLU layer follows are
quantised at all, and depthwise kernels have a scale for each channel.

It runs only in a worker process (`qat_worker`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from fedsys.edge.conversion.naming import MARK, rename
from fedsys.edge.tflite.flatbuffer import packed, text, unpacked
from fedsys.edge.tuning.legacy import Translated, Weight, weight_name
from fedsys.errors import ExportError

DECAY = 0.999
"""Of TFMOT's moving averages."""
NARROWEST = 1e-3
"""Least width of a range: a tensor that is always zero needs some scale too."""
ACROSS = frozenset({"Conv2D", "DepthwiseConv2D"})
"""Layers whose kernels have a scale for each output channel; others have one."""
PASSING = frozenset({"AveragePooling2D", "UpSampling2D"})
"""Layers whose operator puts out the scale that it takes in; a range would cost a QUANTIZE."""


@dataclass
class Switch:
    """What quantisers do when they are next traced.

    "float": nothing. "fixed": quantise by the ranges that are set. "moving": that, and move the
    ranges as TFMOT does. "measure": widen the ranges to what comes, and leave it as it is.
    """

    does: str = "float"


@dataclass(frozen=True, eq=False)
class Activations:
    """Quantises what a layer puts out; in place of TFMOT's moving averages."""

    switch: Switch

    def __call__(self, inputs: Any, training: bool, weights: Any, **_: Any) -> Any:
        import tensorflow as tf

        low, high, does = weights["min_var"], weights["max_var"], self.switch.does
        if does == "float":
            return inputs
        least, most = tf.reduce_min(inputs), tf.reduce_max(inputs)
        if does == "measure":
            low.assign(tf.minimum(low, least))
            high.assign(tf.maximum(high, most))
            return inputs
        if does == "moving" and training:
            low.assign(DECAY * low + (1 - DECAY) * tf.minimum(least, 0.0))
            high.assign(DECAY * high + (1 - DECAY) * tf.maximum(most, 0.0))
        return tf.quantization.fake_quant_with_min_max_vars(inputs, low, high)


@dataclass(eq=False)
class Kernels:
    """Quantises a kernel by its own largest weights, symmetrically, in 255 steps.

    depthwise: kernel [rows, columns, in, multiplier], whose channels are the last two dimensions.
    across: a scale for each channel, which lie last. scale: of the clusters (`sparsity`), which
    keep their shape: then the range of a channel is its scale times the largest value of all
    clusters, so that a cluster is the same integer in every channel.
    """

    switch: Switch
    across: bool
    depthwise: bool
    scale: np.ndarray | None = None

    def __call__(self, inputs: Any, training: bool, weights: Any = None, **_: Any) -> Any:
        import tensorflow as tf

        if self.switch.does == "float":
            return inputs
        shape = tuple(inputs.shape)
        flat = (*shape[:2], 1, shape[2] * shape[3]) if self.depthwise else shape
        kernel = tf.reshape(inputs, flat)
        axes = list(range(len(flat) - 1)) if self.across else None
        if self.scale is None:
            peak = tf.reduce_max(tf.abs(kernel), axes)
        else:
            peak = tf.reduce_max(tf.abs(inputs / self.scale)) * tf.reshape(
                self.scale, [-1] if self.across else []
            )
        peak = tf.stop_gradient(tf.maximum(peak, 1e-9))
        quantize = (
            tf.quantization.fake_quant_with_min_max_vars_per_channel
            if self.across
            else tf.quantization.fake_quant_with_min_max_vars
        )
        return tf.reshape(quantize(kernel, -peak, peak, narrow_range=True), shape)


class Bare:
    """What a wrapper sets in a layer of which TFMOT would quantise nothing: its kernel alone."""

    def __init__(self, attribute: str):
        self.attribute = attribute

    def set_quantize_weights(self, layer: Any, quantized: Any) -> None:
        setattr(layer, self.attribute, quantized[0])

    def set_quantize_activations(self, layer: Any, quantized: Any) -> None:
        """Nothing: the layer that follows does."""


@dataclass(eq=False)
class Graph:
    """A model that can be fine-tuned.

    model: of tf_keras, wrapped by TFMOT. trainable: its weights, by layer and name.
    kernels: those that are multiplied, and their quantisers.
    ranges: name -> (low, high), variables of what is quantised between layers.
    """

    model: Any
    switch: Switch
    trainable: dict[Weight, Any] = field(default_factory=dict)
    kernels: dict[Weight, Kernels] = field(default_factory=dict)
    ranges: dict[str, tuple[Any, Any]] = field(default_factory=dict)

    def read_ranges(self) -> np.ndarray:
        """[ranges, 2], low and high."""
        pairs = [[float(low.numpy()), float(high.numpy())] for low, high in self.ranges.values()]
        return np.array(pairs, np.float64).reshape(-1, 2)

    def write_ranges(self, pairs: np.ndarray) -> None:
        """Sets the ranges from [ranges, 2]."""
        for (low, high), (least, most) in zip(self.ranges.values(), pairs, strict=True):
            low.assign(least)
            high.assign(most)

    def write(self, weights: list[np.ndarray]) -> None:
        """Sets the trainable weights, in their order."""
        for variable, value in zip(self.trainable.values(), weights, strict=True):
            variable.assign(value)

    def read(self) -> list[np.ndarray]:
        """The trainable weights, in their order."""
        return [variable.numpy() for variable in self.trainable.values()]


def wrap(translated: Translated) -> Graph:
    """The translated model, aware of quantisation, with its weights.

    Batch normalisation is kept at its running averages: a client's few rows would spoil them.
    Raises ExportError with TFMOT's words where it refuses the model.
    """
    import tensorflow_model_optimization as tfmot

    trainable = {
        (layer.name, weight_name(weight))
        for layer in translated.model.layers
        for weight in layer.trainable_weights
    }
    try:
        model = tfmot.quantization.keras.quantize_model(translated.model)
    except (ValueError, RuntimeError) as error:
        said = str(error).strip().splitlines()
        raise ExportError(
            f"quantisation-aware training refuses the model: {said[0] if said else error}; "
            "quantise after training (--method int8)"
        ) from error
    graph = Graph(model, Switch())
    for wrapper in model.layers:
        if hasattr(wrapper, "quantizer"):  # what comes in
            wrapper.quantizer = Activations(graph.switch)
            _add_range(graph, "inputs", wrapper.quantizer_vars)
        if hasattr(wrapper, "quantize_config"):
            _rewire(graph, wrapper, trainable)
    return graph


def _rewire(graph: Graph, wrapper: Any, trainable: set[Weight]) -> None:
    """Puts our quantisers into a wrapper and notes what it holds."""
    layer = wrapper.layer
    kind = type(layer).__name__
    # TFMOT moves quantised weights from the layer to its wrapper.
    variables = {weight_name(each): each for each in [*layer.weights, *wrapper.weights]}
    for name, variable in variables.items():
        if (layer.name, name) in trainable:
            graph.trainable[layer.name, name] = variable
    if kind == "BatchNormalization":
        layer.trainable = False
    attribute = "depthwise_kernel" if kind == "DepthwiseConv2D" else "kernel"
    if (layer.name, attribute) in trainable:
        kernels = Kernels(graph.switch, kind in ACROSS, kind == "DepthwiseConv2D")
        graph.kernels[layer.name, attribute] = kernels
        if not wrapper._weight_vars:
            wrapper.quantize_config = Bare(attribute)
        wrapper._weight_vars = [(variables[attribute], kernels, None)]
    for each in wrapper._quantize_activations:
        each.quantizer = Activations(graph.switch)
        for when in ("_pre_activation_vars", "_post_activation_vars"):
            if hasattr(each, when):
                name = layer.name + (":pre" if when.startswith("_pre") else "")
                _add_range(graph, name, getattr(each, when))
    if wrapper._output_quantizers and kind in PASSING:
        wrapper._output_quantizers = []
    if wrapper._output_quantizers:
        wrapper._output_quantizers = [Activations(graph.switch)]
        _add_range(graph, layer.name, wrapper._output_quantizer_vars)


def _add_range(graph: Graph, name: str, variables: Any) -> None:
    graph.ranges[name] = (variables["min_var"], variables["max_var"])


def widened(pairs: np.ndarray) -> np.ndarray:
    """The ranges [n, 2] with zero inside and none too narrow."""
    low, high = np.minimum(pairs[:, 0], 0), np.maximum(pairs[:, 1], 0)
    return np.stack([low, np.maximum(high, low + NARROWEST)], axis=1)


def convert(graph: Graph, shape: tuple[int, ...], names: tuple[list[str], list[str]]) -> bytes:
    """The .tflite bytes of the model by the ranges and weights it has: int8 in, between and out.

    shape: of a row. names: of the input and of the output.
    """
    import tensorflow as tf

    graph.switch.does = "fixed"
    forward = tf.function(
        lambda rows: graph.model(rows, training=False),
        input_signature=[tf.TensorSpec((1, *shape), tf.float32)],
    )
    # The converter saves what it is given first: the variables, not all that Keras traces.
    held = tf.Module()
    held.variables_held = list(graph.model.variables)
    converter = tf.lite.TFLiteConverter.from_concrete_functions(
        [forward.get_concrete_function()], held
    )
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    made = unpacked(bytes(converter.convert()))
    for tensor in made.subgraphs[0].tensors:
        # `functional_3/quant_stem/Conv2D`: the layer's name, marked as `naming` expects it.
        marked = re.sub(r"[^/;]+/quant_([^/;]+)", rf"model{MARK}/\1{MARK}", text(tensor.name))
        tensor.name = marked.encode()
    rename(made, *names)
    return packed(made)
