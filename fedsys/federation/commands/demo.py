"""The commands `fedsys demo fraud` and `fedsys demo heart`.

What they do is imported when they are called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fedsys.federation.demo.shown import Demo

_PATH: Any = click.Path(path_type=Path)
_OPTIONS = (
    click.option("--rounds", type=click.IntRange(1), default=20, metavar="N", help="Rounds [20]."),
    click.option("--keep", type=_PATH, metavar="DIR",
                 help="Keep all folders there, which the demonstration else deletes."),
    click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end."),
    click.option("--quiet", is_flag=True, help="No progress."),
)  # fmt: skip


def _with_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


@click.group()
def demo() -> None:
    """Shows a whole federation on this machine, with real processes."""


@demo.command()
@click.option("--banks", type=click.IntRange(2, 26), default=3, metavar="N", help="Banks [3].")
@click.option(
    "--data",
    metavar="PATH",
    help="UCI_Credit_Card.csv or its folder [data/credit-default, else made-up customers].",
)
@_with_options
def fraud(banks: int, data: str | None, **options: Any) -> int:
    """Banks with customers of different kinds learn together who will not pay.

    Server and banks are real processes on loopback, with TLS and node keys. At the end: what each
    bank comes to alone, all together, and what one would with all rows in one place.
    """
    from fedsys.federation.demo.fraud import fraud as among

    return _shown(among(banks), data, **options)


@demo.command()
@click.option(
    "--data", metavar="DIR", help="Folder of UCI's four processed.*.data files [data/heart]."
)
@_with_options
def heart(data: str | None, **options: Any) -> int:
    """Four hospitals, each with gaps of its own, learn together whose heart is diseased.

    As in `fraud`, with real processes; each of the four files of UCI's heart disease data is a
    hospital.
    """
    from fedsys.federation.demo.heart import HEART

    return _shown(HEART, data, **options)


def _shown(
    demo: Demo, data: str | None, rounds: int, keep: Path | None, as_json: bool, quiet: bool
) -> int:
    """Runs a demonstration, and prints what came of it."""
    from fedsys.child import interrupted_by_term
    from fedsys.federation.demo.run import run_demo

    interrupted_by_term()
    demo = replace(demo, request=replace(demo.request, rounds=rounds))
    with _folder(keep) as folder:
        outcome = run_demo(demo, Path(folder), data or demo.at_hand, _progress(quiet))
    click.echo(json.dumps(outcome.table()) if as_json else outcome.text())
    return 0


def _folder(keep: Path | None) -> AbstractContextManager[Any]:
    return nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="fedsys-demo-")


def _progress(quiet: bool) -> Any:
    begun = time.monotonic()

    def tell(line: str) -> None:
        if not quiet:
            click.echo(f"{time.monotonic() - begun:6.1f} s  {line}", err=True)

    return tell
