import random

import numpy as np
import pytest

from fedsys.flower.app.generators import seeded


def drawn():
    """One number from each global generator."""
    import keras
    import tensorflow as tf

    return (
        random.random(),
        float(np.random.rand()),
        float(tf.random.uniform(())),
        float(keras.random.uniform(())),
    )


def test_a_seed_decides_what_every_global_generator_draws():
    drawn()  # imports them: only what is loaded can be seeded
    with seeded(5):
        first = drawn()
    with seeded(5):
        assert drawn() == first
    with seeded(6):
        assert all(a != b for a, b in zip(drawn(), first, strict=True))


def test_generators_go_on_where_they_stood():
    def python_and_numpy():
        return random.random(), float(np.random.rand())

    random.seed(1)
    np.random.seed(1)
    expected = [python_and_numpy() for _ in range(2)]
    random.seed(1)
    np.random.seed(1)
    found = [python_and_numpy()]
    with pytest.raises(ZeroDivisionError), seeded(5):
        _ = python_and_numpy()[0] / 0
    assert [*found, python_and_numpy()] == expected


def test_tensorflow_is_seeded_as_it_was():
    import tensorflow as tf

    tf.random.set_seed(3)
    expected = float(tf.random.uniform(()))
    tf.random.set_seed(3)
    with seeded(5):
        tf.random.uniform(())
    assert float(tf.random.uniform(())) == expected
    tf.random.set_seed(None)  # as a process begins
    with seeded(5):
        assert tf.compat.v1.get_seed(None)[0] == 5
    assert tf.compat.v1.get_seed(None)[0] is None


def test_frameworks_that_are_not_loaded_stay_so(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from fedsys.flower.app.generators import seeded\n"
        "with seeded(1): pass\n"
        "assert not {'tensorflow', 'keras', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
