"""Every kind of layer that may travel, in small networks: options off their defaults."""

# ruff: noqa: N803

from collections.abc import Callable
from typing import Any

NETWORKS: dict[str, tuple[tuple[tuple[int, ...], ...], Callable[..., Any]]] = {}
"""Name -> (shapes of its inputs, function of `keras.layers` and the inputs to the output)."""


def network(*shapes: tuple[int, ...]) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def put(layers: Callable[..., Any]) -> Callable[..., Any]:
        NETWORKS[layers.__name__] = (shapes, layers)
        return layers

    return put


def make(name: str) -> Any:
    import keras

    shapes, layers = NETWORKS[name]
    inputs = [keras.Input(shape) for shape in shapes]
    outputs = layers(keras.layers, *inputs)
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], outputs)


@network((7,))
def dense_and_activations(L, x):
    x = L.Dense(6, activation="gelu", kernel_initializer="he_normal")(x)
    x = L.Activation("mish")(L.Dense(6, use_bias=False, activation="softsign")(x))
    x = L.ELU(0.5)(L.LeakyReLU(0.05)(L.ReLU(4.0, negative_slope=0.1, threshold=0.01)(x)))
    return L.Softmax()(L.Identity()(L.PReLU()(x)))


@network((7,))
def initializers(L, x):
    import keras.initializers as I  # noqa: N812

    for one in (
        I.Zeros(), I.Ones(), I.Constant(0.25), I.RandomUniform(-0.2, 0.3, seed=3),
        I.RandomNormal(0.1, 0.2), I.TruncatedNormal(0.0, 0.3), I.Orthogonal(2.0),
        I.GlorotNormal(5), I.GlorotUniform(), I.HeNormal(), I.HeUniform(), I.LecunNormal(),
        I.LecunUniform(),
    ):  # fmt: skip
        x = L.Dense(7, kernel_initializer=one, bias_initializer=I.Constant(0.01))(x)
    return x


@network((12, 4))
def one_dimension(L, x):
    x = L.ZeroPadding1D((1, 2))(L.Cropping1D((1, 0))(L.UpSampling1D(2)(x)))
    x = L.Conv1D(6, 3, padding="causal", groups=2)(x)
    x = L.SeparableConv1D(6, 3, depth_multiplier=2, padding="same")(x)
    x = L.DepthwiseConv1D(3, strides=2, depth_multiplier=2, activation="tanh")(x)
    x = L.Conv1DTranspose(5, 4, strides=3)(x)
    x = L.Conv1DTranspose(5, 2, strides=3, padding="same")(x)
    x = L.SpatialDropout1D(0.2, seed=4)(x)
    x = L.MaxPooling1D(3, strides=2, padding="same")(x)
    x = L.AveragePooling1D(3)(x)
    y = L.GlobalAveragePooling1D(keepdims=True)(x)
    return L.Concatenate()([L.GlobalMaxPooling1D()(x), L.Flatten()(y)])


@network((9, 8, 3))
def two_dimensions(L, x):
    x = L.Cropping2D(((0, 1), (1, 0)))(L.ZeroPadding2D(((1, 2), (0, 3)))(x))
    x = L.Conv2D(6, (3, 2), dilation_rate=(1, 2), groups=3, use_bias=False)(x)
    x = L.SeparableConv2D(5, 3, strides=2, padding="same", depth_multiplier=2)(x)
    x = L.DepthwiseConv2D((2, 1), depth_multiplier=3)(x)
    x = L.Conv2DTranspose(4, (3, 2), strides=(1, 2), padding="valid")(x)
    x = L.Conv2DTranspose(4, 3, dilation_rate=2)(x)
    x = L.UpSampling2D((2, 1), interpolation="bilinear")(x)
    a = L.MaxPooling2D((2, 3), strides=(2, 1))(x)
    b = L.AveragePooling2D((2, 3), strides=(2, 1))(x)
    x = L.Maximum()([a, b])
    y = L.GlobalMaxPooling2D(keepdims=True)(x)
    return L.Concatenate()([L.GlobalAveragePooling2D()(x), L.Flatten()(y)])


@network((4, 6))
def normalised(L, x):
    x = L.Rescaling(0.5, 0.1)(x)
    x = L.Normalization(mean=[0.1 * i for i in range(6)], variance=[1.0 + i for i in range(6)])(x)
    x = L.Normalization(mean=0.3, variance=2.0)(x)
    x = L.BatchNormalization(axis=1, momentum=0.8, epsilon=1e-4, scale=False)(x)
    x = L.BatchNormalization(gamma_initializer="random_uniform")(x)
    x = L.LayerNormalization(center=False, epsilon=1e-5)(x)
    x = L.GroupNormalization(3)(x)
    x = L.GaussianNoise(0.2)(L.Dropout(0.3, seed=7)(x))
    return L.PReLU(shared_axes=[1])(x)


@network((6,))
def shapes(L, x):
    x = L.RepeatVector(4)(x)
    x = L.Permute((2, 1))(x)
    x = L.Reshape((2, -1, 3))(x)
    x = L.Permute((3, 1, 2))(L.Reshape((4, 2, 3))(x))
    return L.Flatten()(x)


@network((5, 4))
def recurrent(L, x):
    a = L.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid", dropout=0.1)(x)
    a = L.LSTM(4, unroll=True, unit_forget_bias=False, use_bias=False)(a)
    b = L.GRU(3, return_sequences=True, go_backwards=True)(x)
    b = L.GRU(4, reset_after=False, recurrent_dropout=0.2, seed=1)(b)
    c = L.SimpleRNN(4, activation="relu")(L.SimpleRNN(3, return_sequences=True)(x))
    return L.Concatenate()([a, b, c])


@network((5,), (5,), (1,))
def merged(L, a, b, c):
    x = L.Add()([a, b, c])
    y = L.Subtract()([L.Multiply()([a, b]), L.Average()([x, a])])
    return L.Concatenate(axis=1)([L.Minimum()([x, y]), L.Maximum()([x, a]), y])


@network((5,), (5,))
def twins(L, a, b):
    """Two inputs through the same layers."""
    shared, again = L.Dense(4, activation="tanh"), L.Dense(3)
    return L.Subtract()([again(shared(a)), again(shared(b))])


@network((6,))
def frozen(L, x):
    first = L.Dense(5, activation="relu")
    first.trainable = False
    norm = L.BatchNormalization()
    norm.trainable = False
    return L.Dense(2)(norm(first(x)))


@network((6,))
def two_outputs(L, x):
    x = L.Dense(5, activation="relu")(x)
    return [L.Dense(2)(x), L.Dense(1)(x)]


@network((4, 5, 3))
def with_a_skip(L, x):
    y = L.Conv2D(3, 3, padding="same", activation="relu")(x)
    z = L.Conv2D(3, 1)(L.Add()([x, y]))
    return L.Dense(2)(L.Flatten()(L.Concatenate(axis=2)([z, y, x])))
