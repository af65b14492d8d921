"""The options of `fedsys bank join` and `fedsys federation serve` that write files, not run.

What they do is imported when they are used, so that the command line's help stays quick.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.errors import UsageError

if TYPE_CHECKING:
    from fedsys.deployment.services import Service

IMAGE = "fedsys:local"


@dataclass(frozen=True)
class Files:
    """What is to be written: see `units.files_of` and `write.write_files`.

    into: the folder; one named like the service, in the current one, if None.
    """

    kind: str
    into: Path | None = None
    image: str = IMAGE
    memory: str | None = None
    force: bool = False

    def write(self, service: Service, as_json: bool) -> int:
        """Writes them, and says what is to be done with them. Gives the exit code."""
        from fedsys.deployment.units import files_of, next_steps
        from fedsys.deployment.write import write_files

        folder = (self.into or Path(service.name)).absolute()
        files = files_of(self.kind, service, image=self.image, memory=self.memory)
        done = write_files(folder, files, force=self.force)
        steps = next_steps(self.kind, service, folder, self.image)
        if as_json:
            written = {str(path): what for path, what in done.items()}
            click.echo(json.dumps({"service": service.name, "files": written, "next": steps}))
            return 0
        for path, what in done.items():
            click.echo(f"{path}: {what}")
        click.echo("next:")
        for step in steps:
            click.echo(f"  {step}")
        return 0


def file_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options to a command, which gets `files`: what is to be written, or None."""

    @click.option("--systemd", "kind", flag_value="systemd",
                  help="Write a systemd unit that runs this, and run nothing.")  # fmt: skip
    @click.option("--compose", "kind", flag_value="compose", help="The same for Docker Compose.")
    @click.option("--kubernetes", "kind", flag_value="kubernetes", help="The same for Kubernetes.")
    @click.option("--into", type=click.Path(path_type=Path), metavar="DIR",
                  help="Folder of these files [one named like the service].")  # fmt: skip
    @click.option("--image", metavar="NAME", help=f"Image of the containers [{IMAGE}].")
    @click.option("--memory", metavar="SIZE", help="The most memory it may use, such as 4G.")
    @click.option("--force", is_flag=True, help="Replace files that were edited.")
    @wraps(function)
    def wrapped(
        kind: str | None, into: Path | None, image: str | None, memory: str | None, force: bool,
        **others: Any,
    ) -> Any:  # fmt: skip
        given = {"--into": into, "--image": image, "--memory": memory, "--force": force}
        if kind is None and (alone := [name for name, value in given.items() if value]):
            raise UsageError(f"{alone[0]} goes with --systemd, --compose or --kubernetes")
        files = None if kind is None else Files(kind, into, image or IMAGE, memory, force)
        return function(files=files, **others)

    return wrapped
