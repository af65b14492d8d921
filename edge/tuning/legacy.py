"""Keras 3 model -> the same model in Keras 2 (tf_keras), which is all that TFMOT can train.

It runs only in a worker process (`qat_worker`): TensorFlow Model Optimization turns `tf.keras` into
Keras 2 for the whole process.

Layers are rebuilt one by one and weights copied; outputs differ by rounding alone. What
quantisation-aware training could not take is refused here, with the layer's name and what to use
instead. Three things come out in another form, of the same arithmetic: nested models are laid
open, a separable convolution becomes its two convolutions, and an activation that TFMOT does not
know inside a layer becomes a layer of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

from fedsys.errors import ExportError

_KERNEL = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "activation")
_POOL = ("pool_size", "strides", "padding")

KEPT: Mapping[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "Add": (),
    "AveragePooling2D": _POOL,
    "BatchNormalization": ("axis", "momentum", "epsilon", "center", "scale"),
    "Concatenate": ("axis",),
    "Conv2D": ("filters", "groups", *_KERNEL),
    "Conv2DTranspose": ("filters", "output_padding", *_KERNEL),
    "Cropping2D": ("cropping",),
    "Dense": ("units", "use_bias", "activation"),
    "DepthwiseConv2D": ("depth_multiplier", *_KERNEL),
    "Dropout": ("rate", "noise_shape"),
    "Flatten": (),
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "LeakyReLU": (),
    "MaxPooling2D": _POOL,
    "Permute": ("dims",),
    "ReLU": ("max_value", "threshold"),
    "Reshape": ("target_shape",),
    "SeparableConv2D": (),
    "Softmax": ("axis",),
    "SpatialDropout2D": ("rate",),
    "UpSampling2D": ("size", "interpolation"),
    "ZeroPadding2D": ("padding",),
}
"""The settings that both Keras share and that shape a layer, by its class.

Initialisers, regularisers and constraints are left out: the weights are there already.
"""

POST_TRAINING = "or quantise after training (--method int8)"
REMEDIES: Mapping[str, str] = {
    "Conv1D": "use Conv2D with a kernel of (1, k) on rows of shape (1, steps, channels)",
    "DepthwiseConv1D": "use DepthwiseConv2D on rows of shape (1, steps, channels)",
    "SeparableConv1D": "use SeparableConv2D on rows of shape (1, steps, channels)",
    "MaxPooling1D": "use MaxPooling2D on rows of shape (1, steps, channels)",
    "AveragePooling1D": "use AveragePooling2D on rows of shape (1, steps, channels)",
    "LSTM": "use convolutions over time",
    "GRU": "use convolutions over time",
    "SimpleRNN": "use convolutions over time",
    "Bidirectional": "use convolutions over time",
    "LayerNormalization": "use BatchNormalization after a convolution",
    "GroupNormalization": "use BatchNormalization after a convolution",
    "Multiply": "use Add",
    "PReLU": "use ReLU or LeakyReLU",
    "ELU": "use ReLU or LeakyReLU",
    "Embedding": "give the network numbers that are scaled already",
    "Normalization": "scale the rows before the network",
    "Rescaling": "scale the rows before the network",
    "Lambda": "use layers of Keras",
    "MultiHeadAttention": "use convolutions",
}

INSIDE = frozenset({"linear", "relu", "softmax", "sigmoid", "tanh"})
"""Activations that may stay inside a layer with weights."""
BESIDE = frozenset({"relu", "relu6", "linear", "softmax", "sigmoid", "tanh"})
"""Activations that an Activation layer may have."""
NORMALISED = frozenset({"Conv2D", "DepthwiseConv2D", "SeparableConv2D", "Dense"})
"""Layers that a batch normalisation is folded into."""

Weight = tuple[str, str]
"""(name of a Keras 2 layer, name of its weight there)."""


@dataclass(frozen=True, eq=False)
class Translated:
    """model: the tf_keras model. origin: each of its weights -> the Keras 3 variable it is of."""

    model: Any
    origin: Mapping[Weight, Any]


@dataclass(eq=False)
class _Progress:
    """What has been rebuilt so far. tensors: id of a Keras 3 tensor -> tensor of Keras 2."""

    tensors: dict[int, Any] = field(default_factory=dict)
    origin: dict[Weight, Any] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def translate(model: Any) -> Translated:
    """The Keras 3 model (functional or Sequential, built) in tf_keras, with its weights.

    Raises ExportError, naming the layer, for what quantisation-aware training cannot take.
    """
    import tf_keras

    graph = _functional(model)
    done = _Progress()
    inputs = []
    for tensor in graph.inputs:
        if tensor.dtype != "float32" or None in tensor.shape[1:]:
            raise ExportError(
                f"input {tensor.name!r} has type {tensor.dtype} and shape {tensor.shape}: "
                "quantisation-aware training needs float32 rows of one known shape"
            )
        name = _unique(tensor._keras_history.operation.name, done)
        inputs.append(tf_keras.Input(tuple(tensor.shape[1:]), name=name))
        done.tensors[id(tensor)] = inputs[-1]
    _rebuild(graph, "", done)
    outputs = [done.tensors[id(tensor)] for tensor in graph.outputs]
    built = tf_keras.Model(inputs, outputs[0] if len(outputs) == 1 else outputs, name=model.name)
    return Translated(built, done.origin)


def weight_name(variable: Any) -> str:
    """`kernel` of a variable that Keras 2 calls `layer/kernel:0`."""
    return str(variable.name).split(":")[0].split("/")[-1]


def _functional(model: Any) -> Any:
    """The graph of a model. ExportError where it has none."""
    import keras

    graph = model._functional if isinstance(model, keras.Sequential) else model
    if not hasattr(graph, "_nodes_by_depth"):
        raise ExportError(
            f"model {model.name!r} is a subclass of Model or not built: its layers cannot be seen; "
            "build it as keras.Model(inputs, outputs) or a Sequential that begins with keras.Input"
        )
    return graph


def _rebuild(graph: Any, prefix: str, done: _Progress) -> None:
    """Applies the layers of a graph, in order, to tensors that are there already."""
    import keras

    seen = set()
    for node in _nodes(graph):
        operation = node.operation
        if operation in seen:
            _refuse(operation, "is used in several places", "give each place a layer of its own")
        seen.add(operation)
        given = [done.tensors[id(tensor)] for tensor in node.input_tensors]
        if isinstance(operation, keras.Model):
            inner = _functional(operation)
            for tensor, value in zip(inner.inputs, given, strict=True):
                done.tensors[id(tensor)] = value
            _rebuild(inner, f"{prefix}{operation.name}_", done)
            results = [done.tensors[id(tensor)] for tensor in inner.outputs]
        else:
            if type(operation).__name__ == "BatchNormalization":
                _follows_weights(operation, node)
            value = given[0] if len(given) == 1 else given
            for layer in _layers(operation, prefix, done):
                value = layer(value)
                _copy(operation, layer, done)
            results = [value]
        for tensor, result in zip(node.outputs, results, strict=True):
            done.tensors[id(tensor)] = result


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph in the order of computation, without its inputs."""
    inputs = {id(tensor) for tensor in graph.inputs}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input and not {id(tensor) for tensor in node.outputs} <= inputs:
                yield node


def _follows_weights(layer: Any, node: Any) -> None:
    """Batch normalisation can be folded into what is right before it, or not be trained."""
    before = node.input_tensors[0]._keras_history.operation
    inside = getattr(getattr(before, "activation", None), "__name__", "linear")
    if type(before).__name__ not in NORMALISED or inside != "linear":
        _refuse(
            layer,
            f"follows {before.name!r} and cannot be folded into it",
            "put it right after a Conv2D, DepthwiseConv2D or Dense layer without an activation",
        )


def _layers(layer: Any, prefix: str, done: _Progress) -> list[Any]:
    """The tf_keras layers, to be applied in turn, that do what a Keras 3 layer does."""
    import tf_keras

    kind = type(layer).__name__
    name = prefix + layer.name
    if kind not in KEPT or not type(layer).__module__.startswith("keras."):
        what = f"of type {kind} cannot be trained aware of quantisation"
        _refuse(layer, what, REMEDIES.get(kind, "use a layer that TFMOT knows"))
    config = layer.get_config()
    if config.get("data_format") == "channels_first":
        _refuse(layer, "has channels first", "use data_format='channels_last'")
    settings = {key: config[key] for key in KEPT[kind] if key in config}
    following = ""
    if "activation" in settings:
        settings["activation"], following = _activation(layer, config["activation"], kind)
    layers = [_layer(layer, kind, settings, config, _unique(name, done))]
    if kind == "SeparableConv2D":
        layers, following = _separable(layer, config, name, done)
    if following:
        layers.append(
            tf_keras.layers.ReLU(6.0, name=_unique(f"{name}_relu6", done))
            if following == "relu6"
            else tf_keras.layers.LeakyReLU(0.2, name=_unique(f"{name}_leaky", done))
        )
    return layers


def _layer(layer: Any, kind: str, settings: dict[str, Any], config: Any, name: str) -> Any:
    """One tf_keras layer."""
    import tf_keras

    if kind == "LeakyReLU":  # Keras 2 ignores the new name of the slope, and would use 0.3
        return tf_keras.layers.LeakyReLU(alpha=float(config["negative_slope"]), name=name)
    if kind == "ReLU":
        slope = float(config.get("negative_slope") or 0)
        if config.get("threshold") or (slope and config["max_value"] is not None):
            _refuse(layer, "has a threshold, or a slope and a limit", "use ReLU or LeakyReLU")
        if slope:
            return tf_keras.layers.LeakyReLU(alpha=slope, name=name)
    if kind == "Activation" and settings["activation"] == "relu6":
        return tf_keras.layers.ReLU(6.0, name=name)
    if kind == "SeparableConv2D":
        return None  # see _separable
    return getattr(tf_keras.layers, kind)(**settings, name=name)


def _separable(layer: Any, config: Any, name: str, done: _Progress) -> tuple[list[Any], str]:
    """The two convolutions of a separable one, and the activation that must follow."""
    import tf_keras

    activation, following = _activation(layer, config["activation"], "Conv2D")
    keys = ("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier")
    across = tf_keras.layers.DepthwiseConv2D(
        **{key: config[key] for key in keys},
        use_bias=False,
        name=_unique(f"{name}_depthwise", done),
    )
    along = tf_keras.layers.Conv2D(
        config["filters"],
        1,
        use_bias=config["use_bias"],
        activation=activation,
        name=_unique(f"{name}_pointwise", done),
    )
    return [across, along], following


def _activation(layer: Any, activation: Any, kind: str) -> tuple[str, str]:
    """(the activation inside the layer, that of a layer after it or "")."""
    remedy = "use relu, relu6 or a LeakyReLU layer"
    if not isinstance(activation, str):
        _refuse(layer, "has an activation of one's own", remedy)
    if activation in (BESIDE if kind == "Activation" else INSIDE):
        return activation, ""
    if kind != "Activation" and activation in ("relu6", "leaky_relu"):
        return "linear", activation
    _refuse(layer, f"has the activation {activation!r}", remedy)


def _copy(source: Any, target: Any, done: _Progress) -> None:
    """Copies the weights of a Keras 3 layer to what was rebuilt of it, and notes where they lie."""
    if not target.weights:
        return
    variables = list(source.weights)
    if type(source).__name__ == "SeparableConv2D":
        depthwise = type(target).__name__ == "DepthwiseConv2D"
        variables = variables[:1] if depthwise else variables[1:]
    target.set_weights([variable.numpy() for variable in variables])
    for weight, variable in zip(target.weights, variables, strict=True):
        done.origin[target.name, weight_name(weight)] = variable


def _unique(name: str, done: _Progress) -> str:
    """The name, with a number behind it if it is taken."""
    number, free = 1, name
    while free in done.names:
        number, free = number + 1, f"{name}_{number}"
    done.names.add(free)
    return free


def _refuse(layer: Any, what: str, remedy: str) -> NoReturn:
    raise ExportError(f"layer {layer.name!r} {what}: {remedy}, {POST_TRAINING}")
