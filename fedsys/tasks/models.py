"""The Keras models of the tasks.

Every model ends in logits (or a real value), without an activation: the loss is computed from
them. Layers and models carry names of their own, because those that Keras makes up depend on what
else the process has built. No seeds here: the initial weights come from the experiment's.

`shape` is the shape of one row of inputs; rows of several dimensions are flattened where a model
needs it, so that all models of a task read the same array.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedsys.errors import UsageError, nearest
from fedsys.tasks import own_model

if TYPE_CHECKING:
    import keras

Shape = tuple[int, ...]
Models = Mapping[str, Callable[..., "keras.Model"]]


def check_model(name: str, models: Models, task: str) -> None:
    """Raises UsageError unless `name` is one of the models of the task."""
    if name not in models:
        raise UsageError(
            f"task.model: unknown model {name!r} of task {task!r}; {nearest(name, models)}"
        )


def mlp(shape: Shape, outputs: int, hidden: tuple[int, ...] = (64,)) -> keras.Model:
    """Dense ReLU layers of the widths `hidden`, then `outputs` values."""
    return _dense(shape, outputs, hidden, "mlp")


def logistic(shape: Shape, outputs: int = 1) -> keras.Model:
    """One dense layer: logistic regression, or linear regression under a squared objective.

    With an output for every class it is multinomial logistic (softmax) regression.
    """
    return _dense(shape, outputs, (), "logistic")


TABULAR: Models = {"mlp": partial(mlp, hidden=(64, 32)), "logistic": logistic}
"""For rows of columns, in a table and at a bank: shape and number of outputs -> model."""


def check_tabular(name: str, task: str) -> None:
    """Raises UsageError unless `name` is one of `TABULAR`, or a file of Keras's."""
    if not name.endswith(own_model.SUFFIX):
        check_model(name, TABULAR, task)


def tabular(name: str) -> Callable[[Shape, int], keras.Model]:
    """Shape and number of outputs -> that model of `TABULAR`, or the one in a file, which is read
    now. Raises UsageError and DataError as `OwnModel` does."""
    if name.endswith(own_model.SUFFIX):
        return own_model.OwnModel.read(Path(name).expanduser())
    return TABULAR[name]


def uniform_logistic(shape: Shape) -> keras.Model:
    """Logistic regression begun like PyTorch's `nn.Linear`, to compare with work that used it.

    Kernel and bias are uniform within 1 / sqrt(inputs).
    """
    import keras

    bound = shape[0] ** -0.5
    inputs = keras.Input(shape, name="inputs")
    logit = keras.layers.Dense(
        1,
        kernel_initializer=keras.initializers.RandomUniform(-bound, bound),
        bias_initializer=keras.initializers.RandomUniform(-bound, bound),
        name="logits",
    )(inputs)
    return keras.Model(inputs, logit, name="uniform_logistic")


def two_nn(shape: Shape = (28, 28, 1), classes: int = 10) -> keras.Model:
    """The "2NN" of McMahan et al. 2017 (AISTATS, section 3): two layers of 200 ReLU units.

    199,210 parameters for 784 inputs and 10 classes.
    """
    return _dense(shape, classes, (200, 200), "two_nn")


def mcmahan_cnn(shape: Shape = (28, 28, 1), classes: int = 10) -> keras.Model:
    """The CNN of McMahan et al. 2017 (AISTATS, section 3).

    Two 5 x 5 convolutions (32 and 64 channels, each with 2 x 2 max pooling), 512 ReLU units:
    1,663,370 parameters for 28 x 28 x 1 inputs and 10 classes.
    """
    return _cnn(shape, classes, kernel=5, channels=(32, 64), units=512, name="mcmahan_cnn")


def small_cnn(shape: Shape, classes: int) -> keras.Model:
    """Two 3 x 3 convolutions (16 and 32 channels), each with 2 x 2 max pooling, 32 ReLU units."""
    return _cnn(shape, classes, kernel=3, channels=(16, 32), units=32, name="small_cnn")


def depthwise(shape: Shape = (28, 28, 1), classes: int = 10) -> keras.Model:
    """A depthwise-separable network for a microcontroller, after MobileNet (Howard et al. 2017).

    For 28 x 28 x 1 inputs and 10 classes: 17,290 parameters, 17.3 kB of int8 weights and int32
    biases once batch normalisation is folded, and at most 9.4 kB of int8 activations at a time.
    Only operators that int8 TensorFlow Lite has: convolution, depthwise convolution, average
    pooling of a fixed size, reshape, dense. Five epochs on Fashion-MNIST reach 90 %.
    """
    import keras

    inputs = keras.Input(shape, name="inputs")
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", use_bias=False, name="stem")(inputs)
    x = _normalised_relu6(x, "stem")
    for number, (channels, stride) in enumerate(((32, 1), (64, 2), (64, 1), (96, 1)), start=1):
        x = keras.layers.DepthwiseConv2D(
            3, strides=stride, padding="same", use_bias=False, name=f"depthwise{number}"
        )(x)
        x = _normalised_relu6(x, f"depthwise{number}")
        x = keras.layers.Conv2D(channels, 1, use_bias=False, name=f"pointwise{number}")(x)
        x = _normalised_relu6(x, f"pointwise{number}")
    # A pool of a fixed size: a global one becomes a MEAN, which fewer microcontrollers know.
    x = keras.layers.AveragePooling2D((x.shape[1], x.shape[2]), name="pool")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name="depthwise")


def _normalised_relu6(x: Any, name: str) -> Any:
    import keras

    # Momentum 0.9, not 0.99: a client takes few steps, and the averages must keep up.
    x = keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_norm")(x)
    return keras.layers.ReLU(6.0, name=f"{name}_relu")(x)


def _cnn(
    shape: Shape, classes: int, kernel: int, channels: tuple[int, ...], units: int, name: str
) -> keras.Model:
    import keras

    inputs = x = keras.Input(shape, name="inputs")
    for number, width in enumerate(channels, start=1):
        x = keras.layers.Conv2D(
            width, kernel, padding="same", activation="relu", name=f"convolution{number}"
        )(x)
        x = keras.layers.MaxPooling2D(2, name=f"pool{number}")(x)
    x = keras.layers.Flatten(name="flatten")(x)
    x = keras.layers.Dense(units, activation="relu", name="hidden")(x)
    return keras.Model(inputs, keras.layers.Dense(classes, name="logits")(x), name=name)


def _dense(shape: Shape, outputs: int, hidden: tuple[int, ...], name: str) -> keras.Model:
    import keras

    inputs = x = keras.Input(shape, name="inputs")
    if len(shape) > 1:
        x = keras.layers.Flatten(name="flatten")(x)
    for number, width in enumerate(hidden, start=1):
        x = keras.layers.Dense(width, activation="relu", name=f"hidden{number}")(x)
    x = keras.layers.Dense(outputs, name="logits")(x)
    return keras.Model(inputs, x, name=name)
