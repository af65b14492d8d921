"""Heart disease in four hospitals (Janosi et al. 1988; UCI), prepared as Fed-Heart-Disease.

The benchmark is FLamby (Ogier du Terrail et al. 2022, NeurIPS datasets and benchmarks). Rows,
split, columns and normalisation are the same, so that its published figures can be compared.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial

import numpy as np

from fedsys.errors import DataError
from fedsys.task import Examples, Task
from fedsys.tasks import files, models

CENTRES = ("cleveland", "hungarian", "switzerland", "va")
COLUMNS = (
    *("age", "sex", "cp", "trestbps", "chol", "fbs", "restecg", "thalach", "exang", "oldpeak"),
    *("slope", "ca", "thal", "num"),
)
"""Of a line: 13 measurements and the diagnosis, 0 to 4."""

_NAMES = tuple(f"processed.{centre}.data" for centre in CENTRES)
_REMEDY = f"pass --data FOLDER that holds {', '.join(_NAMES)}"
_NUMBERS = (0, 1, 3, 4, 5, 7, 8, 9)  # columns used as they are; 10, 11, 12 are mostly missing
_CODES = (2, 6)  # chest pain and resting electrocardiogram: one input a code but the first
_INPUTS = 13


@dataclass(frozen=True)
class Heart:
    """740 patients of four hospitals: healthy (0) or not (1). Train/test 486/254.

    data: the folder or web address of the four `processed.*.data` files of UCI.
    train: 199, 172, 30 and 85 rows of Cleveland, Hungary, Switzerland and Long Beach (the owners),
    normalised by each hospital's own training rows. client_test: 104, 89, 16 and 45 rows, likewise
    by their own hospital. test: the same rows normalised by all training rows (FLamby's "pooled
    test"; what a server that never sees a hospital's own averages would do).
    model: logistic regression, 13 inputs, begun like PyTorch's `nn.Linear` as in FLamby.
    """

    data: str | None = None

    def load(self) -> Task:
        """Reads the files. Raises DataError when one is missing, damaged or of another kind."""
        found = read_hospitals(self.data)
        centres = [_complete_rows(*one) for one in zip(found.values(), _NAMES, strict=True)]
        features, names = _features(np.concatenate(centres))
        labels = np.concatenate([rows[:, -1] > 0 for rows in centres]).astype(np.int64)
        owners = np.repeat(np.arange(len(centres)), [len(rows) for rows in centres])
        in_test = np.concatenate([_test_rows(rows[:, -1] > 0) for rows in centres])

        pooled = _statistics(features[~in_test])
        own = [_statistics(features[~in_test & (owners == centre)]) for centre in range(4)]
        mean, scale = (np.stack(part)[owners] for part in zip(*own, strict=True))
        by_centre = ((features - mean) / scale).astype(np.float32)
        by_all = ((features - pooled[0]) / pooled[1]).astype(np.float32)
        return Task(
            name="heart",
            model=partial(models.uniform_logistic, (_INPUTS,)),
            train=Examples(by_centre[~in_test], labels[~in_test], owners[~in_test]),
            test=Examples(by_all[in_test], labels[in_test]),
            objective="binary",
            client_test=Examples(by_centre[in_test], labels[in_test], owners[in_test]),
            classes=("healthy", "disease"),
            owners=CENTRES,
            prepared={
                "columns": names,
                **_recorded(pooled),
                "owners": {name: _recorded(part) for name, part in zip(CENTRES, own, strict=True)},
            },
        )


def read_hospitals(data: str | None, place: str = "task.data") -> dict[str, np.ndarray]:
    """Hospital -> [patients, 14] float64, all `COLUMNS` as its file has them, NaN where missing.

    data: the folder or web address of the four files. place: what a DataError is about.
    """
    data = files.given(data, "heart", f"FOLDER that holds {', '.join(_NAMES)}", place)
    files.check_folder(data, place, _REMEDY)
    found = (_rows(files.join(data, name), place) for name in _NAMES)
    return dict(zip(CENTRES, found, strict=True))


def _rows(source: str, place: str) -> np.ndarray:
    """[patients, 14] float64 of one hospital's file."""
    text = files.read(source, place, _REMEDY).decode("utf-8", errors="replace")
    where = f"{place}: {source!r}"
    rows = [
        _values(line, f"{where}, line {number}")
        for number, line in enumerate(text.splitlines(), start=1)
        if line.strip()
    ]
    return np.array(rows).reshape(-1, len(COLUMNS))


def _complete_rows(rows: np.ndarray, file: str) -> np.ndarray:
    """[patients, 11] float64: columns 0 to 9 and the diagnosis, of patients who lack none."""
    used = rows[:, [*range(10), 13]]
    complete = used[~np.isnan(used).any(axis=1)]
    if len(complete) < 2:
        raise DataError(
            f"task.data: {file!r} holds {len(complete)} complete rows, needs 2 or more; {_REMEDY}"
        )
    return complete


def _values(line: str, where: str) -> list[float]:
    cells = [cell.strip() for cell in line.split(",")]
    if len(cells) != len(COLUMNS):
        raise DataError(
            f"{where}: expected {len(COLUMNS)} values, found {len(cells)}; "
            "copy or download it again"
        )
    return [_value(cell, where) for cell in cells]


def _value(cell: str, where: str) -> float:
    """A number; NaN for a missing one ('?' at UCI, nothing or 'NaN' in copies)."""
    if cell in ("?", ""):
        return math.nan
    try:
        value = float(cell)
    except ValueError:
        value = math.inf
    if math.isinf(value):
        raise DataError(f"{where}: {cell!r} is no finite number; copy or download it again")
    return value


def _features(rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """[patients, 13] float64 and the names: the numbers, then one column a code but the first."""
    parts = [rows[:, list(_NUMBERS)]]
    names = [COLUMNS[number] for number in _NUMBERS]
    for code in _CODES:
        levels = np.unique(rows[:, code])[1:]
        parts.append((rows[:, [code]] == levels).astype(np.float64))
        names += [f"{COLUMNS[code]}={level:g}" for level in levels]
    if len(names) != _INPUTS:
        raise DataError(
            f"task.data: {len(names)} inputs ({', '.join(names)}) instead of {_INPUTS}: the files "
            "hold other codes than UCI's; copy or download them again"
        )
    return np.concatenate(parts, axis=1), names


def _test_rows(labels: np.ndarray) -> np.ndarray:
    """[patients] of bool: FLamby's split of one hospital, stratified if both classes allow it."""
    from sklearn.model_selection import train_test_split

    counts = np.bincount(labels.astype(int), minlength=2)
    _, test = train_test_split(
        np.arange(len(labels)),
        train_size=0.66,
        test_size=1 - 0.66,
        random_state=43,
        stratify=labels if counts.min() > 2 else None,
    )
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[test] = True
    return chosen


def _statistics(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and scale of every column. FLamby's scale is the sample deviation (n - 1) plus 1e-9."""
    return rows.mean(axis=0), rows.std(axis=0, ddof=1) + 1e-9


def _recorded(statistics: tuple[np.ndarray, np.ndarray]) -> dict[str, list[float]]:
    return {"mean": statistics[0].tolist(), "scale": statistics[1].tolist()}
