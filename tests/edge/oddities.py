"""Keras models that are hard to convert, or cannot be; used in a worker by test_convert."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

COMPARED = (
    "conv1d_causal", "mobilenet_v2", "autoencoder", "global_max", "hard_swish", "lstm_unrolled"
)  # fmt: skip
"""Models of the zoo whose outputs are compared."""

OWN_CLASS = """
import keras


@keras.saving.register_keras_serializable("own")
class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return inputs + inputs


def model():
    inputs = keras.Input((6,), name="rows")
    return keras.Model(inputs, keras.layers.Dense(2)(Doubled()(inputs)))
"""


def _models() -> dict[str, Callable[[], Any]]:
    import keras
    from keras import layers as of

    def chain(shape: tuple[int | None, ...], *layers: Any, **options: Any) -> Any:
        inputs = keras.Input(shape, name="rows", **options)
        outputs = inputs
        for layer in layers:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs)

    def two_inputs(named: bool) -> Any:
        first, second = keras.Input((4,), name="first"), keras.Input((3,), name="second")
        inputs = {"b": second, "a": first} if named else [first, second]
        joined = of.Concatenate()([first, second])
        return keras.Model(inputs, [of.Dense(2, name="left")(joined), of.ReLU(name="r")(joined)])

    class Own(keras.Model):
        def __init__(self) -> None:
            super().__init__(name="own")
            self.inner = of.Dense(3, name="inner")

        def call(self, inputs: Any) -> Any:
            return self.inner(inputs)

    def own(build: bool) -> Any:
        model = Own()
        if build:
            model(keras.ops.zeros((2, 5)))
        return model

    def nested() -> Any:
        inner = chain((6,), of.Dense(4, activation="relu", name="dense"))
        inner.name = "inner"
        return chain((6,), of.Dense(6, name="dense"), inner, of.Dense(2, name="dense_1"))

    return {
        "plain": lambda: chain((8, 8, 2), of.Conv2D(3, 3, name="conv"), of.Flatten(), of.Dense(4)),
        "sequential": lambda: keras.Sequential(
            [keras.Input((5,)), of.Dense(4, name="a"), of.Dense(3, name="a_1"), of.Softmax()]
        ),
        "nested": nested,
        "two_inputs": lambda: two_inputs(False),
        "two_named_inputs": lambda: two_inputs(True),
        "subclass": lambda: own(True),
        "unbuilt": lambda: own(False),
        "layer_norm": lambda: chain((6,), of.Dense(4), of.LayerNormalization(name="ln")),
        "group_norm": lambda: chain((4, 4, 4), of.GroupNormalization(2, name="gn")),
        "lstm": lambda: chain((6, 3), of.LSTM(4, name="cells")),
        "gru": lambda: chain((6, 3), of.GRU(4, name="cells")),
        "bidirectional": lambda: chain((6, 3), of.Bidirectional(of.LSTM(4), name="both")),
        "embedding": lambda: chain((6,), of.Embedding(9, 4, name="words")),
        "attention": lambda: two_to_one(keras, of),
        "gelu": lambda: chain((6,), of.Dense(4, activation="gelu", name="hidden"), of.Dense(2)),
        "elu": lambda: chain((6,), of.Dense(4), of.ELU(name="curve"), of.Dense(2)),
        "bilinear": lambda: chain(
            (4, 4, 2), of.UpSampling2D(2, interpolation="bilinear", name="up"), of.Conv2D(1, 1)
        ),
        "repeat": lambda: chain((6,), of.RepeatVector(3, name="again"), of.Dense(2)),
        "volume": lambda: chain((4, 4, 4, 1), of.Conv3D(2, 2, name="cube")),
        "dynamic": lambda: chain((None, 3), of.Conv1D(2, 3), of.GlobalAveragePooling1D()),
        "integers": lambda: chain((4,), of.Rescaling(0.5), of.Dense(2), dtype="uint8"),
        "half": lambda: chain((4,), of.Dense(2, dtype="mixed_float16", name="small")),
        "sums": lambda: chain((4, 3), of.Lambda(lambda x: x[:, 0] / (1 + abs(x[:, 1])))),
    }


def two_to_one(keras: Any, of: Any) -> Any:
    inputs = keras.Input((6, 4), name="rows")
    return keras.Model(inputs, of.MultiHeadAttention(2, 4, name="heads")(inputs, inputs))


def make(folder: Path) -> dict[str, Any]:
    """Converts every model: name -> bytes, or what the refusal says. Leaves some files behind."""
    import keras
    import zoo  # beside this file, which is in the worker's path

    from fedsys.edge.conversion.convert import convert

    (folder / "own.py").write_text(OWN_CLASS)
    made: dict[str, Any] = {}
    for name, build in _models().items():
        keras.backend.clear_session()
        model = build()
        if name in ("plain", "sums"):
            model.save(folder / f"{name}.keras")
        try:
            made[name] = convert(model, name)
        except Exception as error:
            made[name] = f"{type(error).__name__}: {error}"
    made["outputs"] = {name: zoo.keras_model(name)(zoo.rows(name, 3)).numpy() for name in COMPARED}
    space: dict[str, Any] = {}
    exec(OWN_CLASS, space)
    space["model"]().save(folder / "classes.keras")
    keras.saving.get_custom_objects().clear()  # as in a process that has not seen the class
    return made | load(folder)


def load(folder: Path) -> dict[str, Any]:
    """Converts files: name -> bytes, or what the refusal says."""
    from fedsys.edge.conversion.convert import _convert_file

    made: dict[str, Any] = {}
    (folder / "broken.py").write_text("import nothing_of_the_kind\n")
    for name, file, code in (
        ("lambda", "sums.keras", []),
        ("classes missing", "classes.keras", []),
        ("classes broken", "classes.keras", [folder / "broken.py"]),
        ("classes", "classes.keras", [folder / "own.py"]),
    ):
        try:
            made[name] = _convert_file(folder / file, code)
        except Exception as error:
            made[name] = f"{type(error).__name__}: {error}"
    return made
