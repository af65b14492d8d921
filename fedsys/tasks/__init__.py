"""Tasks by name: bundled data sets, tables, and functions in a file of one's own.

Importing this imports no Keras, TensorFlow, pandas or scikit-learn: only `load` does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fedsys.choices import Family
from fedsys.errors import UsageError, nearest
from fedsys.task import TaskSpec
from fedsys.tasks.credit_default import CreditDefault
from fedsys.tasks.digits import Digits
from fedsys.tasks.fashion_mnist import FashionMnist
from fedsys.tasks.heart import Heart
from fedsys.tasks.synthetic import Synthetic
from fedsys.tasks.table import Table
from fedsys.tasks.tables import Tables
from fedsys.tasks.user import UserTask, is_user_task, parse_user_task

__all__ = [
    "TASKS",
    "CreditDefault",
    "Digits",
    "FashionMnist",
    "Heart",
    "Synthetic",
    "Table",
    "Tables",
    "UserTask",
]


class TaskFamily(Family):
    """The built-in tasks, and `my_file.py:my_task` for one's own."""

    def decode(self, table: Any, place: str = "") -> TaskSpec:
        name = table.get("name") if isinstance(table, Mapping) else table
        if not isinstance(name, str) or not is_user_task(name):
            spec: TaskSpec = super().decode(table, place)
            return spec
        place = place or self.kind
        unknown = [key for key in table if key != "name"] if isinstance(table, Mapping) else []
        if unknown:
            raise UsageError(
                f"{place}.{unknown[0]}: unknown key of {name!r}; {nearest(unknown[0], ['name'])}"
            )
        return parse_user_task(name, place)

    def encode(self, value: Any) -> dict[str, Any]:
        return {"name": str(value)} if isinstance(value, UserTask) else super().encode(value)

    def name_of(self, value: Any) -> str:
        return str(value) if isinstance(value, UserTask) else super().name_of(value)

    def short(self, value: Any) -> str:
        return str(value) if isinstance(value, UserTask) else super().short(value)


TASKS = TaskFamily(
    "task",
    {
        "credit-default": CreditDefault,
        "digits": Digits,
        "fashion-mnist": FashionMnist,
        "heart": Heart,
        "synthetic": Synthetic,
        "table": Table,
        "tables": Tables,
    },
)
