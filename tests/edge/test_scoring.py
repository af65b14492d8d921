"""How sample rows score a model: by its largest output, or by the side of a threshold."""

from __future__ import annotations

import numpy as np
import pytest

from fedsys.edge.integers.evaluate import chip_answer
from fedsys.edge.integers.lower import lower
from fedsys.edge.report import scoring
from fedsys.edge.report.scoring import runtime_answer, sample_score
from fedsys.edge.sources import Samples
from fedsys.edge.tflite.reader import read
from fedsys.errors import DataError

from .build import Value, one_operator

ROWS = np.array([[-2.0], [-1.0], [0.5], [3.0]], np.float32)


def _model(code: str) -> bytes:
    """One number to one number."""
    scale, zero = (1 / 256, -128) if code == "LOGISTIC" else (1 / 128, 0)
    rows = Value((1, 1), scale=0.05, name="rows")
    return one_operator(code, [rows], Value((1, 1), scale=scale, zero_point=zero, name="out"))


@pytest.mark.parametrize(
    ("code", "floating"),
    [("LOGISTIC", 1 / (1 + np.exp(-ROWS))), ("TANH", np.tanh(ROWS))],
)
def test_one_output_is_a_probability_after_a_sigmoid_and_a_logit_else(
    code: str, floating: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read(_model(code))
    monkeypatch.setattr(scoring, "float_outputs", lambda floats, rows: floating)
    samples = Samples(ROWS, np.array([0, 1, 1, 1]))
    found = sample_score(chip_answer(lower(model)), model, b"", samples)
    assert (found.floating, found.exported, found.agreement) == (0.75, 0.75, 1.0)
    wrong = Samples(ROWS, np.array([0, 1, 1, 2]))
    with pytest.raises(DataError, match="go up to 2 but the model has 2 classes"):
        sample_score(chip_answer(lower(model)), model, b"", wrong)


def test_the_runtime_and_the_chip_answer_alike() -> None:
    model = read(_model("LOGISTIC"))
    chip, runtime = chip_answer(lower(model)), runtime_answer(_model("LOGISTIC"), model)
    assert np.abs(chip(ROWS) - runtime(ROWS)).max() <= 1 / 256
    assert chip(ROWS).shape == runtime(ROWS).shape == (4, 1)


def test_rows_of_several_inputs_come_in_the_models_order() -> None:
    samples = Samples({"b": ROWS, "a": 2 * ROWS})
    assert len(samples) == 4
    first, second = samples.of(["a", "b"])
    assert (first == 2 * ROWS).all() and (second == ROWS).all()
    assert Samples(ROWS).of(["whatever"])[0] is ROWS
