"""The command line: `fedsys simulate`, `runs`, `compare`, `report`, and those of other rooms."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fedsys.clients.bank.cli import bank
from fedsys.edge import commands as edge
from fedsys.engines.commands import engines
from fedsys.errors import FedsysError, StorageError, UsageError
from fedsys.federation.commands.demo import demo
from fedsys.federation.commands.federation import federation

if TYPE_CHECKING:
    from fedsys.experiment import Experiment
    from fedsys.runs import Run

KEYS = {
    "task": (
        "task",
        "NAME",
        "What is learned: digits, fashion-mnist, credit-default, heart, table, tables, synthetic, "
        "or my_file.py:my_task [digits].",
    ),
    "data": ("task.data", "PATH", "Folder or file of the task's data."),
    "schema": ("task.schema", "FILE", "Schema of the owners' tables, for tables."),
    "source": ("task.sources", "FILE", "An owner's table, for tables. Repeatable."),
    "model": ("task.model", "NAME", "Which of the task's models; for tables also a Keras file."),
    "label": ("task.label", "COLUMN", "Label column of a table."),
    "client_column": ("task.client", "COLUMN", "Column that says whose a row is."),
    "clients": ("clients", "N", "Virtual clients [100, or the data's natural owners]."),
    "cohort": ("cohort", "N", "Clients a round [10, or all where there are fewer]."),
    "partition": (
        "partition",
        "RULE",
        "iid, dirichlet:ALPHA, shards:N, labels:K, quantity:ALPHA, features:SKEW or natural "
        "[natural where the data has owners, else iid].",
    ),
    "strategy": (
        "strategy",
        "NAME",
        "fedavg, fedsgd, fedprox:MU, fedavgm:MOMENTUM, fedadagrad:RATE, fedadam:RATE, "
        "fedyogi:RATE or scaffold [fedavg].",
    ),
    "aggregator": (
        "aggregator",
        "NAME",
        "mean, or one that holds against faulty clients: median, trimmed:F, krum:F, krum:F,KEEP or "
        "clipped:NORM [mean].",
    ),
    "epochs": ("local.epochs", "N", "Passes over a client's rows in a round [5]."),
    "steps": ("local.steps", "N", "Batches a client trains on in a round, instead of epochs."),
    "batch": ("local.batch", "N", "Rows a step; 0 is all of a client's rows [10]."),
    "rate": ("local.rate", "X", "The clients' learning rate [0.1]."),
    "optimizer": ("local.optimizer", "RULE", "sgd, sgd:MOMENTUM,DECAY or adam [sgd]."),
    "clip": ("local.clip", "NORM", "Shortens longer gradients to this norm."),
    "weighting": ("weighting", "HOW", "examples or uniform [examples]."),
    "rounds": ("rounds", "N", "How many rounds [50]."),
    "evaluate": ("evaluate", "N", "Rounds between evaluations on the test set; 0: at the end [1]."),
    "evaluate_clients": ("evaluate_clients", "N", "The same on every client [0]."),
    "quorum": ("quorum", "PART", "Part of a cohort's updates that must be good [0.5]."),
    "faults": ("faults", "KIND:SHARE", "Clients that misbehave on purpose, such as nan:0.1."),
    "compiler": ("compiler", "NAME", "xla, graph, or auto by the model's layers [auto]."),
    "seed": ("seed", "N", "Of everything random [0]."),
}
"""Options that say something about the experiment: its key, a placeholder, the help."""

REPEATED = {"source"}
"""Those that may be given several times."""

WIDE = 200
"""Letters in a line where there is no terminal to say."""


def main() -> None:
    """Runs the command line; a mistake becomes one line and an exit code."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        code = command.main(prog_name="fedsys", standalone_mode=False)
    except click.UsageError as error:
        where = f" (see {error.ctx.command_path} --help)" if error.ctx else ""
        code = _fail(error.format_message() + where, UsageError.code)
    except FedsysError as error:
        code = _fail(str(error), error.code)
    except OSError as error:  # no defect: standard output on a full disk, and such
        code = _fail(str(error), StorageError.code)
    except (click.Abort, KeyboardInterrupt):
        _fail("interrupted", 130)
        sys.stdout.flush()
        os._exit(130)  # without the wait for threads that are amid a round
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> int:
    click.echo(f"fedsys: {' '.join(message.split())}", err=True)
    return code


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="fedsys")
@click.pass_context
def command(context: click.Context) -> None:
    """Federated learning: many owners of private data train one model."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _experiment_options(function: Any) -> Any:
    for name, (_, metavar, text) in reversed(KEYS.items()):
        option = f"--{name.replace('_', '-')}"
        repeated = name in REPEATED
        add = click.option(option, name, metavar=metavar, help=text, multiple=repeated)
        function = add(function)
    return function


def _out(function: Any) -> Any:
    return click.option(
        "--out", type=click.Path(path_type=Path), default="runs", help="Folder of the runs [runs]."
    )(function)


@command.command()
@click.argument("file", required=False, type=click.Path(path_type=Path))
@_experiment_options
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE",
              help="Any key of the experiment, such as strategy.tau=1e-3. Repeatable.")  # fmt: skip
@click.option("--resume", metavar="RUN", help="Go on with a run: its folder or name.")
@click.option("--engine", metavar="NAME",
              help="Where cohorts are trained; see fedsys engines [compiled].")  # fmt: skip
@click.option("--ray", metavar="ADDRESS",
              help="Train on this Ray cluster: HOST:PORT or ray://HOST:PORT.")  # fmt: skip
@click.option("--workers", type=click.IntRange(1), metavar="N",
              help="Threads, or workers of the engine [all cores].")  # fmt: skip
@click.option("--app", type=click.Path(path_type=Path), metavar="DIR",
              help="Run this Flower app as it is, instead of an experiment; --workers is 1 "
                   "then, since several make what clients draw unrepeatable.")  # fmt: skip
@click.option("--run-config", "-c", multiple=True, metavar="KEY=VALUE",
              help="Of the app's own configuration, as for flwr run. Repeatable.")  # fmt: skip
@click.option("--nodes", type=click.IntRange(1), metavar="N",
              help="Virtual nodes for the app [as its pyproject.toml says, else 2].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object as the last line.")
@click.option("--quiet", is_flag=True, help="No progress.")
@_out
def simulate(
    file: Path | None,
    settings: tuple[str, ...],
    resume: str | None,
    engine: str | None,
    ray: str | None,
    workers: int | None,
    app: Path | None,
    run_config: tuple[str, ...],
    nodes: int | None,
    as_json: bool,
    quiet: bool,
    out: Path,
    **options: Any,
) -> int:
    """Simulates a federation on this machine.

    FILE is an experiment in TOML, as every run folder holds one; options override it.
    """
    from fedsys.flower.app import command as flower

    if app is not None:
        beside = {"FILE": file, "--set": settings, "--resume": resume, "--engine": engine,
                  "--ray": ray}  # fmt: skip
        others = [f"--{key.replace('_', '-')}" for key in KEYS if options[key] and key != "seed"]
        return flower.simulate_app(
            app,
            run_config=run_config,
            nodes=nodes,
            seed=options["seed"],
            workers=workers,
            out=out,
            as_json=as_json,
            quiet=quiet,
            others=[*(name for name, value in beside.items() if value), *others],
        )
    flower.refuse_without_app(run_config, nodes)
    engine = _engine(engine, ray)

    from fedsys.console import Console
    from fedsys.engines import chosen

    console = Console(quiet=quiet, as_json=as_json)
    # In the order of KEYS, not as typed: a task's name comes before its options.
    given = {key: value for key in KEYS if (value := options[key]) not in (None, ())}
    with console:
        if resume is not None:
            run = _resume(resume, file, settings, given, engine, workers, out, console)
        else:
            experiment = _experiment(file, given, settings)
            choice = chosen(engine or "compiled")
            with console.loading():
                from fedsys.simulation import simulate as start
            run = start(experiment, out=out, engine=choice, workers=workers, watcher=console)
    console.finished(run)
    return 0 if run.facts["status"] == "done" else 130


def _engine(engine: str | None, ray: str | None) -> str | None:
    """The engine that two options ask for: `--ray ADDRESS` is `--engine ray:address=ADDRESS`."""
    if ray is None:
        return engine
    name, _, options = (engine or "ray").partition(":")
    if name != "ray":
        raise UsageError(f"--ray {ray} is for --engine ray, not {engine}: leave one out")
    return f"ray:{','.join([*([options] if options else []), f'address={ray}'])}"


def _resume(
    name: str,
    file: Path | None,
    settings: tuple[str, ...],
    given: dict[str, Any],
    engine: str | None,
    workers: int | None,
    out: Path,
    console: Any,
) -> Run:
    from fedsys.choices import Text, convert
    from fedsys.engines import chosen
    from fedsys.runs import Run

    others = [f"--{key.replace('_', '-')}" for key in given if key != "rounds"]
    if file or settings or others:
        what = str(file or ", ".join([*others, *(f"--set {item}" for item in settings)]))
        raise UsageError(
            f"--resume goes on with the run's own experiment and takes --rounds alone, not {what}"
        )
    rounds = convert(Text(given["rounds"]), int, "rounds") if "rounds" in given else None
    run = Run.open(name, out)  # says what is wrong before TensorFlow is loaded
    choice = chosen(engine or run.known.get("engine", "compiled"))
    with console.loading():
        from fedsys.simulation import resume as go_on
    return go_on(name, rounds=rounds, out=out, engine=choice, workers=workers, watcher=console)


def _experiment(file: Path | None, given: dict[str, Any], settings: tuple[str, ...]) -> Experiment:
    """The experiment that a file says, with the options put over it."""
    from fedsys.choices import Text
    from fedsys.experiment import Experiment, merged, read_table

    table = {**Experiment().table(), **(read_table(file) if file else {})}
    for name, value in given.items():
        said = Text(value) if isinstance(value, str) else list(value)
        table = merged(table, KEYS[name][0], said)
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise UsageError(f"--set {setting}: write it as KEY=VALUE")
        table = merged(table, key, Text(value))
    return Experiment.of(table, str(file) if file else "")


@command.command()
@_out
def runs(out: Path) -> None:
    """Lists the runs."""
    from fedsys.report import run_table
    from fedsys.runs import all_runs

    _print(run_table(all_runs(out)))


@command.command()
@click.argument("names", nargs=-1, required=True, metavar="RUN RUN...")
@click.option("--html", type=click.Path(path_type=Path), help="Write a page with curves, too.")
@_out
def compare(names: tuple[str, ...], html: Path | None, out: Path) -> None:
    """Compares runs: in what they differ, and what came of it."""
    from fedsys.report import compare_text, render_comparison
    from fedsys.runs import Run
    from fedsys.storage import write_atomic

    found = [Run.open(name, out) for name in names]
    text = compare_text(found)
    if html is not None:
        write_atomic(html, [render_comparison(found).encode()])
    _print(text)
    if html is not None:
        click.echo(html)


@command.command()
@click.argument("name", metavar="RUN")
@_out
def report(name: str, out: Path) -> None:
    """Writes a run's report anew, and prints where it is."""
    from fedsys.runs import Run

    click.echo(Run.open(name, out).report())


@command.command()
@click.option("--home", type=click.Path(path_type=Path), metavar="DIR",
              help="Folder of both [$FEDSYS_HOME, else the user's data folder].")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def doctor(home: Path | None, as_json: bool) -> int:
    """Says what is wrong here, with a federation or a bank, and the command that mends it."""
    import json

    from fedsys import doctor as doctors

    checks = doctors.examine(home)
    click.echo(json.dumps(doctors.table(checks)) if as_json else doctors.text(checks))
    return doctors.code_of(checks)


for each in (engines, demo, federation, bank, edge.export, edge.inspect, edge.verify):
    command.add_command(each)


def _print(shown: Any) -> None:
    """Prints a table: as wide as the terminal, or wide enough not to fold names in a file."""
    from rich.console import Console as Screen

    screen = Screen()
    if not screen.is_terminal and "COLUMNS" not in os.environ:
        screen.width = WIDE
    screen.print(shown)
