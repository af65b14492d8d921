"""A Keras model as a table of numbers and words, and back; never as code.

    {"format": 1, "dtype": "float32",
     "inputs": [{"shape": [23], "dtype": "float32"}],
     "layers": [{"kind": "Dense", "reads": [0], "trainable": true, "options": {"units": 64, ...}},
                {"again": 1, "reads": [2]}, ...],
     "outputs": [3]}

Inputs and layers are numbered in one row; a layer reads from smaller numbers, so there are no
circles. `again` applies a layer a second time, with the same weights. `check` (in `blueprint`)
needs no Keras: it knows every shape and the number of parameters beforehand, and refuses what is
too large. `build` constructs layers by name from the list of `layer_kinds`, and nothing else.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fedsys.errors import FedsysError, PolicyError, nearest
from fedsys.trust.architecture.blueprint import (
    DTYPES,
    FORMAT,
    Blueprint,
    Bounds,
    Size,
    check,
    read_blueprint,
)
from fedsys.trust.architecture.layer_kinds import KINDS
from fedsys.trust.architecture.layer_options import read_all

if TYPE_CHECKING:
    import keras

__all__ = ["DTYPES", "Bounds", "Size", "build", "check", "specify"]


def build(table: Mapping[str, Any], bounds: Bounds | None = None) -> keras.Model:
    """The model that a table describes, with weights that its initializers draw.

    Raises PolicyError where the table is not allowed, or Keras cannot build it.
    """
    plan = read_blueprint(table, bounds or Bounds())
    import keras

    try:
        model = _built(plan)
    except FedsysError:
        raise
    except Exception as error:  # Keras raises what it likes
        reason = " ".join(str(error).split())[:200]
        raise PolicyError(f"architecture: Keras cannot build it: {reason}") from None
    if model.count_params() != plan.size.parameters:
        raise PolicyError("architecture: Keras built another number of parameters than was said")
    assert isinstance(model, keras.Model)
    return model


def _built(plan: Blueprint) -> keras.Model:
    import keras

    inputs = [
        keras.Input(shape, dtype=dtype, name=f"input{number}")
        for number, (shape, dtype) in enumerate(plan.inputs)
    ]
    tensors, layers = list(inputs), {}
    for position, step in enumerate(plan.steps, start=len(inputs)):
        if step.again is None:
            options = {name: _for_keras(item) for name, item in step.options.items()}
            layers[position] = getattr(keras.layers, step.kind)(
                **options, name=f"layer{position}", dtype=plan.dtype
            )
            layers[position].trainable = step.trainable
        read = [tensors[at] for at in step.reads]
        layer = layers[position if step.again is None else step.again]
        tensor = layer(read if KINDS[step.kind].merges else read[0])
        if tuple(tensor.shape[1:]) != plan.size.shapes[position]:
            raise PolicyError(f"architecture: layer {position}: Keras gives another shape")
        tensors.append(tensor)
    outputs = [tensors[at] for at in plan.outputs]
    return keras.Model(
        inputs if len(inputs) > 1 else inputs[0],
        outputs if len(outputs) > 1 else outputs[0],
        name="model",
    )


def _for_keras(item: Any) -> Any:
    """An option as a layer's constructor takes it."""
    if isinstance(item, Mapping):
        import keras

        options = {name: one for name, one in item.items() if name != "kind"}
        return getattr(keras.initializers, item["kind"])(**options)
    return item


def specify(model: keras.Model) -> dict[str, Any]:
    """The table that describes a model. Raises PolicyError, naming the layer, where none does."""
    tensors, outputs = _ends(model)
    position: dict[int, int] = {id(tensor): at for at, tensor in enumerate(tensors)}
    inputs = [_input_table(tensor) for tensor in tensors]
    dtypes: set[str] = set()
    first: dict[int, int] = {}
    layers: list[dict[str, Any]] = []
    stack = [(tensor, False) for tensor in reversed(outputs)]
    while stack:
        tensor, ready = stack.pop()
        if id(tensor) in position:
            continue
        layer, read = _call(tensor)
        if not ready:
            stack.append((tensor, True))
            stack.extend((one, False) for one in reversed(read))
            continue
        reads = [position[id(one)] for one in read]
        position[id(tensor)] = at = len(inputs) + len(layers)
        if id(layer) in first:
            layers.append({"again": first[id(layer)], "reads": reads})
            continue
        first[id(layer)] = at
        layers.append({"kind": type(layer).__name__, "reads": reads,
                       "trainable": layer.trainable, "options": _options(layer)})  # fmt: skip
        dtypes.add(layer.dtype_policy.name)
    if len(dtypes) > 1:
        raise PolicyError(f"model: its layers compute in {', '.join(sorted(dtypes))}: choose one")
    table = {"format": FORMAT, "dtype": next(iter(dtypes), "float32"), "inputs": inputs,
             "layers": layers, "outputs": [position[id(tensor)] for tensor in outputs]}  # fmt: skip
    try:
        check(table)
    except PolicyError as error:
        raise PolicyError(f"model: cannot travel as a table: {error}") from None
    return table


def _ends(model: keras.Model) -> tuple[list[Any], list[Any]]:
    """The model's input and output tensors."""
    import keras

    known = type(model).__module__.startswith("keras.") and isinstance(model, keras.Model)
    if not known:
        raise PolicyError(
            f"model: {type(model).__name__} has code of its own, which does not travel: build it "
            "of keras.layers, as a Sequential or keras.Model(inputs, outputs)"
        )
    try:
        inputs, outputs = list(model.inputs), list(model.outputs)
        structures = model._functional if type(model).__name__ == "Sequential" else model
        named = isinstance(structures._inputs_struct, dict) or isinstance(
            structures._outputs_struct, dict
        )
    except (AttributeError, TypeError, ValueError):
        raise PolicyError("model: has no inputs yet: begin it with keras.Input(shape)") from None
    if named:
        raise PolicyError("model: takes or gives a dict: give its inputs and outputs as a list")
    return inputs, outputs


def _input_table(tensor: Any) -> dict[str, Any]:
    if tensor.shape[0] is not None or None in tensor.shape[1:] or tensor.sparse or tensor.ragged:
        raise PolicyError(
            f"model: its input {tensor.name!r} has shape {tuple(tensor.shape)}: every length but "
            "the batch's must be fixed, and rows dense"
        )
    return {"shape": list(tensor.shape[1:]), "dtype": str(tensor.dtype)}


def _call(tensor: Any) -> tuple[Any, list[Any]]:
    """The layer that made a tensor, and the tensors that it read."""
    import keras

    layer, node, _ = tensor._keras_history
    kind = type(layer).__name__
    if kind not in KINDS or type(layer) is not getattr(keras.layers, kind):
        raise PolicyError(
            f"model: {layer.name!r} is {kind}, which does not travel; {nearest(kind, KINDS)}"
        )
    arguments = layer._inbound_nodes[node].arguments
    # Keras notes training=False where nothing was said; what the model is called with overrules it.
    said = {name: item for name, item in arguments.kwargs.items() if item is not None}
    if (said and said != {"training": False}) or len(arguments.args) != 1:
        raise PolicyError(f"model: {layer.name!r} is called with more than its inputs")
    read = arguments.args[0]
    return layer, list(read) if isinstance(read, list | tuple) else [read]


_LEFT_OUT = ("name", "trainable", "dtype")


def _options(layer: Any) -> dict[str, Any]:
    """A layer's options as a table has them; those that do not travel must be at their default."""
    kind = type(layer).__name__
    config = {name: item for name, item in layer.get_config().items() if name not in _LEFT_OUT}
    known = inspect.signature(type(layer).__init__).parameters
    options: dict[str, Any] = {}
    for name, item in config.items():
        if name in KINDS[kind].options:
            options[name] = _plain(layer, name, item)
        elif item and not (name in known and item == known[name].default):
            raise PolicyError(f"model: {layer.name!r} ({kind}): its {name} does not travel")
    try:
        return read_all(KINDS[kind].options, options)
    except ValueError as error:
        raise PolicyError(f"model: {layer.name!r} ({kind}): {error}") from None


def _plain(layer: Any, name: str, item: Any) -> Any:
    import keras

    if name.endswith("activation"):
        # By identity: a function of one's own that is called relu is written as 'relu', too.
        if not isinstance(item, str) or getattr(layer, name) is not keras.activations.get(item):
            raise PolicyError(f"model: {layer.name!r}: its {name} is code of its own")
    elif name.endswith("_initializer"):
        kind = item["class_name"] if isinstance(item, Mapping) else None
        if not isinstance(kind, str) or item.get("module") != "keras.initializers":
            raise PolicyError(f"model: {layer.name!r}: its {name} is code of its own")
        return {"kind": kind, **{key: one for key, one in item["config"].items() if one is not None
                                 or key == "seed"}}  # fmt: skip
    return item
