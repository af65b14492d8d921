"""What the tests of translation and fine-tuning have done in a worker process.

TensorFlow and both Keras take seconds to import, so one process does it all.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fedsys.errors import FedsysError


def _fill(model: Any, seed: int = 0) -> Any:
    """Gives every weight a value that matters; variances stay above zero."""
    rng = np.random.default_rng(seed)
    for variable in model.weights:
        if variable.name == "seed_generator_state":
            continue
        value = rng.normal(0, 0.3, variable.shape)
        positive = variable.name in ("moving_variance", "gamma")
        variable.assign(np.abs(value) + 0.5 if positive else value)
    return model


# --- translation ---------------------------------------------------------------------------------


def _zoo(L: Any) -> dict[str, Any]:  # noqa: N803
    """name -> (shape of a row, layers)."""

    def block(x: Any) -> Any:
        for name, layer in (
            ("a", L.DepthwiseConv2D(3, strides=2, padding="same", use_bias=False)),
            ("b", L.Conv2D(6, 1, use_bias=False)),
        ):
            x = L.BatchNormalization(name=f"{name}_norm")(layer(x))
            x = L.ReLU(6.0, name=f"{name}_relu")(x)
        return x

    def residual(x: Any) -> Any:
        y = L.Conv2D(4, 3, padding="same")(x)
        return L.Flatten()(L.ReLU()(L.Add()([x, L.BatchNormalization()(y)])))

    def chain(*layers: Any) -> Any:
        def applied(x: Any) -> Any:
            for layer in layers:
                x = layer(x)
            return x

        return applied

    image = (8, 8, 4)
    return {
        "dense": ((9,), chain(L.Dense(7, activation="relu"), L.Dense(3))),
        "dense norm": ((9,), chain(L.Dense(7), L.BatchNormalization(), L.ReLU(), L.Dense(3))),
        "activations": (
            (9,),
            chain(
                L.Dense(7, activation="tanh"),
                L.Dense(7, activation="sigmoid"),
                L.Dense(7, activation="relu6"),
                L.Dense(7, activation="leaky_relu"),
                L.Dense(4, activation="softmax"),
            ),
        ),
        "activation layers": (
            (9,),
            chain(L.Dense(7), L.Activation("relu6"), L.Dense(5), L.Activation("relu"), L.Softmax()),
        ),
        "convolution": (
            image,
            chain(L.Conv2D(6, (3, 2), strides=2, padding="same"), L.Flatten(), L.Dense(2)),
        ),
        "dilated": (image, chain(L.Conv2D(6, 3, dilation_rate=2, activation="relu"))),
        "grouped": (image, chain(L.Conv2D(6, 3, groups=2))),
        "depthwise": (image, chain(L.DepthwiseConv2D(3, depth_multiplier=2))),
        "separable": (
            image,
            chain(L.SeparableConv2D(5, 3, depth_multiplier=2, activation="relu6")),
        ),
        "norm": (
            image,
            chain(L.Conv2D(3, 3, use_bias=False), L.BatchNormalization(epsilon=0.1, scale=False)),
        ),
        "separable norm": (image, chain(L.SeparableConv2D(5, 3), L.BatchNormalization(), L.ReLU())),
        "leaky": (image, chain(L.LeakyReLU(negative_slope=0.05))),
        "sloped": (image, chain(L.ReLU(negative_slope=0.2))),
        "limited": (image, chain(L.ReLU(max_value=0.7))),
        "pools": (
            image,
            chain(
                L.MaxPooling2D(2, strides=1, padding="same"),
                L.AveragePooling2D(3, strides=2, padding="same"),
                L.GlobalAveragePooling2D(),
            ),
        ),
        "kept": (image, chain(L.GlobalMaxPooling2D(keepdims=True), L.Reshape((4,)))),
        "moved": (
            image,
            chain(
                L.ZeroPadding2D(((1, 0), (2, 1))),
                L.Cropping2D(1),
                L.UpSampling2D(2),
                L.Permute((2, 1, 3)),
            ),
        ),
        "joined": (image, lambda x: L.Concatenate()([L.Conv2D(3, 1)(x), L.MaxPooling2D(1)(x)])),
        "dropped": (image, chain(L.Dropout(0.5), L.SpatialDropout2D(0.5), L.Conv2D(2, 3))),
        "residual": (image, residual),
        "block": (image, block),
        "transposed": (
            image,
            chain(L.Conv2DTranspose(3, 3, strides=2, padding="same", activation="relu")),
        ),
    }


def translations() -> dict[str, Any]:
    """Largest difference of outputs, relative to the largest output or one, by model."""
    import keras

    from fedsys.edge.tuning.legacy import translate

    def difference(model: Any) -> float:
        _fill(model)
        rows = np.random.default_rng(1).normal(size=(6, *model.input_shape[1:]))
        rows = rows.astype(np.float32)
        ours = np.asarray(model(rows, training=False))
        theirs = translate(model).model(rows, training=False).numpy()
        assert ours.shape == theirs.shape
        return float(np.abs(ours - theirs).max() / max(1.0, np.abs(ours).max()))

    found = {}
    for name, (shape, layers) in _zoo(keras.layers).items():
        inputs = keras.Input(shape)
        found[name] = difference(keras.Model(inputs, layers(inputs)))
    L = keras.layers  # noqa: N806
    inner = keras.Sequential([keras.Input((9,)), L.Dense(5, activation="relu", name="same")])
    found["sequential in a model"] = difference(
        keras.Sequential([keras.Input((9,)), inner, L.Dense(5, name="same_1")])
    )
    return found


def refusals() -> dict[str, str]:
    """What is said about models that cannot be translated."""
    import keras

    from fedsys.edge.tuning.legacy import translate

    L = keras.layers  # noqa: N806

    class Own(keras.Model):
        def call(self, x: Any) -> Any:
            return x

    def model(shape: tuple[int | None, ...], *layers: Any, **options: Any) -> Any:
        return keras.Sequential([keras.Input(shape, **options), *layers])

    shared = L.Dense(4, name="twice")
    inputs = keras.Input((4,))
    image = (8, 8, 2)
    unfit = {
        "conv1d": model((9, 2), L.Conv1D(3, 3, name="along")),
        "lstm": model((9, 2), L.LSTM(3, name="memory")),
        "layer norm": model((9,), L.LayerNormalization(name="norm")),
        "prelu": model((9,), L.PReLU(name="slopes")),
        "rescaling": model(image, L.Rescaling(0.1, name="scaled")),
        "multiply": keras.Model(inputs, L.Multiply(name="gate")([inputs, L.Dense(4)(inputs)])),
        "elu": model((9,), L.Dense(3, activation="elu", name="soft")),
        "own activation": model((9,), L.Dense(3, activation=lambda x: x * 2, name="odd")),
        "norm first": model(image, L.BatchNormalization(name="first"), L.Conv2D(2, 3)),
        "norm after relu": model(
            image, L.Conv2D(2, 3, activation="relu"), L.BatchNormalization(name="late")
        ),
        "threshold": model((9,), L.ReLU(threshold=1.0, name="high")),
        "shared": keras.Model(inputs, shared(shared(inputs))),
        "operation": keras.Model(inputs, inputs * 2.0),
        "subclass": Own(name="mine"),
        "open": model((None, 8, 2), L.Conv2D(2, 3)),
        "integers": model((4,), L.Dense(2), dtype="int32"),
    }
    said = {}
    for name, each in unfit.items():
        try:
            translate(each)
            said[name] = "translated"
        except FedsysError as error:
            said[name] = f"{type(error).__name__}: {error}"
    return said


def translated() -> dict[str, Any]:
    """Both of the above."""
    return {"differences": translations(), "refusals": refusals()}


# --- fine-tuning ---------------------------------------------------------------------------------


def narrow() -> Any:
    """A network with the layers that need care: normalised, depthwise, ReLU6 apart, residual."""
    import keras

    L = keras.layers  # noqa: N806
    inputs = x = keras.Input((8, 8, 1), name="inputs")
    x = L.Conv2D(8, 3, strides=2, padding="same", use_bias=False, name="stem")(x)
    x = L.ReLU(6.0, name="stem_relu")(L.BatchNormalization(name="stem_norm")(x))
    y = L.DepthwiseConv2D(3, padding="same", name="across")(x)
    y = L.ReLU(name="across_relu")(y)
    y = L.Conv2D(8, 1, activation="relu6", name="along")(y)
    x = L.Add(name="sum")([x, y])
    x = L.AveragePooling2D(2, name="pool")(x)
    x = L.Flatten(name="flatten")(x)
    return keras.Model(inputs, L.Dense(10, name="logits")(x), name="narrow")


def tune(
    folder: Path,
    rows: np.ndarray,
    labels: np.ndarray,
    order: np.ndarray,
    start: np.ndarray,
    runs: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Trains the narrow network a little, then fine-tunes it in each of some ways.

    runs: name -> arguments that differ; "keras" may name a model of `_others`.
    """
    import keras

    from fedsys.edge.tuning import qat_worker

    keras.utils.set_random_seed(0)
    model = narrow()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(rows, labels, epochs=6, batch_size=32, verbose=0)
    model.save(folder / "narrow.keras")
    for name, other in _others().items():
        other.save(folder / f"{name}.keras")
    (folder / "broken.keras").write_bytes(b"not a model")
    shared = {
        "rows": rows,
        "labels": labels,
        "order": order,
        "start": start,
        "objective": "classes",
        "qat": True,
        "prune": None,
        "cluster": None,
        "ranges": "measured",
        "rounds": 2,
        "cohort": len(start) - 1,
        "epochs": 1,
        "batch": 16,
        "rate": 0.003,
        "seed": 0,
        "progress": folder / "progress.txt",
    }
    made: dict[str, Any] = {}
    for name, differing in runs.items():
        arguments = {**shared, **differing}
        file = folder / f"{arguments.pop('keras', 'narrow')}.keras"
        try:
            tuned = qat_worker.fine_tune(file, **arguments)
            made[name] = {**tuned, **_read(tuned["keras"], folder, arguments["rows"])}
        except FedsysError as error:
            made[name] = f"{type(error).__name__}: {error}"
    return made


def _others() -> dict[str, Any]:
    """Models for single questions: one linear layer, and two inputs."""
    import keras

    L = keras.layers  # noqa: N806
    inputs = keras.Input((3,), name="inputs")
    linear = keras.Model(inputs, L.Dense(1, name="linear")(inputs))
    _fill(linear)
    other = keras.Input((3,), name="other")
    double = keras.Model([inputs, other], L.Add()([inputs, other]))
    return {"linear": linear, "double": double}


def _read(data: bytes, folder: Path, rows: np.ndarray) -> dict[str, Any]:
    """Of a .keras file: its weights by layer and name, and its outputs on rows."""
    import keras

    path = folder / "read.keras"
    path.write_bytes(data)
    model = keras.saving.load_model(path)
    return {
        "weights": {variable.path: variable.numpy() for variable in model.weights},
        "outputs": np.asarray(model(rows)),
    }
