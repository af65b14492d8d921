"""What the bank's commands have in common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from fedsys.federation.commands.options import PATH

if TYPE_CHECKING:
    from fedsys.clients.bank.home import BankHome

WHERE = "Folder of banks [$FEDSYS_HOME, else the user's data folder]."
HOME = click.option("--home", type=PATH, metavar="DIR", help=WHERE)
NAME = click.option("--bank", "name", metavar="NAME", help="Which one [the only one].")


def home_of(home: Path | None, name: str | None) -> BankHome:
    """The bank that is meant."""
    from fedsys import places
    from fedsys.clients.bank.home import BankHome

    return BankHome.open(places.find(places.BANK, name, home))
