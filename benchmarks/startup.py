"""How long the command takes to say what it can do."""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.timing import machine, milliseconds, seconds, table, verdict

MOST = 1.0


def show_help() -> None:
    command = [str(Path(sys.executable).with_name("fedsys")), "--help"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.startup", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="How often.")
    options = parser.parse_args()
    show_help()
    taken = sorted(seconds(show_help) for _ in range(options.rounds))
    median = taken[len(taken) // 2]
    print(f"{machine()}; {options.rounds} times, median (least in brackets)\n")
    row = ["fedsys --help, ms", milliseconds(taken), f"<= {MOST * 1e3:g}"]
    print(table(["what", "measured", "target", ""], [[*row, verdict(median, most=MOST)]]))


if __name__ == "__main__":
    main()
