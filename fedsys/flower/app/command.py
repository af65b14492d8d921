"""`fedsys simulate --app DIR`: what the command line makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from fedsys.errors import UsageError


def simulate_app(
    folder: Path,
    *,
    run_config: Sequence[str],
    nodes: int | None,
    seed: str | None,
    workers: int | None,
    out: Path,
    as_json: bool,
    quiet: bool,
    others: Sequence[str],
) -> int:
    """Runs a Flower app and says where its log is.

    others: what was given besides and is an experiment's, which is refused. Returns the exit code.
    """
    if others:
        config = ", --run-config KEY=VALUE for its own" if "--rounds" in others else ""
        raise UsageError(
            f"--app runs a Flower app as it is: {', '.join(others)} is an experiment's, "
            f"leave it out (an app takes --run-config, --nodes, --seed and --workers{config})"
        )
    from fedsys.flower.app.run import LOG, run_app

    run = run_app(
        folder,
        run_config=run_config,
        nodes=nodes,
        seed=_seed(seed),
        workers=workers or 1,
        out=out,
        quiet=quiet,
    )
    failed = run.facts["failed_messages"]
    if failed and not quiet:
        click.echo(
            f"fedsys: {failed} messages failed in the clients, the first at "
            f"{' '.join(run.facts['first_failure'].split())}",
            err=True,
        )
    if as_json:
        click.echo(json.dumps({"run": run.folder.name, "folder": str(run.folder), **run.facts}))
    else:
        click.echo(f"log: {run.folder / LOG}")
    return 0


def refuse_without_app(run_config: Sequence[str], nodes: int | None) -> None:
    """Raises UsageError for an app's options where there is no app."""
    if run_config or nodes is not None:
        given = "--run-config" if run_config else "--nodes"
        raise UsageError(f"{given} is for a Flower app: name its folder with --app")


def _seed(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and int(text) < 2**63):
        raise UsageError(f"--seed {text}: is no whole number from 0 to 2^63 - 1")
    return int(text)
