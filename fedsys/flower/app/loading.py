"""Loads an app's two components from its folder, without installing it.

The folder stands first on `sys.path` while the app runs, as Flower has it. Afterwards the modules
that came from there are forgotten: another app may call its own ones the same.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedsys.errors import UsageError, nearest
from fedsys.flower.app.project import Project

FRAMEWORKS = ("keras", "tensorflow", "torch")
"""Frameworks with global generators of their own."""


NOISE = re.compile(rb"WARNING: All log messages before absl|[IWE]\d{4} \d\d:\d\d:")
"""How lines begin that TensorFlow's native code writes while it is imported, whatever one sets."""


@dataclass(frozen=True, order=True)
class Place:
    """A line of a file, as a message names it."""

    file: str
    line: int

    def __str__(self) -> str:
        return f"{self.file}, line {self.line}"


def place_of(error: BaseException, folder: Path) -> Place:
    """Where an exception came from: the last line of the app's own, else the last line at all."""
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, SyntaxError) and error.filename:
        return Place(_short(error.filename, folder), error.lineno or 0)
    own = [frame for frame in frames if _own(Path(frame.filename), folder)]
    if not frames:
        return Place(str(folder), 0)
    last = (own or frames)[-1]
    return Place(_short(last.filename, folder), last.lineno or 0)


def _short(file: str, folder: Path) -> str:
    path = Path(file)
    return str(path.relative_to(folder)) if path.is_relative_to(folder) else path.name


@dataclass(frozen=True)
class Loader:
    """Finds the components of an app whose folder is on the path."""

    project: Project

    def __call__(self, part: str, reference: str, kind: type) -> Any:
        """The object that `components.part` refers to, which is of this kind."""
        module_name, _, attribute = reference.partition(":")
        path = self.project.folder / "pyproject.toml"
        said = f"{path}: components.{part} = {reference!r}"
        _check_module(module_name, said, self.project.folder)
        found = importlib.import_module(module_name)
        for name in attribute.split("."):
            try:
                found = getattr(found, name)
            except AttributeError:
                known = [key for key, value in vars(found).items() if isinstance(value, kind)]
                hint = nearest(name, known) if known else f"it makes no {kind.__name__}"
                raise UsageError(f"{said}: {module_name} has no {attribute!r}; {hint}") from None
        if not isinstance(found, kind):
            raise UsageError(f"{said}: is a {type(found).__name__}, not a {kind.__name__}")
        return found

    def frameworks(self) -> None:
        """Imports the frameworks that the app's files import somewhere, perhaps in a function.

        Their generators can be seeded only once they are there, before the first client runs.
        """
        wanted: set[str] = set()
        for path in self.project.folder.rglob("*.py"):
            if _own(path, self.project.folder):
                with suppress(OSError, SyntaxError, ValueError):
                    wanted |= _imported(ast.parse(path.read_bytes()))
        for name in FRAMEWORKS:
            if name in wanted and name not in sys.modules:
                with suppress(ImportError):
                    importlib.import_module(name)


@contextmanager
def quiet_imports() -> Iterator[None]:
    """Keeps native noise off standard error while frameworks are imported; the rest follows."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(kept, 2)
            os.close(kept)
            file.seek(0)
            for line in file:
                if not NOISE.match(line):
                    os.write(2, line)


def _check_module(name: str, said: str, folder: Path) -> None:
    """Raises UsageError if there is no such module; an import would blame a dependency."""
    try:
        spec = importlib.util.find_spec(name)
    except (ModuleNotFoundError, ValueError) as error:
        # Its package is not there, or is no package; or the package itself lacks something.
        missing = getattr(error, "name", None) or name
        if name != missing and not name.startswith(f"{missing}."):
            raise
        spec = None
    if spec is None:
        raise UsageError(f"{said}: there is no module {name!r} in {folder}")


def _imported(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module.split(".")[0])
    return names


@contextmanager
def load(project: Project) -> Iterator[Loader]:
    """Puts the app's folder on the path, for as long as the app runs."""
    roots = {
        reference.partition(":")[0].split(".")[0]
        for reference in (project.server_app, project.client_app)
    }
    hidden = {  # modules of the same name that something else has loaded
        name: module
        for name, module in sys.modules.items()
        if name.split(".")[0] in roots and _there(project.folder, name.split(".")[0])
    }
    for name in hidden:
        del sys.modules[name]
    sys.path.insert(0, str(project.folder))
    importlib.invalidate_caches()
    try:
        yield Loader(project)
    finally:
        with suppress(ValueError):
            sys.path.remove(str(project.folder))
        for name in [name for name, module in sys.modules.items() if _from(module, project.folder)]:
            del sys.modules[name]
        sys.modules.update(hidden)


def _there(folder: Path, name: str) -> bool:
    return (folder / name).is_dir() or (folder / f"{name}.py").is_file()


def _from(module: Any, folder: Path) -> bool:
    """Whether a module was loaded from the folder."""
    known = getattr(module, "__dict__", {})  # getattr would load a lazy module
    file = known.get("__file__")
    paths = [file] if file else list(known.get("__path__") or [])
    return any(_own(Path(path), folder) for path in paths if isinstance(path, str))


def _own(path: Path, folder: Path) -> bool:
    """Whether a file is the app's, not one of an environment that lies in its folder."""
    if not path.is_relative_to(folder):
        return False
    parts = path.relative_to(folder).parts
    return "site-packages" not in parts and not any(part.startswith(".") for part in parts)
