"""Keras 3 models in Keras 2: the same outputs, or a refusal that names the layer."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

pytest.importorskip("tf_keras", reason="tf-keras is not installed (pip install 'fedsys[qat]')")

from fedsys.edge.conversion import worker

HERE = {
    "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), *sys.path]),
    "TF_USE_LEGACY_KERAS": "1",
}


@pytest.fixture(scope="module")
def translated():
    return worker.call("tuning:translated", doing="translating", environment=HERE)


def test_every_model_gives_the_same_outputs_in_keras_2(translated):
    differences = translated["differences"]
    assert len(differences) >= 20
    assert {name: far for name, far in differences.items() if not far <= 2e-6} == {}


@pytest.mark.parametrize(
    "name, says",
    {
        "conv1d": ["'along'", "Conv1D", "use Conv2D"],
        "lstm": ["'memory'", "LSTM", "convolutions"],
        "layer norm": ["'norm'", "LayerNormalization", "BatchNormalization"],
        "prelu": ["'slopes'", "PReLU", "LeakyReLU"],
        "rescaling": ["'scaled'", "scale the rows"],
        "multiply": ["'gate'", "use Add"],
        "elu": ["'soft'", "elu", "relu"],
        "own activation": ["'odd'", "activation"],
        "norm first": ["'first'", "right after a Conv2D"],
        "norm after relu": ["'late'", "right after a Conv2D"],
        "threshold": ["'high'", "threshold"],
        "shared": ["'twice'", "several places"],
        "operation": ["Multiply", "use Add"],
        "subclass": ["'mine'", "keras.Model(inputs, outputs)"],
        "open": ["one known shape"],
        "integers": ["int32"],
    }.items(),
)
def test_what_training_cannot_take_is_refused_with_the_layer_and_a_remedy(translated, name, says):
    told = translated["refusals"][name]
    assert told.startswith("ExportError") and "\n" not in told
    assert [word for word in says if word not in told] == []
