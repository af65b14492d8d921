"""Mistakes that a user can mend, each with the exit code of its kind.

A message is one line that names the thing, the place and the remedy. The command line prints
it and exits with `code`; in Python it is an exception like any other.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class FedsysError(Exception):
    """Base of every error that fedsys raises on purpose. `code` is the exit code."""

    code = 1


class UsageError(FedsysError):
    """An unknown name, key, option or value in what the user asked for."""

    code = 2


class DataError(FedsysError):
    """Data that is missing, unreadable, truncated or not what the task needs."""

    code = 3


class NetworkError(FedsysError):
    """The other side cannot be reached, or does not answer."""

    code = 4


class IdentityError(FedsysError):
    """A key, certificate or token that is missing, wrong or out of date."""

    code = 5


class PolicyError(FedsysError):
    """Something that a side does not let be done with it."""

    code = 6


class QuorumError(FedsysError):
    """Too few good updates were left to go on."""

    code = 7


class TrainingError(FedsysError):
    """The training itself failed: a loss that is no number, a model that does not fit."""

    code = 8


class StorageError(FedsysError):
    """A run folder that cannot be written or does not hold what it should."""

    code = 9


class ExportError(FedsysError):
    """A model cannot run on a microcontroller, or what was made of it is not what it should be."""

    code = 10


class BudgetError(FedsysError):
    """An exported model needs more than it may."""

    code = 11


class EngineError(FedsysError):
    """Where the training happens is missing, or died: an engine, its worker, its other side."""

    code = 12


class Stopped(FedsysError):
    """Whoever asked for something wants it no more, or not now."""

    code = 130


def nearest(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'? known: a, b, x`, for the end of a message about an unknown `word`."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}? " if close else ""
    return f"{guess}known: {', '.join(known)}"
