"""`fedsys bank samples`: this bank's rows as a job's model reads them, to export it with."""

from __future__ import annotations

import io
import os
from pathlib import Path

import click

from fedsys.clients.bank.options import HOME, NAME, home_of
from fedsys.federation.commands.options import JSON, PATH, say


@click.command()
@click.argument("file", type=PATH, metavar="MODEL.JSON")
@click.option("--out", type=PATH, default=Path("samples.npz"), metavar="FILE",
              help="Where to write them [samples.npz].")  # fmt: skip
@click.option("--rows", type=click.IntRange(1), default=1000, metavar="N",
              help="How many, from all over the source [1000].")  # fmt: skip
@NAME
@HOME
@JSON
def samples(
    file: Path, out: Path, rows: int, name: str | None, home: Path | None, as_json: bool
) -> int:
    """Writes some of this bank's rows as a model reads them; nothing is sent.

    MODEL.JSON lies beside the model that the coordinator took out of a job. The rows are for fedsys
    export --calibration: for this user alone, and to be deleted afterwards.
    """
    import numpy as np

    from fedsys.errors import DataError, UsageError
    from fedsys.storage import write_atomic
    from fedsys.tables import prepare
    from fedsys.tables.recipe import read_recipe

    found = home_of(home, name)
    if out.exists() or out.is_symlink():
        raise UsageError(f"{out}: is there already: move it away, or choose another --out")
    made = read_recipe(file)
    if made.schema != found.schema.hash:
        raise DataError(f"{file}: is of another schema than this bank's")
    prepared = prepare(found.source(), found.schema, made)
    count = len(prepared.labels)
    chosen = np.unique(np.linspace(0, count - 1, min(rows, count)).astype(np.int64))
    data = io.BytesIO()
    np.savez(data, inputs=prepared.inputs[chosen], labels=prepared.labels[chosen])
    write_atomic(out, [data.getvalue()])
    os.chmod(out, 0o600)
    table = {"file": str(out), "rows": len(chosen), "of": count}
    text = (
        f"{out}: {len(chosen):,} of {count:,} rows, prepared; delete it when it has served\n"
        f"next: fedsys export MODEL.keras --calibration {out}"
    )
    return say(text, table, as_json)
