"""The command `fedsys demo`.

What it does is imported when it is called, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
import signal
import tempfile
import time
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from fedsys.federation.demo.run import Outcome

_PATH: Any = click.Path(path_type=Path)
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end.")
_QUIET = click.option("--quiet", is_flag=True, help="No progress.")
PLACES = (Path("data/credit-default"), Path("credit-default"))
"""Where the data of the demonstration is looked for, from the working directory."""


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
@click.option("--rounds", type=click.IntRange(1), default=20, metavar="N", help="Rounds [20].")
@click.option("--keep", type=_PATH, metavar="DIR",
              help="Keep all folders there, which the demonstration else deletes.")  # fmt: skip
@_JSON
@_QUIET
def fraud(
    banks: int, data: str | None, rounds: int, keep: Path | None, as_json: bool, quiet: bool
) -> int:
    """Banks with customers of different kinds learn together who will not pay.

    Server and banks are real processes on loopback, with TLS and node keys. At the end: what each
    bank comes to alone, all together, and what one would with all rows in one place.
    """
    from fedsys.federation.demo.run import run_demo

    signal.signal(signal.SIGTERM, _interrupt)  # so that nothing is left behind then, either
    found = data or next((str(place) for place in PLACES if place.exists()), None)
    with _folder(keep) as folder:
        outcome = run_demo(Path(folder), banks, found, rounds, _progress(quiet))
    click.echo(json.dumps(outcome.table()) if as_json else outcome_text(outcome))
    return 0


def _interrupt(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


def _folder(keep: Path | None) -> AbstractContextManager[Any]:
    return nullcontext(keep) if keep else tempfile.TemporaryDirectory(prefix="fedsys-demo-")


def _progress(quiet: bool) -> Any:
    begun = time.monotonic()

    def tell(line: str) -> None:
        if not quiet:
            click.echo(f"{time.monotonic() - begun:6.1f} s  {line}", err=True)

    return tell


def outcome_text(outcome: Outcome) -> str:
    """The demonstration's result as a table for people."""
    rows = [(f"{name} alone", outcome.rows[name], auc) for name, auc in outcome.alone.items()]
    every = sum(outcome.rows.values())
    rows += [("federated", every, outcome.federated), ("pooled", every, outcome.pooled)]
    width = max(len(name) for name, _, _ in rows)
    lines = [f"{'':{width}}  customers    AUC"]
    lines += [f"{name:{width}}  {count:9,}  {auc:.4f}" for name, count, auc in rows]
    return "\n".join(
        [*lines, f"{outcome.source}; {outcome.rounds} rounds, {outcome.seconds:.0f} s"]
    )
