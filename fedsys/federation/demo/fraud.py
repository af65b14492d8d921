"""Three banks' customers: card holders who will or will not pay next month.

From the data set credit-default (Yeh and Lien 2009; UCI), where its file is there; else made up, in
the same columns, and said to be. Either way each bank has customers of its own kind: the banks are
told apart by the credit limit, as a savings bank, a retail bank and a private bank would be.
"""

from __future__ import annotations

import csv
from functools import partial
from pathlib import Path

import numpy as np

from fedsys.errors import DataError, UsageError
from fedsys.federation.demo.shown import Demo, Shared, Table
from fedsys.federation.jobs.request import Request
from fedsys.local import Local
from fedsys.tables import Column, Label, Missing, Schema
from fedsys.tasks.splits import stratified

FILE = "UCI_Credit_Card.csv"
LABEL = "default.payment.next.month"
SEGMENT = "LIMIT_BAL"
CODES = {
    "SEX": ("1", "2"),
    "EDUCATION": ("1", "2", "3", "4"),
    "MARRIAGE": ("1", "2", "3"),
}
NUMBERS = (
    *("LIMIT_BAL", "AGE", "PAY_0", "PAY_2", "PAY_3", "PAY_4", "PAY_5", "PAY_6"),
    *(f"BILL_AMT{month}" for month in range(1, 7)),
    *(f"PAY_AMT{month}" for month in range(1, 7)),
)
MOST_BANKS = 26
TEST = 0.2
MADE_UP = 12_000
"""Rows where they are made up."""

SCHEMA = Schema(
    label=Label(LABEL, description="whether the customer fails to pay next month"),
    columns=(
        *(Column(name, "category", categories=words, other=True, missing=Missing("other"))
          for name, words in CODES.items()),
        *(Column(name, "number", missing=Missing("mean")) for name in NUMBERS),
    ),
    title="card holders who will or will not pay next month",
)  # fmt: skip


def customers(data: str | None) -> Table:
    """The rows of a file or of a folder that holds it, or made-up ones where None is given."""
    if data is None:
        return made_up(MADE_UP)
    path = Path(data)
    path = path / FILE if path.is_dir() else path
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            rows = list(csv.reader(file))
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a text file"
        raise DataError(
            f"{path}: cannot be read: {reason}: give {FILE} of UCI with --data, or its folder"
        ) from None
    header = rows[0] if rows else []
    missing = [name for name in (LABEL, *CODES, *NUMBERS) if name not in header]
    if missing:
        raise DataError(f"{path}: has no column {missing[0]!r}: is it {FILE} of UCI?")
    try:
        values = np.array(rows[1:], dtype=float)
    except ValueError:
        raise DataError(f"{path}: holds what is no number: is it {FILE} of UCI?") from None
    if not len(values):
        raise DataError(f"{path}: has a header but no rows: is it {FILE} of UCI?")
    wanted = (*CODES, *NUMBERS, LABEL)
    table = {name: values[:, header.index(name)] for name in wanted}
    if not np.isin(table[LABEL], (0, 1)).all():
        raise DataError(f"{path}: column {LABEL!r} holds more than 0 and 1")
    return Table(table, f"{len(values):,} customers of {path.name}")


def made_up(rows: int, seed: int = 0) -> Table:
    """Customers in the same columns, whose risk follows limit, delays and bills."""
    rng = np.random.default_rng(seed)
    limit = np.exp(rng.normal(11.8, 0.8, rows)).round(-4).clip(10_000, 800_000)
    risk = rng.normal(0, 1, rows) - 0.5 * (np.log(limit) - 11.8)
    table: dict[str, np.ndarray] = {
        "SEX": rng.integers(1, 3, rows).astype(float),
        "EDUCATION": rng.choice([1.0, 2.0, 3.0, 4.0], rows, p=[0.35, 0.47, 0.16, 0.02]),
        "MARRIAGE": rng.choice([1.0, 2.0, 3.0], rows, p=[0.45, 0.53, 0.02]),
        "LIMIT_BAL": limit,
        "AGE": rng.normal(35, 9, rows).clip(21, 79).round(),
    }
    for month in (0, 2, 3, 4, 5, 6):
        table[f"PAY_{month}"] = (0.9 * risk + rng.normal(-0.7, 0.8, rows)).round().clip(-2, 8)
    for month in range(1, 7):
        used = 1 / (1 + np.exp(-(0.6 * risk + rng.normal(-0.8, 1, rows))))
        table[f"BILL_AMT{month}"] = (limit * used).round()
        paid = used * np.exp(rng.normal(-2.5 - 0.4 * risk, 1))
        table[f"PAY_AMT{month}"] = (limit * paid).round()
    curved = 1.1 * risk + 0.5 * (risk > 1) * (table["PAY_0"] > 0) - 0.02 * (table["AGE"] - 35)
    table[LABEL] = (rng.random(rows) < 1 / (1 + np.exp(1.8 - curved))).astype(float)
    return Table(table, f"{rows:,} made-up customers (give --data for the real ones)")


def divide(found: Table, banks: int) -> tuple[list[np.ndarray], np.ndarray]:
    """Row numbers of each bank, and of the customers that are kept for the test.

    Banks have customers of rising credit limits, as many each. The test has all kinds.
    """
    if not 2 <= banks <= MOST_BANKS:
        raise UsageError(f"--banks must be 2 to {MOST_BANKS}, not {banks}")
    train, test = stratified(found.columns[LABEL], TEST)
    ordered = train[np.argsort(found.columns[SEGMENT][train], kind="stable")]
    return [np.sort(part) for part in np.array_split(ordered, banks)], test


def bank_names(banks: int) -> list[str]:
    """bank-a, bank-b, ..."""
    return [f"bank-{chr(ord('a') + number)}" for number in range(banks)]


def read(data: str | None, banks: int) -> Shared:
    """The customers of so many banks, and those kept for the test."""
    found = customers(data)
    parts, test = divide(found, banks)
    return Shared(found, dict(zip(bank_names(banks), parts, strict=True)), test)


def fraud(banks: int = 3) -> Demo:
    """The demonstration: a network of 64 and 32 hidden units at so many banks."""
    return Demo(
        name="fraud",
        owner="bank",
        person="customer",
        schema=SCHEMA,
        request=Request(
            name="fraud", rounds=20, local=Local(epochs=1, batch=32, rate=0.1), deadline=120.0
        ),
        tested="customers of all kinds",
        places=("data/credit-default", "credit-default"),
        read=partial(read, banks=banks),
    )
