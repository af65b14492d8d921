"""A Keras 3 model as a float .tflite that a microcontroller's operators can run.

The conversion runs in a worker process (worker.py): the converter can crash. It is given a batch
of one by its signature; without that, TensorFlow leaves operators in the model that compute
shapes. Tensors are named after the layers that they come from.
"""

from __future__ import annotations

import re
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsys.edge.conversion import worker
from fedsys.edge.conversion.naming import MARK, rename
from fedsys.edge.tflite.flatbuffer import operator_name, packed, text, unpacked
from fedsys.errors import DataError, ExportError

if TYPE_CHECKING:
    import keras

OPERATORS = frozenset({
    "ADD", "AVERAGE_POOL_2D", "CONCATENATION", "CONV_2D", "DEPTHWISE_CONV_2D", "EXPAND_DIMS",
    "FULLY_CONNECTED", "HARD_SWISH", "LEAKY_RELU", "LOGISTIC", "MAX_POOL_2D", "MEAN", "MUL",
    "PACK", "PAD", "PRELU", "RELU", "RELU6", "RESHAPE", "RESIZE_NEAREST_NEIGHBOR", "SLICE",
    "SOFTMAX", "SPLIT", "SQUEEZE", "STRIDED_SLICE", "SUB", "TANH", "TRANSPOSE",
    "TRANSPOSE_CONV", "UNPACK",
})  # fmt: skip
"""What the generated code knows; nothing else may be left in a model."""

_NORMALISATION = "it takes means and roots of each input while it runs: use BatchNormalization"
_ATTENTION = "use Conv1D or DepthwiseConv2D layers, or global pooling"
_SEQUENCE = "its loop is no operator of a microcontroller: use Conv1D layers, or unroll=True"
_TEXT = "apply it where the data is prepared, and begin the model with numbers"
_LAYERS: Mapping[str, str] = {
    **dict.fromkeys(
        ("LayerNormalization", "GroupNormalization", "RMSNormalization", "UnitNormalization"),
        _NORMALISATION,
    ),
    **dict.fromkeys(
        ("MultiHeadAttention", "GroupedQueryAttention", "Attention", "AdditiveAttention"),
        _ATTENTION,
    ),
    **dict.fromkeys(("LSTM", "GRU", "SimpleRNN", "RNN"), _SEQUENCE),
    **dict.fromkeys(
        ("Bidirectional", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D"),
        "its loops are no operators of a microcontroller: use Conv1D or Conv2D layers",
    ),
    **dict.fromkeys(
        ("TextVectorization", "StringLookup", "IntegerLookup", "Hashing", "CategoryEncoding"),
        _TEXT,
    ),
    **dict.fromkeys(
        ("Conv3D", "Conv3DTranspose", "MaxPooling3D", "AveragePooling3D", "UpSampling3D"),
        "there are no operators for volumes: use Conv2D layers on slices of it",
    ),
    "Embedding": "it looks up rows by number: give the model the vectors or one-hot rows, "
    "and use Dense",
}
"""Layers that never become operators of a microcontroller, and what to use."""

_CURVE = "use ReLU, ReLU6 or hard_swish"
_COMPARE = "use arithmetic and ReLU in place of choices between values"
_REMEDIES: Mapping[str, str] = {
    **dict.fromkeys(("GELU", "ELU", "EXP", "LOG", "ERF", "POW", "SIN", "COS"), _CURVE),
    **dict.fromkeys(("SELECT", "SELECT_V2", "WHERE", "LESS", "GREATER", "EQUAL"), _COMPARE),
    **dict.fromkeys(("RSQRT", "SQRT", "SQUARED_DIFFERENCE", "DIV"), "use BatchNormalization"),
    **dict.fromkeys(("GATHER", "GATHER_ND", "EMBEDDING_LOOKUP", "ONE_HOT"), _LAYERS["Embedding"]),
    **dict.fromkeys(("MAXIMUM", "MINIMUM", "ABS", "NEG"), "build it from ReLU, Add and Subtract"),
    **dict.fromkeys(("REDUCE_MAX", "REDUCE_MIN"), "use MaxPooling2D over the whole image"),
    **dict.fromkeys(("WHILE", "IF", "CALL_ONCE", "VAR_HANDLE"), _SEQUENCE),
    **dict.fromkeys(("SHAPE", "RANGE", "FILL"), "make every size of the model fixed"),
    "TILE": "use Conv2DTranspose, or Resizing(..., interpolation='nearest')",
    "RESIZE_BILINEAR": "use interpolation='nearest', or Conv2DTranspose",
    "BATCH_MATMUL": _ATTENTION,
    "CAST": "give the model float32 inputs and layers",
    "MIRROR_PAD": "use ZeroPadding2D, or padding='same'",
    "SUM": "use GlobalAveragePooling, which is the sum but for a factor",
}
"""Operators that a conversion may leave, and what to use."""


def float_model(keras_file: Path | str, code: Sequence[Path] = ()) -> bytes:
    """A Keras 3 model as a float .tflite: batch of one, operators of a microcontroller alone.

    keras_file: a `.keras` file. code: Python files that define the model's own classes, each
        decorated with `@keras.saving.register_keras_serializable()`.

    The same file gives the same bytes. Raises DataError where there is no model in the file, and
    ExportError where the model cannot run on a microcontroller, with the layer, the operator and
    what to use instead.
    """
    path = Path(keras_file)
    if not path.is_file():
        raise DataError(f"{path}: no such file: give a model saved as .keras")
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: is no Keras 3 model: save it with model.save('model.keras')")
    for file in code:
        if not Path(file).is_file():
            raise DataError(f"{file}: no such file: give the Python file with the model's classes")
    converted: bytes = worker.call(
        _convert_file,
        path=path,
        code=[Path(file) for file in code],
        doing=f"converting {path}",
    )
    return converted


# --- in the worker -------------------------------------------------------------------------------


def _convert_file(path: Path, code: Sequence[Path]) -> bytes:
    """Loads and converts one model."""
    for number, file in enumerate(code):
        _import(file, f"_fedsys_code_{number}")
    return convert(_loaded(path), str(path))


def convert(model: keras.Model, place: str = "model") -> bytes:
    """As `float_model`, of a model in this process, which may crash.

    The model's layers bear other names while it runs. place: what messages call the model.
    """
    import keras

    specs = _inputs(model, place)
    _layers_fit(model, place)
    _write_alike(keras)
    names = _names(model)
    _mark(model)
    try:
        made = unpacked(_converted(model, specs))
    except Exception as error:  # Keras and the converter raise whatever they like
        raise ExportError(f"{place}: {_reason(error)}") from error
    finally:
        _unmark(model)
    rename(made, *names)
    _operators_fit(made, place)
    return packed(made)


def _converted(model: keras.Model, specs: Any) -> bytes:
    """The model in TensorFlow Lite's own operators: `Model.export` would let others in."""
    import functools

    import keras
    import tensorflow as tf

    archive = keras.export.ExportArchive()
    archive.track(model)
    forward = functools.partial(model.__call__, training=False)
    archive.add_endpoint("serve", forward, input_signature=specs)
    with tempfile.TemporaryDirectory(prefix="fedsys-") as folder:
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(folder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        made: bytes = converter.convert()
    return made


def _import(file: Path, name: str) -> None:
    import importlib.util
    import sys

    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise DataError(f"{file}: is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    sys.path.insert(0, str(file.parent))
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # the user's own code
        raise ExportError(f"{file}: cannot be imported: {_said(error)}") from error


def _loaded(path: Path) -> keras.Model:
    import keras

    try:
        return keras.models.load_model(path, compile=False)
    except Exception as error:  # Keras raises whatever it likes
        said = str(error)
        missing = re.search(r"Could not locate class '(\w+)'", said)
        if missing:
            raise ExportError(
                f"{path}: needs the class {missing[1]}, which is not in the file: decorate it with "
                "@keras.saving.register_keras_serializable() and name the Python file that "
                "defines it"
            ) from error
        if "Lambda" in said or "lambda" in said:
            raise ExportError(
                f"{path}: has a Lambda layer, whose code is not in the file: make it a layer class "
                "with @keras.saving.register_keras_serializable()"
            ) from error
        raise DataError(
            f"{path}: Keras cannot load it ({_said(error)}): save it anew with "
            "model.save('model.keras')"
        ) from error


def _inputs(model: keras.Model, place: str) -> Any:
    """The signature of a batch of one, in the form in which the model takes its inputs."""
    import tensorflow as tf

    given = _tensors(model, "inputs")
    if given:
        found = [(tensor.name, tuple(tensor.shape), tensor.dtype) for tensor in given]
    else:  # a subclass of Model: what it was called with
        shape = (model.get_build_config() or {}).get("input_shape")
        if not shape or not all(size is None or isinstance(size, int) for size in shape):
            raise ExportError(
                f"{place}: does not say the shape of its one input: build it with keras.Input, or "
                "call it once on rows before it is saved"
            )
        found = [("input", tuple(shape), "float32")]
    for name, shape, dtype in found:
        if None in shape[1:]:
            sizes = ", ".join("None" if size is None else str(size) for size in shape[1:])
            raise ExportError(
                f"{place}: input {name!r} has the shape ({sizes}), with a size that is not known: "
                "give keras.Input fixed sizes"
            )
        if dtype != "float32":
            raise ExportError(
                f"{place}: input {name!r} is {dtype}: build the model with float32 inputs and "
                "prepare the data outside"
            )
    specs = [tf.TensorSpec((1, *shape[1:]), dtype) for _, shape, dtype in found]
    structure = getattr(model, "_inputs_struct", None)  # of a functional model: as it was built
    if isinstance(structure, dict):
        named = {id(tensor): spec for tensor, spec in zip(given, specs, strict=True)}
        return [{key: named[id(tensor)] for key, tensor in structure.items()}]
    return [specs] if len(specs) > 1 else specs


def _all_layers(model: keras.Model) -> Iterable[keras.Layer]:
    """Every layer of a model and of the models and layers in it, not the model itself."""
    return [layer for layer in model._flatten_layers() if layer is not model]


def _layers_fit(model: keras.Model, place: str) -> None:
    """Refuses layers that never become operators of a microcontroller."""
    for layer in _all_layers(model):
        kind = type(layer).__name__
        if type(layer).__module__.startswith("keras.") and kind in _LAYERS:
            if getattr(layer, "unroll", False):
                continue
            raise ExportError(
                f"{place}: layer {layer.name!r} ({kind}) cannot run on a microcontroller: "
                f"{_LAYERS[kind]}"
            )
        if getattr(layer, "compute_dtype", "float32") not in ("float32", None):
            raise ExportError(
                f"{place}: layer {layer.name!r} computes in {layer.compute_dtype}: build the model "
                "in float32 (keras.config.set_dtype_policy('float32'))"
            )


def _write_alike(keras: Any) -> None:
    """Has two layers write themselves with operators that microcontrollers have.

    Keras repeats rows and columns with TILE where a nearest-neighbour resize by a whole factor
    is the same, and takes maxima over an image with REDUCE_MAX where a pool of its size is.
    """
    import tensorflow as tf

    before_up, before_max = keras.layers.UpSampling2D.call, keras.layers.GlobalMaxPooling2D.call

    def up(self: Any, inputs: Any) -> Any:
        if self.interpolation != "nearest" or self.data_format != "channels_last":
            return before_up(self, inputs)
        sizes = [inputs.shape[1] * self.size[0], inputs.shape[2] * self.size[1]]
        return tf.image.resize(inputs, sizes, method="nearest")

    def most(self: Any, inputs: Any) -> Any:
        if self.data_format != "channels_last":
            return before_max(self, inputs)
        pooled = tf.nn.max_pool2d(inputs, inputs.shape[1:3], 1, "VALID")
        shape = (-1, 1, 1, inputs.shape[3]) if self.keepdims else (-1, inputs.shape[3])
        return tf.reshape(pooled, shape)

    keras.layers.UpSampling2D.call, keras.layers.GlobalMaxPooling2D.call = up, most


def _reason(error: Exception) -> str:
    """What the converter says, cut to the line that says something."""
    said = str(error)
    found = re.findall(r"'(?:tf|tfl)\.(\w+)' op is neither a custom op nor a flex op", said)
    if found:
        return f"operator {found[0]} is none of a microcontroller: use other layers"
    return f"cannot be converted: {_said(error)}"


def _said(error: Exception) -> str:
    """An exception in one short line."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines)[:300]}"


# --- names ---------------------------------------------------------------------------------------


def _names(model: keras.Model) -> tuple[list[str], list[str]]:
    """What inputs and outputs are to be called: the inputs' names, the layers of the outputs."""
    inputs = [tensor.name for tensor in _tensors(model, "inputs")] or ["input"]
    outputs = [tensor._keras_history.operation.name for tensor in _tensors(model, "outputs")]
    return inputs, outputs or ["output"]


def _tensors(model: keras.Model, end: str) -> list[Any]:
    """The symbolic inputs or outputs of a model; none where it is a subclass with code of its
    own."""
    return list(getattr(model, end, None) or ())


def _mark(model: keras.Model) -> None:
    for layer in [model, *_all_layers(model)]:
        layer.name += MARK


def _unmark(model: keras.Model) -> None:
    for layer in [model, *_all_layers(model)]:
        layer.name = layer.name.removesuffix(MARK)


# --- what may be left ----------------------------------------------------------------------------


def _operators_fit(made: Any, place: str) -> None:
    """Refuses what is left in the file that a microcontroller cannot run."""
    if len(made.subgraphs) != 1:
        raise ExportError(f"{place}: has loops or branches: {_SEQUENCE}")
    graph = made.subgraphs[0]
    for operator in graph.operators:
        code = operator_name(made, operator)
        if code in OPERATORS:
            continue
        layer = text(graph.tensors[operator.outputs[0]].name)
        kind = "a TensorFlow operator" if code.startswith("Flex") else "an operator"
        remedy = _REMEDIES.get(code, "use layers of dense, convolution, pooling and ReLU kinds")
        raise ExportError(
            f"{place}: layer {layer!r} needs {code}, {kind} that cannot run on a microcontroller: "
            f"{remedy}"
        )
    for tensor in graph.tensors:
        if tensor.shape is not None and (tensor.shape < 0).any():
            raise ExportError(
                f"{place}: tensor {text(tensor.name)!r} has a size that is not known: give "
                "keras.Input fixed sizes"
            )
