"""Bounds of options, for `__post_init__`: `at_least(1, rounds=self.rounds)`.

They raise ValueError that starts with the option's name; `fedsys.choices` puts the place before it.
"""

from __future__ import annotations

import math


def above(low: float, **options: float | None) -> None:
    """Every option given (None is none) must be greater than `low`, and finite."""
    _finite(**options)
    for name, value in options.items():
        if value is not None and not value > low:
            raise ValueError(f"{name} must be above {low:g}, not {value}")


def at_least(low: float, **options: float | None) -> None:
    """Every option given must be `low` or greater, and finite."""
    _finite(**options)
    for name, value in options.items():
        if value is not None and not value >= low:
            raise ValueError(f"{name} must be at least {low:g}, not {value}")


def below(high: float, **options: float | None) -> None:
    """Every option given must be less than `high`."""
    for name, value in options.items():
        if value is not None and not value < high:
            raise ValueError(f"{name} must be below {high:g}, not {value}")


def at_most(high: float, **options: float | None) -> None:
    """Every option given must be `high` or less."""
    for name, value in options.items():
        if value is not None and not value <= high:
            raise ValueError(f"{name} must be at most {high:g}, not {value}")


def _finite(**options: float | None) -> None:
    for name, value in options.items():
        if isinstance(value, float) and math.isinf(value):
            raise ValueError(f"{name} must be finite, not {value}")
