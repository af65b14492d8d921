"""A Keras 3 model as a neutral list of layers, from which the child builds it in Keras 2.14.

Model files do not travel between the two: Keras 2 reads none of what Keras 3 writes. So each
layer is told by its class and the options that both know, and weights go separately, as numbers.
What TensorFlow Federated cannot train as fedsys does is refused here, by the layer's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from fedsys.errors import UsageError

if TYPE_CHECKING:
    import keras

_KERNEL = ("kernel_size", "strides", "padding", "dilation_rate", "use_bias", "activation")
_POOL = ("pool_size", "strides", "padding")
_NORMED = ("axis", "epsilon", "center", "scale")

OPTIONS: Mapping[str, tuple[str, ...]] = {
    "Activation": ("activation",),
    "Add": (),
    "Average": (),
    "AveragePooling1D": _POOL,
    "AveragePooling2D": _POOL,
    "Concatenate": ("axis",),
    "Conv1D": ("filters", "groups", *_KERNEL),
    "Conv2D": ("filters", "groups", *_KERNEL),
    "Conv2DTranspose": ("filters", "output_padding", *_KERNEL),
    "Cropping2D": ("cropping",),
    "Dense": ("units", "use_bias", "activation"),
    "DepthwiseConv1D": ("depth_multiplier", *_KERNEL),
    "DepthwiseConv2D": ("depth_multiplier", *_KERNEL),
    "ELU": ("alpha",),
    "Flatten": (),
    "GlobalAveragePooling1D": ("keepdims",),
    "GlobalAveragePooling2D": ("keepdims",),
    "GlobalMaxPooling1D": ("keepdims",),
    "GlobalMaxPooling2D": ("keepdims",),
    "GroupNormalization": ("groups", *_NORMED),
    "LayerNormalization": _NORMED,
    "LeakyReLU": ("negative_slope",),
    "MaxPooling1D": _POOL,
    "MaxPooling2D": _POOL,
    "Maximum": (),
    "Minimum": (),
    "Multiply": (),
    "Permute": ("dims",),
    "PReLU": ("shared_axes",),
    "ReLU": ("max_value", "negative_slope", "threshold"),
    "Rescaling": ("scale", "offset"),
    "Reshape": ("target_shape",),
    "SeparableConv1D": ("filters", "depth_multiplier", *_KERNEL),
    "SeparableConv2D": ("filters", "depth_multiplier", *_KERNEL),
    "Softmax": ("axis",),
    "Subtract": (),
    "UpSampling2D": ("size", "interpolation"),
    "ZeroPadding1D": ("padding",),
    "ZeroPadding2D": ("padding",),
}
"""The options that shape a layer and that both Keras know, by the layer's class.

Initialisers are left out, since the weights are there already, and so are constraints, which no
training of ours applies.
"""

ACTIVATIONS = (
    *("elu", "exponential", "gelu", "linear", "relu", "selu", "sigmoid", "silu", "softmax"),
    *("softplus", "softsign", "swish", "tanh"),
)
"""What both Keras mean the same by. `hard_sigmoid` and `leaky_relu` changed between them."""

REASONS: Mapping[str, str] = {
    "BatchNormalization": (
        "TensorFlow Federated keeps moving averages out of the federation, while fedsys averages "
        "them: use LayerNormalization or GroupNormalization"
    ),
    "Dropout": (
        "TensorFlow Federated cannot be told the seeds of dropout, so no two engines would agree: "
        "leave it out"
    ),
}
"""Why layers are refused of which there is more to say than that Keras 2 lacks them."""

ELSEWHERE = "or use --engine compiled"


@dataclass(frozen=True)
class Architecture:
    """A model as plain values.

    layers: in the order of computation, `{"name", "kind", "options", "penalties", "inputs"}` each;
        an input is the name of a layer before, or "" for the rows. The last one's is the output.
    variables: for each trainable tensor of the weight vector, the name of its layer and its
        place among that layer's.
    rows: the type that rows are turned into before the first layer.
    """

    layers: tuple[dict[str, Any], ...]
    variables: tuple[tuple[str, int], ...]
    rows: str


@dataclass(eq=False)
class _Progress:
    """What has been told so far. tensors: id of a tensor -> name of the layer that gives it."""

    layers: list[dict[str, Any]] = field(default_factory=list)
    tensors: dict[int, str] = field(default_factory=dict)
    variables: dict[int, tuple[str, int]] = field(default_factory=dict)


def architecture(model: keras.Model) -> Architecture:
    """The architecture of a built model. Raises UsageError, naming the layer, for what
    TensorFlow Federated cannot train as fedsys does."""
    graph = _functional(model)
    if len(graph.inputs) != 1 or len(graph.outputs) != 1:
        raise UsageError(
            f"engine 'tff': the model has {len(graph.inputs)} inputs and {len(graph.outputs)} "
            f"outputs, and only one of each is supported: {ELSEWHERE[3:]}"
        )
    done = _Progress(tensors={id(graph.inputs[0]): ""})
    _tell(graph, done)
    if done.tensors[id(graph.outputs[0])] != done.layers[-1]["name"]:
        raise UsageError(
            "engine 'tff': the model computes more than what leads to its output: leave that out"
        )
    places = [done.variables[id(variable)] for variable in model.trainable_variables]
    return Architecture(tuple(done.layers), tuple(places), str(graph.inputs[0].dtype))


def _functional(model: Any) -> Any:
    """The graph of a model."""
    import keras

    graph = model._functional if isinstance(model, keras.Sequential) else model
    if not hasattr(graph, "_nodes_by_depth"):
        raise UsageError(
            f"engine 'tff': model {model.name!r} is a subclass of Model, so its layers cannot be "
            f"seen: build it as keras.Model(inputs, outputs) or keras.Sequential, {ELSEWHERE}"
        )
    return graph


def _tell(graph: Any, done: _Progress) -> None:
    """Tells the layers of a graph whose inputs are told already. Models inside are laid open."""
    import keras

    seen = set()
    for node in _nodes(graph):
        operation = node.operation
        if operation in seen:
            _refuse(operation, "is used in several places: give each place a layer of its own")
        seen.add(operation)
        given = [done.tensors[id(tensor)] for tensor in node.input_tensors]
        if isinstance(operation, keras.Model):
            inner = _functional(operation)
            for tensor, name in zip(inner.inputs, given, strict=True):
                done.tensors[id(tensor)] = name
            _tell(inner, done)
            results = [done.tensors[id(tensor)] for tensor in inner.outputs]
        else:
            results = [_layer(operation, given, done)]
        for tensor, name in zip(node.outputs, results, strict=True):
            done.tensors[id(tensor)] = name


def _nodes(graph: Any) -> Iterator[Any]:
    """The nodes of a graph in the order of computation, without its inputs."""
    inputs = {id(tensor) for tensor in graph.inputs}
    for depth in sorted(graph._nodes_by_depth, reverse=True):
        for node in graph._nodes_by_depth[depth]:
            if not node.is_input and not {id(tensor) for tensor in node.outputs} <= inputs:
                yield node


def _layer(layer: Any, given: list[str], done: _Progress) -> str:
    """Tells one layer, and returns the name that it has among the layers told."""
    import keras

    kind = type(layer).__name__
    if kind in REASONS:
        _refuse(layer, f"is a {kind}: {REASONS[kind]}")
    if kind not in OPTIONS or type(layer) is not getattr(keras.layers, kind):
        _refuse(layer, f"is a {kind}, which the engine does not have in Keras 2.14: replace it")
    if layer.compute_dtype != "float32":
        _refuse(layer, f"computes in {layer.compute_dtype}, and the engine in float32 alone")
    if layer.non_trainable_variables:
        _refuse(layer, "has weights that are not trained, which the engine does not send: train it")
    config = layer.get_config()
    if config.get("data_format") == "channels_first":
        _refuse(layer, "has channels first: use data_format='channels_last'")
    for key in ("activity_regularizer", "quantization_config", "lora_rank"):
        if config.get(key):
            _refuse(layer, f"has a {key}: leave it out")
    name = f"{len(done.layers):03d}_{kind}".lower()
    told = {
        "name": name,
        "kind": kind,
        "options": _options(layer, kind, config),
        "penalties": _penalties(layer, config),
        "inputs": given,
    }
    done.layers.append(told)
    for place, variable in enumerate(layer.trainable_variables):
        done.variables[id(variable)] = name, place
    return name


def _options(layer: Any, kind: str, config: Mapping[str, Any]) -> dict[str, Any]:
    options = {key: config[key] for key in OPTIONS[kind]}
    if "activation" in options and options["activation"] not in ACTIVATIONS:
        said = options["activation"]
        said = repr(said) if isinstance(said, str) else "of your own"
        _refuse(layer, f"has an activation {said}: use one of {', '.join(ACTIVATIONS)}")
    if kind == "LeakyReLU":  # its option has another name in Keras 2
        return {"alpha": options["negative_slope"]}
    return options


def _penalties(layer: Any, config: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """Option -> l1 and l2 of a penalty on weights."""
    penalties = {}
    for key, said in config.items():
        if not key.endswith("_regularizer") or not said:
            continue
        if said["class_name"] not in ("L1", "L2", "L1L2") or said.get("registered_name"):
            _refuse(layer, f"has a {key} that is neither L1 nor L2: replace it")
        penalties[key] = {name: float(said["config"].get(name) or 0) for name in ("l1", "l2")}
    return penalties


def _refuse(layer: Any, what: str) -> NoReturn:
    raise UsageError(f"engine 'tff': layer {layer.name!r} {what}, {ELSEWHERE}")
