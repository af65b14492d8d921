"""Small Keras models with every operator that is exported, and their .tflite files.

`int8(name)` and `floating(name)` give the files, `rows(name, n)` rows to run them on. All models
are converted in one worker process when the first is asked for, and kept in a folder of the
cache of pytest under a name that changes with whatever they come from.
"""

# ruff: noqa: N803

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / ".pytest_cache" / "fedsys-zoo"
CALIBRATION = 16
"""Rows that each model's ranges come from."""

Build = Callable[[], Any]
_BUILDS: dict[str, Build] = {}
SHAPES: dict[str, tuple[int, ...]] = {}
"""What a row of each model looks like, without the batch."""


def _model(*shape: int) -> Callable[[Callable[[Any, Any], Any]], Build]:
    """Puts a model into the zoo: a function of the input tensor and `keras.layers`."""

    def put(layers: Callable[[Any, Any], Any]) -> Build:
        name = layers.__name__

        def build() -> Any:
            import keras

            inputs = keras.Input(shape, name="rows")
            model = keras.Model(inputs, layers(inputs, keras.layers), name=name)
            _fill(model, name)
            return model

        _BUILDS[name], SHAPES[name] = build, shape
        return build

    return put


# --- the models ----------------------------------------------------------------------------------


@_model(20)
def dense(x, L):
    x = L.Dense(16, activation="relu", name="hidden")(x)
    x = L.Dense(12, activation="relu6", name="second")(x)
    return L.Dense(5, name="logits")(x)


@_model(20)
def dense_softmax(x, L):
    x = L.Dense(9, activation="tanh")(x)
    x = L.Dense(8, activation="sigmoid", use_bias=False)(x)
    return L.Dense(4, activation="softmax")(x)


@_model(4, 6)
def dense_rows(x, L):
    x = L.Dense(7, activation="relu")(x)
    return L.Dense(3)(x)


@_model(24, 5)
def conv1d(x, L):
    x = L.Conv1D(8, 5, padding="same", activation="relu")(x)
    x = L.MaxPooling1D(2)(x)
    x = L.Conv1D(6, 3, strides=2)(x)
    x = L.GlobalAveragePooling1D()(x)
    return L.Dense(4)(x)


@_model(24, 5)
def conv1d_causal(x, L):
    x = L.Conv1D(8, 3, padding="causal", dilation_rate=2, activation="relu")(x)
    x = L.Conv1D(8, 3, padding="same", dilation_rate=3)(x)
    x = L.AveragePooling1D(3, strides=2, padding="same")(x)
    return L.Flatten()(x)


@_model(24, 5)
def separable1d(x, L):
    x = L.SeparableConv1D(8, 3, padding="same", activation="relu")(x)
    x = L.DepthwiseConv1D(3, strides=2)(x)
    return L.Dense(4)(L.Flatten()(x))


@_model(13, 11, 3)
def conv2d_valid(x, L):
    x = L.Conv2D(6, (3, 2), strides=(2, 1), activation="relu6")(x)
    x = L.Conv2D(5, 1, activation="relu")(x)
    return L.Conv2D(4, (1, 3))(x)


@_model(13, 11, 3)
def conv2d_same(x, L):
    x = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = L.Conv2D(7, (4, 3), padding="same")(x)
    return L.Conv2D(4, 5, strides=(1, 3), padding="same", activation="relu6")(x)


@_model(12, 12, 2)
def conv2d_dilated(x, L):
    x = L.Conv2D(4, 3, dilation_rate=2, activation="relu")(x)
    x = L.Conv2D(4, 3, dilation_rate=(1, 2), padding="same")(x)
    return L.DepthwiseConv2D(3, dilation_rate=2, padding="same")(x)


@_model(8, 8, 4)
def conv2d_groups(x, L):
    x = L.Conv2D(8, 3, groups=2, padding="same", activation="relu")(x)
    return L.Conv2D(4, 1, groups=4)(x)


@_model(11, 9, 3)
def depthwise(x, L):
    x = L.DepthwiseConv2D(3, padding="same", activation="relu")(x)
    x = L.DepthwiseConv2D(3, strides=2, depth_multiplier=2)(x)
    x = L.SeparableConv2D(5, 3, padding="same", activation="relu6")(x)
    return L.DepthwiseConv2D((2, 3), strides=2, padding="same")(x)


@_model(8, 8, 6)
def residual(x, L):
    y = L.Conv2D(6, 3, padding="same", activation="relu")(x)
    y = L.Conv2D(6, 3, padding="same")(y)
    y = L.ReLU()(L.Add()([x, y]))
    z = L.Conv2D(6, 1)(y)
    z = L.Subtract()([z, y])
    return L.Dense(4)(L.GlobalAveragePooling2D()(z))


@_model(8, 8, 6)
def squeeze_excite(x, L):
    y = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    s = L.GlobalAveragePooling2D(keepdims=True)(y)
    s = L.Conv2D(4, 1, activation="relu")(s)
    s = L.Conv2D(8, 1, activation="sigmoid")(s)
    return L.Conv2D(3, 1)(L.Multiply()([y, s]))


@_model(10, 10, 3)
def batch_norm(x, L):
    x = L.Conv2D(6, 3)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.BatchNormalization()(x)  # after the activation: stays a product and a sum
    x = L.Flatten()(x)
    return L.Dense(5)(x)


@_model(11, 11, 4)
def pooling(x, L):
    a = L.MaxPooling2D(3, strides=2, padding="same")(x)
    b = L.AveragePooling2D(3, strides=2, padding="same")(x)
    y = L.Concatenate()([a, b])
    y = L.MaxPooling2D((2, 3))(y)
    y = L.ReLU(6.0)(L.AveragePooling2D(2, strides=1)(y))
    return L.Dense(4)(L.Flatten()(y))


@_model(9, 9, 4)
def global_max(x, L):
    x = L.Conv2D(6, 3)(x)
    return L.Dense(3)(L.GlobalMaxPooling2D()(x))


@_model(24, 24, 3)
def mobilenet_v1(x, L):
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False)(x)
    x = L.ReLU(6.0)(L.BatchNormalization()(x))
    for filters, stride in ((16, 1), (24, 2), (24, 1)):
        x = L.DepthwiseConv2D(3, strides=stride, padding="same", use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
        x = L.Conv2D(filters, 1, use_bias=False)(x)
        x = L.ReLU(6.0)(L.BatchNormalization()(x))
    x = L.GlobalAveragePooling2D()(x)
    return L.Dense(2, activation="softmax")(x)


@_model(16, 16, 4)
def mobilenet_v2(x, L):
    y = L.Conv2D(16, 1, use_bias=False)(x)
    y = L.ReLU(6.0)(L.BatchNormalization()(y))
    y = L.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
    y = L.ReLU(6.0)(L.BatchNormalization()(y))
    y = L.BatchNormalization()(L.Conv2D(4, 1, use_bias=False)(y))
    y = L.ZeroPadding2D(((0, 1), (0, 1)))(L.Add()([x, y]))
    y = L.DepthwiseConv2D(3, strides=2, activation="relu6")(y)
    return L.Dense(4)(L.GlobalAveragePooling2D()(y))


@_model(16, 16, 1)
def autoencoder(x, L):
    x = L.Conv2D(6, 3, strides=2, padding="same", activation="relu")(x)
    x = L.Conv2D(4, 3, strides=2, padding="same", activation="relu")(x)
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same", activation="relu")(x)
    x = L.UpSampling2D(2)(x)
    return L.Conv2D(1, 3, padding="same", activation="sigmoid")(x)


@_model(5, 6, 3)
def transposed(x, L):
    x = L.Conv2DTranspose(4, (2, 3), strides=(2, 3), activation="relu6")(x)
    return L.Conv2DTranspose(2, 3, padding="same")(x)


@_model(40)
def dense_autoencoder(x, L):
    for units in (32, 8, 32):
        x = L.ReLU()(L.BatchNormalization()(L.Dense(units)(x)))
    return L.Dense(40)(x)


@_model(9, 9, 3)
def hard_swish(x, L):
    x = L.Conv2D(6, 3, activation="hard_swish")(x)
    x = L.Conv2D(6, 1, activation="hard_sigmoid")(x)
    return L.Conv2D(3, 1, activation="silu")(x)


@_model(9, 9, 3)
def prelu(x, L):
    x = L.PReLU(shared_axes=[1, 2])(L.Conv2D(6, 3)(x))
    return L.Dense(4)(L.PReLU()(L.Flatten()(x)))


@_model(9, 9, 3)
def leaky_relu(x, L):
    x = L.LeakyReLU(0.1)(L.Conv2D(6, 3)(x))
    return L.LeakyReLU(0.3)(L.Conv2D(4, 3)(x))


@_model(6, 5, 4)
def moves(x, L):
    """What only moves numbers: transposed, cut, joined, padded and reshaped."""
    a = L.Permute((2, 1, 3))(x)
    a = L.Cropping2D(((1, 1), (0, 2)))(a)
    a = L.ZeroPadding2D(((1, 0), (2, 1)))(a)
    b = L.Reshape((4, 7, 4))(L.Conv2D(4, 1)(a))
    y = L.Concatenate(axis=-1)([a, b])
    return L.Conv2D(2, (2, 1), strides=(1, 2))(y)


@_model(10)
def normalised(x, L):
    spread = [1.0 + 0.2 * i for i in range(10)]
    x = L.Normalization(mean=[0.3 * i - 1 for i in range(10)], variance=spread)(x)
    x = L.Dense(8, activation="relu")(x)
    return L.Dense(1, activation="sigmoid")(x)


@_model(8, 4)
def lstm_unrolled(x, L):
    return L.Dense(3)(L.LSTM(6, unroll=True)(x))


@_model(14, 14, 1)
def digits(x, L):
    x = L.Conv2D(8, 3, padding="same", activation="relu")(x)
    x = L.MaxPooling2D(2)(x)
    x = L.Conv2D(12, 3, activation="relu")(x)
    x = L.MaxPooling2D(2)(x)
    return L.Dense(10)(L.Flatten()(x))


@_model(49, 10, 1)
def kws_ds_cnn(x, L):
    """The keyword-spotting DS-CNN of the MLPerf Tiny shape: 49 x 10 x 1 in, 12 classes out."""
    x = L.Conv2D(64, (10, 4), strides=2, padding="same", use_bias=False)(x)
    x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Dropout(0.2)(x)
    for _ in range(4):
        x = L.DepthwiseConv2D(3, padding="same", use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
        x = L.Conv2D(64, 1, use_bias=False)(x)
        x = L.ReLU()(L.BatchNormalization()(x))
    x = L.Dropout(0.4)(x)
    x = L.AveragePooling2D((25, 5))(x)
    return L.Dense(12, activation="softmax")(L.Flatten()(x))


NAMES = tuple(_BUILDS)


# --- what others use -----------------------------------------------------------------------------


def keras_model(name: str) -> Any:
    """The Keras model itself, with weights that are the same every time."""
    return _BUILDS[name]()


def rows(name: str, count: int = CALIBRATION, seed: int = 0) -> np.ndarray:
    """[count, *shape] float32 normal rows for a model."""
    rng = np.random.default_rng([zlib.crc32(name.encode()), seed])
    return rng.normal(size=(count, *SHAPES[name])).astype(np.float32)


def floating(name: str) -> bytes:
    """The model as a float .tflite."""
    return (_files() / f"{name}.float.tflite").read_bytes()


def int8(name: str) -> bytes:
    """The model as an int8 .tflite, its ranges from `rows(name)`."""
    return (_files() / f"{name}.int8.tflite").read_bytes()


@functools.lru_cache
def _files() -> Path:
    """The folder with all files, which are made if need be."""
    from fedsys.edge.conversion import worker

    folder = CACHE / _key()
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE) as place:
            paths = [str(Path(__file__).parent), *sys.path]
            made: Mapping[str, bytes] = worker.call(
                "zoo:make_all",
                doing="converting the zoo",
                environment={"PYTHONPATH": os.pathsep.join(paths)},
            )
            part = Path(place) / "all"
            part.mkdir()
            for name, data in made.items():
                (part / name).write_bytes(data)
            try:
                os.replace(part, folder)
            except OSError:  # another process was first
                assert folder.exists()
    return folder


def make_all() -> dict[str, bytes]:
    """Converts every model; runs in a worker process."""
    import keras

    from fedsys.edge.calibration.ranges import calibrate
    from fedsys.edge.conversion.convert import convert
    from fedsys.edge.conversion.quantize import quantize_here

    made = {}
    for name in NAMES:
        keras.backend.clear_session()
        model = convert(keras_model(name), name)
        made[f"{name}.float.tflite"] = model
        ranges = calibrate(model, rows(name))
        made[f"{name}.int8.tflite"] = quantize_here(model, ranges, "int8")
    return made


def _key() -> str:
    """Changes with whatever the files are made of."""
    digest = hashlib.sha256()
    rooms = [ROOT / "edge" / room for room in ("conversion", "calibration", "tflite")]
    for file in (Path(__file__), *(file for room in rooms for file in sorted(room.glob("*.py")))):
        digest.update(file.read_bytes())
    for package in ("keras", "tensorflow", "ai-edge-quantizer", "ai-edge-litert"):
        digest.update(importlib.metadata.version(package).encode())
    return digest.hexdigest()[:16]


def _fill(model: Any, name: str) -> None:
    """Weights that do not depend on a global generator, of sizes that keep activations near one."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    for variable in model.weights:
        if variable.dtype != "float32":  # the state of a random generator
            continue
        shape, kind = tuple(variable.shape), variable.name
        if kind in ("gamma", "moving_variance"):
            values = rng.uniform(0.5, 1.5, shape)
        elif kind == "alpha":
            values = rng.uniform(0.05, 0.4, shape)
        elif kind in ("bias", "beta", "moving_mean"):
            values = rng.normal(0, 0.2, shape)
        else:
            fan = max(1, int(np.prod(shape[:-1])))
            values = rng.normal(0, np.sqrt(2 / fan), shape)
        variable.assign(values.astype(np.float32))
