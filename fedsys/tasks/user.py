"""A task of one's own: a function in a Python file, named `my_file.py:my_task`."""

from __future__ import annotations

import importlib.util
import sys
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import NoReturn

from fedsys.errors import DataError, FedsysError, UsageError, nearest
from fedsys.task import Task
from fedsys.tasks import files

_MARK = ".py:"


@dataclass(frozen=True)
class UserTask:
    """A function that takes nothing and returns a `fedsys.task.Task`.

    path: of the Python file, from the working directory. function: its name there.
    The file may import its neighbours, as a script may.
    """

    path: str
    function: str

    def __str__(self) -> str:
        return f"{self.path}:{self.function}"

    def load(self) -> Task:
        """Runs the file and calls the function. Raises DataError with file and line."""
        module = _module(self.path)
        function = getattr(module, self.function, None)
        if not callable(function):
            functions = [name for name, item in vars(module).items() if _is_own(item, module)]
            known = nearest(self.function, functions) if functions else "it defines no functions"
            raise DataError(f"{self.path}: no function {self.function!r}; {known}")
        try:
            task = function()
        except (Exception, SystemExit) as error:  # a user's file may raise anything
            _raise_as_one_line(error, self.path)
        if not isinstance(task, Task):
            raise DataError(
                f"{self.path}: {self.function}() returned {type(task).__name__}, "
                "must return a fedsys.task.Task"
            )
        return task


def is_user_task(text: str) -> bool:
    """Whether the text names a Python file and not one of the built-in tasks."""
    return _MARK in text or text.endswith(".py")


def parse_user_task(text: str, place: str) -> UserTask:
    """`path.py:function` as a task. Raises UsageError when there is no function, or more."""
    path, _, function = text.partition(_MARK)
    if not function:
        raise UsageError(
            f"{place}: {text!r} names no function; write {path.removesuffix('.py')}.py:FUNCTION"
        )
    if not function.isidentifier():
        raise UsageError(
            f"{place}: {function!r} is no name of a function; write {path}.py:FUNCTION"
        )
    return UserTask(f"{path}.py", function)


def _module(path: str) -> ModuleType:
    files.read_file(path, "task", "name a Python file as FILE.py:FUNCTION")  # says what is wrong
    resolved = Path(path).expanduser().resolve()
    # A name of its own for every file: two experiments may each have a task.py. No dots, so that
    # pickle can find what the file defines.
    name = f"fedsys_user_{zlib.crc32(str(resolved).encode()):08x}_{resolved.stem}".replace(".", "_")
    spec = importlib.util.spec_from_file_location(name, resolved)
    assert spec is not None and spec.loader is not None  # the path ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses look their module up
    if str(resolved.parent) not in sys.path:
        sys.path.append(str(resolved.parent))
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a user's file may raise anything
        del sys.modules[name]
        _raise_as_one_line(error, path)
    return module


def _is_own(item: object, module: ModuleType) -> bool:
    return callable(item) and getattr(item, "__module__", None) == module.__name__


def _raise_as_one_line(error: BaseException, path: str) -> NoReturn:
    """`file:line: Type: message`, at the last line of the user's file that was running."""
    resolved = str(Path(path).expanduser().resolve())
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == resolved
    ]
    if isinstance(error, SyntaxError) and error.filename == resolved and error.lineno:
        lines.append(error.lineno)
    where = f"{path}:{lines[-1]}" if lines else path
    message = " ".join(str(error.msg if isinstance(error, SyntaxError) else error).split())
    if isinstance(error, FedsysError):  # already says what to do, and has its exit code
        raise type(error)(f"{where}: {message}") from error
    raise DataError(f"{where}: {type(error).__name__}: {message}") from error
