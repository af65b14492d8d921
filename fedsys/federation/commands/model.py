"""`fedsys federation model`: what a job came to, to score rows with and to export."""

from __future__ import annotations

from pathlib import Path

import click

from fedsys.federation.commands.options import HOME, JSON, NAME, PATH, home_of, say


@click.command()
@click.argument("job")
@click.option("--out", type=PATH, metavar="FILE", help="Where to write it [JOB.keras].")
@NAME
@HOME
@JSON
def model(job: str, out: Path | None, name: str | None, home: Path | None, as_json: bool) -> int:
    """Writes the model of a JOB that is done as a Keras file, as fedsys export reads it.

    Beside it, in a .json of the same name: each input's column, mean and scale, and what the
    output means, so that anybody can score a row.
    """
    from fedsys.federation.jobs.folder import find_job
    from fedsys.flower.app.loading import quiet_imports

    found = home_of(home, name)
    folder = find_job(found, job)
    with quiet_imports():
        from fedsys.federation.jobs.trained import check_done, check_place, write_model

        place = out or Path(f"{folder.name}.keras")
        check_done(folder)
        check_place(place)
        made = write_model(found, folder, place)
    table = {"job": folder.name, "model": str(made.model), "preparation": str(made.preparation),
             "sha256": made.sha256, "parameters": made.parameters}  # fmt: skip
    text = (
        f"{made.model}: the model of job {folder.name}, {made.parameters:,} numbers\n"
        f"{made.preparation}: how a row becomes its inputs\n"
        f"next: fedsys bank samples {made.preparation.name} at a bank, then fedsys export "
        f"{made.model} --calibration samples.npz"
    )
    return say(text, table, as_json)
