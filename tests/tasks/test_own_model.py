"""A Keras model of the user's own: its first weights, and what is said of one that does not fit."""

import keras
import numpy as np
import pytest

from fedsys.errors import DataError, UsageError
from fedsys.layout import read_weights
from fedsys.tasks import own_model
from fedsys.tasks.own_model import OwnModel
from fedsys.tasks.table import Table


def network(inputs=3, outputs=1, activation=None):
    rows = keras.Input((inputs,), name="rows")
    x = keras.layers.Dense(4, activation="tanh", name="first")(rows)
    last = keras.layers.Dense(outputs, activation=activation, name="last")(x)
    return keras.Model(rows, last, name="own")


def saved(tmp_path, model):
    path = tmp_path / "credit.keras"
    model.save(path)
    return path


def test_it_is_built_anew_with_the_weights_of_the_file(tmp_path):
    model = network()
    path = saved(tmp_path, model)
    own = OwnModel.read(path)
    path.unlink()
    for _ in range(2):
        built = own((3,), 1)
        np.testing.assert_array_equal(read_weights(built), read_weights(model))
    assert built.name == "own"


@pytest.mark.parametrize(
    "model, said",
    [
        (network(inputs=4), r"credit.keras: takes \[4\], and the rows here are \[3\]"),
        (network(outputs=2), r"gives \[2\], and \[1\] is needed here"),
        (network(activation="sigmoid"), "ends in sigmoid: leave it out"),
        (network(activation="softmax"), "ends in softmax"),
    ],
)
def test_one_that_does_not_fit_is_refused(tmp_path, model, said):
    with pytest.raises(UsageError, match=said):
        OwnModel.read(saved(tmp_path, model))((3,), 1)


def test_a_softmax_layer_of_its_own_is_seen_too(tmp_path):
    rows = keras.Input((3,))
    model = keras.Model(rows, keras.layers.Softmax()(keras.layers.Dense(2)(rows)))
    with pytest.raises(UsageError, match="ends in softmax"):
        OwnModel.read(saved(tmp_path, model))((3,), 2)


def test_several_inputs_are_not_a_row(tmp_path):
    pair = [keras.Input((3,)), keras.Input((2,))]
    model = keras.Model(pair, keras.layers.Dense(1)(keras.layers.Concatenate()(pair)))
    with pytest.raises(UsageError, match=r"takes \[3\] and \[2\]"):
        OwnModel.read(saved(tmp_path, model))((3,), 1)


def test_a_model_that_was_never_given_a_shape_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"has no inputs yet: begin it with keras.Input\(\(3,\)\)"):
        OwnModel.read(saved(tmp_path, keras.Sequential([keras.layers.Dense(1)])))((3,), 1)


def test_probabilities_of_a_model_within_the_model_are_seen(tmp_path):
    rows = keras.Input((3,))
    with pytest.raises(UsageError, match="ends in sigmoid"):
        OwnModel.read(saved(tmp_path, keras.Model(rows, network(activation="sigmoid")(rows))))(
            (3,), 1
        )


def test_rows_are_floats(tmp_path):
    rows = keras.Input((3,), dtype="int32")
    model = keras.Model(rows, keras.layers.Dense(1)(keras.layers.Rescaling(1.0)(rows)))
    with pytest.raises(UsageError, match="reads int32, and the rows here are float32"):
        OwnModel.read(saved(tmp_path, model))((3,), 1)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_no_numbers_begin_nothing(tmp_path, value):
    model = network()
    model.set_weights([np.full(weight.shape, value) for weight in model.get_weights()])
    with pytest.raises(DataError, match="holds weights that are NaN or infinite"):
        OwnModel.read(saved(tmp_path, model))((3,), 1)


def test_what_is_not_there_or_no_model_is_named(tmp_path, monkeypatch):
    path = tmp_path / "credit.keras"
    with pytest.raises(UsageError, match="there is no such model file"):
        OwnModel.read(path)
    path.write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"credit.keras: holds no model that Keras can build"):
        OwnModel.read(path)((3,), 1)
    monkeypatch.setattr(own_model, "LARGEST", 3)
    with pytest.raises(DataError, match="is larger than a model"):
        OwnModel.read(path)


def test_code_in_a_file_is_not_run(tmp_path):
    rows = keras.Input((3,))
    model = keras.Model(rows, keras.layers.Lambda(lambda x: x[:, :1])(rows))
    with pytest.raises(DataError, match="without code of its own"):
        OwnModel.read(saved(tmp_path, model))((3,), 1)


def test_a_table_is_learned_by_it_and_a_model_of_another_width_is_a_mistake(cli, tmp_path):
    drawn = np.random.default_rng(0)
    rows = drawn.normal(size=(200, 3))
    lines = [",".join(f"{v:.3f}" for v in row) + f",{int(row.sum() > 0)}" for row in rows]
    (tmp_path / "rows.csv").write_text("\n".join(["a,b,c,y", *lines]) + "\n")
    own = network()
    saved(tmp_path, own)
    words = ["simulate", "--task", "table", "--data", "rows.csv", "--label", "y", "--clients", 4,
             "--rounds", 2, "--quiet", "--json", "--model"]  # fmt: skip
    done = cli(*words, "credit.keras", "--rate", 1e-9)  # it hardly leaves its first weights
    assert done.code == 0, done.err
    (run,) = (tmp_path / "runs").iterdir()
    kept = keras.models.load_model(run / "model.keras", compile=False)
    assert kept.name == "own"
    np.testing.assert_allclose(read_weights(kept), read_weights(own), atol=1e-6)
    saved(tmp_path, network(inputs=7))
    cli(*words, "credit.keras").refused(2, "credit.keras: takes [7], and the rows here are [3]")
    cli(*words, "no.keras").refused(2, "no.keras: there is no such model file")
    cli(*words, "no").refused(2, "unknown model 'no'")


def test_the_task_says_its_model_as_it_was_given():
    assert Table(data="rows.csv", label="y", model="credit.keras").model == "credit.keras"
