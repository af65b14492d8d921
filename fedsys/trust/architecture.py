"""A Keras model as a table of numbers and words, and back; never as code.

    {"format": 1, "dtype": "float32",
     "inputs": [{"shape": [23], "dtype": "float32"}],
     "layers": [{"kind": "Dense", "reads": [0], "trainable": true, "options": {"units": 64, ...}},
                {"again": 1, "reads": [2]}, ...],
     "outputs": [3]}

Inputs and layers are numbered in one row; a layer reads from smaller numbers, so there are no
circles. `again` applies a layer a second time, with the same weights. `check` needs no Keras: it
knows every shape and the number of parameters beforehand, and refuses what is too large. `build`
constructs layers by name from the list of `layer_kinds`, and nothing else.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fedsys.errors import FedsysError, PolicyError, nearest
from fedsys.trust.layer_kind import Options, Shape
from fedsys.trust.layer_kinds import KINDS
from fedsys.trust.layer_options import Option, Several, Whole, Word, read_all

if TYPE_CHECKING:
    import keras

FORMAT = 1
DTYPES = ("float32", "float64")
INPUT_DTYPES = ("float32", "float64", "int32", "int64", "uint8")


@dataclass(frozen=True)
class Bounds:
    """How large a model may be. activations: numbers that all layers give for one row."""

    layers: int = 500
    inputs: int = 16
    parameters: int = 100_000_000
    activations: int = 50_000_000


@dataclass(frozen=True)
class Size:
    """What `check` found. shapes: of one row, by position; kinds: of the layers, in order."""

    parameters: int
    activations: int
    shapes: tuple[Shape, ...]
    kinds: tuple[str, ...]
    outputs: tuple[Shape, ...]


@dataclass(frozen=True)
class _Step:
    """A layer of a table that was found good. again: the position of the layer it is, or None."""

    kind: str
    reads: tuple[int, ...]
    options: Options
    trainable: bool
    again: int | None


@dataclass(frozen=True)
class _Plan:
    """A whole table that was found good."""

    dtype: str
    inputs: tuple[tuple[Shape, str], ...]
    steps: tuple[_Step, ...]
    outputs: tuple[int, ...]
    size: Size


def check(table: Mapping[str, Any], bounds: Bounds | None = None) -> Size:
    """The model's size, if the table is one that may be built. Raises PolicyError."""
    return _plan(table, bounds or Bounds()).size


# --- reading a table -----------------------------------------------------------------------------


def _plan(table: Mapping[str, Any], bounds: Bounds) -> _Plan:
    try:
        if not isinstance(table, Mapping):
            raise ValueError("must be a table")
        if table.get("format") != FORMAT:
            raise ValueError(f"not of format {FORMAT}: update fedsys on the older side")
        _fields(table, "format", "dtype", "inputs", "layers", "outputs")
        dtype = read_all({"dtype": Word(DTYPES)}, {"dtype": table["dtype"]})["dtype"]
        inputs = tuple(_input(one) for one in _list(table["inputs"], "inputs", bounds.inputs))
        shapes = [shape for shape, _ in inputs]
        steps: list[_Step] = []
        parameters, activations = 0, sum(map(math.prod, shapes))
        for one in _list(table["layers"], "layers", bounds.layers):
            where = f"layer {len(shapes)}"
            try:
                step = _step(one, steps, len(inputs), len(shapes))
                where += f" ({step.kind})"
                shape, count = _sized(step, shapes)
                if step.again is not None:
                    _same_inputs(step, steps[step.again - len(inputs)], shapes)
                    count = 0
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
            parameters, activations = parameters + count, activations + math.prod(shape)
            if parameters > bounds.parameters:
                raise ValueError(f"{where}: more than {bounds.parameters} parameters up to here")
            if activations > bounds.activations:
                raise ValueError(
                    f"{where}: more than {bounds.activations} numbers a row up to here"
                )
            shapes.append(shape)
            steps.append(step)
        outputs = tuple(Several(Whole(0, len(shapes) - 1), None, 16).read(table["outputs"]))
        _all_used(inputs, steps, outputs)
    except ValueError as error:
        raise PolicyError(f"architecture: {error}") from None
    size = Size(parameters, activations, tuple(shapes), tuple(step.kind for step in steps),
                tuple(shapes[at] for at in outputs))  # fmt: skip
    return _Plan(dtype, inputs, tuple(steps), outputs, size)


def _fields(table: Mapping[str, Any], *names: str) -> None:
    unknown = [name for name in table if name not in names]
    if unknown:
        raise ValueError(f"unknown field {str(unknown[0])[:40]!r}")
    missing = [name for name in names if name not in table]
    if missing:
        raise ValueError(f"{missing[0]}: is missing")


def _list(item: Any, name: str, most: int) -> list[Any]:
    if not isinstance(item, list | tuple) or not 0 < len(item) <= most:
        raise ValueError(f"{name}: must be a list of 1 to {most}")
    return list(item)


def _input(one: Any) -> tuple[Shape, str]:
    if not isinstance(one, Mapping):
        raise ValueError("inputs: each must be a table")
    options: dict[str, Option] = {"shape": Several(Whole()), "dtype": Word(INPUT_DTYPES)}
    try:
        values = read_all(options, one)
    except ValueError as error:
        raise ValueError(f"inputs: {error}") from None
    return tuple(values["shape"]), values["dtype"]


def _step(one: Any, steps: list[_Step], inputs: int, position: int) -> _Step:
    if not isinstance(one, Mapping):
        raise ValueError("must be a table")
    if "again" in one:
        _fields(one, "again", "reads")
        first = one["again"]
        if type(first) is not int or not inputs <= first < position:
            raise ValueError("again: must be the number of a layer before it")
        if steps[first - inputs].again is not None:
            raise ValueError("again: must be the number where the layer stands first")
        whole = steps[first - inputs]
        return _Step(whole.kind, _reads(one, position), whole.options, whole.trainable, first)
    _fields(one, "kind", "reads", "trainable", "options")
    kind = one["kind"]
    if type(kind) is not str or kind not in KINDS:
        raise ValueError(
            f"{str(kind)[:40]!r} is no layer that may travel; {nearest(str(kind)[:40], KINDS)}"
        )
    if type(one["trainable"]) is not bool:
        raise ValueError("trainable: must be true or false")
    if not isinstance(one["options"], Mapping):
        raise ValueError("options: must be a table")
    options = read_all(KINDS[kind].options, one["options"])
    return _Step(kind, _reads(one, position), options, one["trainable"], None)


def _reads(one: Mapping[str, Any], position: int) -> tuple[int, ...]:
    try:
        return tuple(Several(Whole(0, position - 1), None, 64).read(one["reads"]))
    except ValueError as error:
        raise ValueError(f"reads: {error}, each before itself") from None


def _sized(step: _Step, shapes: list[Shape]) -> tuple[Shape, int]:
    kind = KINDS[step.kind]
    read = [shapes[at] for at in step.reads]
    if kind.merges != (len(read) > 1):
        raise ValueError("reads several layers" if kind.merges else "reads one layer")
    shape = kind.shape(step.options, read)
    if min(shape, default=1) < 1:
        raise ValueError(f"nothing is left of rows of {list(read[0])}")
    return shape, kind.parameters(step.options, read)


def _same_inputs(step: _Step, first: _Step, shapes: list[Shape]) -> None:
    if [shapes[at] for at in step.reads] != [shapes[at] for at in first.reads]:
        raise ValueError("again: reads rows of another shape than the first time")


def _all_used(
    inputs: tuple[tuple[Shape, str], ...], steps: list[_Step], outputs: tuple[int, ...]
) -> None:
    used = {*outputs, *(at for step in steps for at in step.reads)}
    idle = [at for at in range(len(inputs) + len(steps)) if at not in used]
    if idle:
        raise ValueError(f"nothing reads from number {idle[0]}")
    if min(outputs) < len(inputs):
        raise ValueError("outputs: an input is no output")


# --- Keras ---------------------------------------------------------------------------------------


def build(table: Mapping[str, Any], bounds: Bounds | None = None) -> keras.Model:
    """The model that a table describes, with weights that its initializers draw.

    Raises PolicyError where the table is not allowed, or Keras cannot build it.
    """
    plan = _plan(table, bounds or Bounds())
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


def _built(plan: _Plan) -> keras.Model:
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
