"""Runs an existing Flower app, unmodified, from its folder, on the grid in this process.

Two runs with the same seed and one worker are equal, also where the app draws from the global
generators of Python, NumPy, TensorFlow, Keras or PyTorch: Flower's sampling of nodes, shuffled
batches, dropout, initial weights. Out of reach are generators that an app makes without a seed
(`np.random.default_rng()`), the clock, a push-and-pull loop over clients that take longer than
`grid.PULL_SECONDS`, several workers, and other numbers of cores or a GPU within a framework.

Unlike on Flower's own simulation all clients and the server share one process: a variable of a
module is the same for all of them, and `os._exit` in a client ends everything.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fedsys.errors import EngineError, FedsysError, TrainingError, UsageError
from fedsys.flower.app.loading import Place, load, place_of, quiet_imports
from fedsys.flower.app.project import Project
from fedsys.runs import new_folder
from fedsys.storage import not_written, storing, write_atomic

LOG = "log.txt"
TRACEBACK = "traceback.txt"


class AppError(TrainingError):
    """The app itself failed: its own mistake, at a place of its own."""


@dataclass(frozen=True)
class AppRun:
    """A finished run of an app. What the app itself saved lies where the app says."""

    folder: Path
    facts: dict[str, Any]


@dataclass
class _Failures:
    """Exceptions in clients: each is an error reply to the server, and counted here."""

    project: Project
    count: int = 0
    first: str = ""
    seen: set[tuple[str, Place]] = field(default_factory=set)

    def __call__(self, position: int, error: BaseException) -> None:
        from fedsys.flower.app.nodes import text_of

        place = place_of(error, self.project.folder)
        said = f"{type(error).__name__}: {text_of(error)} ({place})"
        self.count += 1
        self.first = self.first or f"node {position}: {said}"
        log = logging.getLogger("flwr")
        if (type(error).__name__, place) in self.seen:
            log.debug("ClientApp of partition %s raised %s", position, said)
            return
        self.seen.add((type(error).__name__, place))
        log.error("ClientApp of partition %s raised an exception", position, exc_info=error)


def run_app(
    folder: Path | str,
    *,
    run_config: Sequence[str] = (),
    nodes: int | None = None,
    seed: int = 0,
    workers: int = 1,
    out: Path | str = "runs",
    quiet: bool = False,
) -> AppRun:
    """Runs the Flower app in `folder` and returns what came of it.

    run_config: pairs `key=value`, or one TOML file, over the app's own configuration.
    nodes: virtual nodes; by default what the app's federation says, or Flower's own 2.
    seed: of node ids and of the global random generators, which are put back at the end.
    workers: threads that run clients; with more than one, clients that draw from global
      generators are not repeatable.
    out: gets a folder of this run, with its log.
    quiet: shows no more than warnings of Flower's log.

    Raises UsageError for a folder that holds no app and for settings that it does not have,
    EngineError for a package that is missing, AppError for an exception in the app.
    """
    if importlib.util.find_spec("flwr") is None:
        raise EngineError(
            "Flower is not installed, which --app needs: pip install 'fedsys[flower]'"
        )
    project = Project.read(folder)
    config = project.run_config(run_config)
    count = project.nodes if nodes is None else nodes
    if count < 1:
        raise UsageError(f"--nodes {count}: an app needs at least one node")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if workers > 1:  # each thread its share of the cores
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", str(max(1, _cores() // workers)))
    place = new_folder(Path(out), _file_name(project.name))
    facts = {
        "app": str(project.folder),
        "name": project.name,
        "seed": seed,
        "nodes": count,
        "workers": workers,
        "run_config": config,
        "versions": {"flwr": importlib.metadata.version("flwr")},
    }
    started = time.monotonic()
    status = "failed"
    try:
        with _logged(place / LOG, quiet):
            if nodes is None and not project.nodes_from:
                logging.getLogger("flwr").info(
                    "%s nodes, Flower's default, since neither %s nor --nodes says how many",
                    count,
                    project.folder / "pyproject.toml",
                )
            failures = _Failures(project)
            facts["failed_messages"] = 0
            _run(project, config, count, seed, workers, failures, place)
            facts["failed_messages"], facts["first_failure"] = failures.count, failures.first
        status = "done"
    except KeyboardInterrupt:
        status = "interrupted"
        raise
    finally:
        facts |= {"status": status, "seconds": round(time.monotonic() - started, 3)}
        write_atomic(place / "app.json", [json.dumps(facts, indent=2).encode() + b"\n"])
    return AppRun(place, facts)


def _run(
    project: Project,
    config: dict[str, Any],
    nodes: int,
    seed: int,
    workers: int,
    failures: _Failures,
    place: Path,
) -> None:
    from flwr.app import Context, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp

    from fedsys.flower import compat
    from fedsys.flower.app.generators import seeded
    from fedsys.flower.app.grid import InProcessGrid, server_seed

    with _explained(project, place, "is loaded"), load(project) as found, seeded(server_seed(seed)):
        with quiet_imports():
            client_app = found("clientapp", project.client_app, ClientApp)
            server_app = found("serverapp", project.server_app, ServerApp)
            found.frameworks()
        with InProcessGrid(
            client_app,
            nodes,
            seed=seed,
            workers=workers,
            run_config=config,
            failed=failures,
        ) as grid:
            context = Context(
                run_id=grid.run.run_id,
                node_id=compat.SERVER_NODE,
                node_config={},
                state=RecordDict(),
                run_config=dict(config),
            )
            with seeded(server_seed(seed)), _explained(project, place, "runs"):
                server_app(grid, context)


@contextmanager
def _explained(project: Project, place: Path, when: str) -> Iterator[None]:
    """Turns an exception of the app into one line that says where, and a file with the rest."""
    try:
        yield
    except FedsysError:
        raise
    except ModuleNotFoundError as error:
        _keep(place, error)
        raise EngineError(
            f"{project.folder}: needs {error.name!r}, which is not installed "
            f"({place_of(error, project.folder)}): pip install {str(error.name).split('.')[0]}"
        ) from None
    except SystemExit as error:
        if error.code not in (None, 0):
            raise AppError(
                f"{project.folder}: ended itself with exit code {error.code} "
                f"({place_of(error, project.folder)})"
            ) from None
    except Exception as error:
        _keep(place, error)
        text = " ".join(str(error).split())
        raise AppError(
            f"{project.folder}: {type(error).__name__} while the app {when}: {text} "
            f"({place_of(error, project.folder)}; all of it in {place / TRACEBACK})"
        ) from error


def _keep(place: Path, error: BaseException) -> None:
    text = "".join(traceback.format_exception(error))
    write_atomic(place / TRACEBACK, [text.encode()])


class _LogFile(logging.FileHandler):
    """A log that says in one line what the disk refused, and ends the run."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
            return
        raise not_written(Path(self.baseFilename), error) from error


@contextmanager
def _logged(path: Path, quiet: bool) -> Iterator[None]:
    """Flower's log, to the terminal as Flower shows it, and all of it into a file."""
    from fedsys.flower import compat

    with storing(path):
        handler = _LogFile(path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("flwr")
    shown = compat.console_handlers()
    before = [(each, each.level, each.stream, each.colored) for each in shown]
    for each in shown:
        each.setStream(sys.stderr)
        each.colored = sys.stderr.isatty()
        if quiet:
            each.setLevel(logging.ERROR)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with storing(path):
            handler.close()
        for each, level, stream, colored in before:
            each.setLevel(level)
            each.setStream(stream)
            each.colored = colored


def _file_name(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in name)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
