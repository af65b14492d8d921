"""Runs a function of ours in a process of its own, since what it calls may take the process down.

TensorFlow's converter can end a process with a segmentation fault, prints what nobody asked for,
and changes settings for the whole process. Here the caller gets a value or one clear error.

Values travel as files in a temporary folder: JSON, with bytes and arrays beside it. The child
ends when the parent does, however that ended; Ctrl-C and a timeout kill it.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedsys import errors
from fedsys.child import end_with_parent
from fedsys.errors import ExportError, FedsysError
from fedsys.supervision import end, exit_code, how_it_ended, same_modules, start

CALL, ANSWER, NOISE = "call.json", "answer.json", "noise.txt"
QUIET = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "-1",
    "PYTHONHASHSEED": "0",  # the same bytes every time
}


def call(
    function: Callable[..., Any] | str,
    /,
    *,
    doing: str,
    timeout: float = 900.0,
    environment: Mapping[str, str] | None = None,
    **arguments: Any,
) -> Any:
    """What `function(**arguments)` returns, computed in another process.

    function: at the top of a module that can be imported by its name; or "module:name" for one
        that only the child can import. Arguments and what is returned are made of None, bool,
        int, float, str, bytes, Path, NumPy arrays (no objects), lists, tuples (which arrive as
        lists) and mappings with keys of str.
    doing: what an error says was being done ("converting model.keras").
    timeout: seconds. environment: variables for the process, beside those of this one.

    Raises what the function raises where that is a FedsysError, and ExportError where it raises
    anything else (its traceback is added as a note), is ended by a signal or takes too long.
    """
    with tempfile.TemporaryDirectory(prefix="fedsys-") as place:
        folder = Path(place)
        if not isinstance(function, str):
            function = f"{function.__module__}:{function.__qualname__}"
        _write(folder / CALL, {"function": function, "arguments": arguments})
        code = _run(folder, doing, timeout, environment or {})
        answer = _read(folder / ANSWER) if (folder / ANSWER).exists() else None
        if answer is None:
            raise ExportError(f"{doing}: the worker process {how_it_ended(code, folder / NOISE)}")
        if "error" in answer:
            raise _error(answer, doing)
        return answer["value"]


def _run(folder: Path, doing: str, timeout: float, environment: Mapping[str, str]) -> int:
    """Starts the child, waits for its end and says how it ended; kills it on any exception."""
    variables = {**os.environ, **QUIET, **same_modules(), **environment}
    with open(folder / NOISE, "wb") as noise:
        child = start([sys.executable, "-m", __name__, str(folder)], noise, variables)
    try:
        code = exit_code(child, timeout)
    finally:
        end(child)
    if code is None:
        raise ExportError(f"{doing}: not done after {timeout:g} s, so it was stopped")
    return code


def _error(answer: Mapping[str, Any], doing: str) -> FedsysError:
    """The exception that the child met, as one of ours."""
    kind = getattr(errors, answer["error"], None)
    if isinstance(kind, type) and issubclass(kind, FedsysError):
        return kind(answer["message"])
    error = ExportError(f"{doing}: {answer['error']}: {answer['message']}")
    error.add_note(answer["traceback"])
    return error


# --- values as files -----------------------------------------------------------------------------


def _write(path: Path, value: Any) -> None:
    """Writes a value as JSON at `path`, and its bytes and arrays beside it."""
    text = json.dumps(_encoded(value, path))
    part = path.with_suffix(".part")
    part.write_text(text, encoding="utf-8")
    os.replace(part, path)  # there whole, or not at all


def _read(path: Path) -> Any:
    return _decoded(json.loads(path.read_text(encoding="utf-8")), path.parent)


def _encoded(value: Any, path: Path) -> Any:
    if isinstance(value, Mapping):
        return {"{}": {str(key): _encoded(each, path) for key, each in value.items()}}
    if isinstance(value, list | tuple):
        return [_encoded(each, path) for each in value]
    if isinstance(value, Path):
        return {"path": str(value.absolute())}
    if isinstance(value, bytes | bytearray | memoryview):
        return {"bytes": _beside(path, bytes(value))}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return {"array": _beside(path, np.ascontiguousarray(value)), "shape": list(value.shape)}
    return value


def _beside(path: Path, value: bytes | np.ndarray) -> str:
    """Writes a value into a file of its own and says the file's name."""
    name = f"{path.stem}-{len(list(path.parent.iterdir()))}"
    with open(path.parent / name, "wb") as file:
        if isinstance(value, bytes):
            file.write(value)
        else:
            np.save(file, value, allow_pickle=False)
    return name


def _decoded(value: Any, folder: Path) -> Any:
    if isinstance(value, list):
        return [_decoded(each, folder) for each in value]
    if not isinstance(value, dict):
        return value
    if "path" in value:
        return Path(value["path"])
    if "bytes" in value:
        return (folder / value["bytes"]).read_bytes()
    if "array" in value:
        array = np.load(folder / value["array"], allow_pickle=False)
        return array.reshape(value["shape"])  # a scalar was saved as a vector of one
    return {key: _decoded(each, folder) for key, each in value["{}"].items()}


# --- the child -----------------------------------------------------------------------------------


def _serve(folder: Path) -> None:
    """Does what the call in the folder asks for and leaves the answer there."""
    end_with_parent(partial(os._exit, 1))
    wanted = _read(folder / CALL)
    try:
        module, _, name = wanted["function"].partition(":")
        function: Any = getattr(importlib.import_module(module), name)
        answer = {"value": function(**wanted["arguments"])}
    except Exception as error:
        answer = {
            "error": type(error).__name__,
            "message": " ".join(str(error).split())[:1000],
            "traceback": traceback.format_exc(),
        }
    _write(folder / ANSWER, answer)
    os._exit(0)  # not through the exit handlers of libraries, which crash now and then


if __name__ == "__main__":
    _serve(Path(sys.argv[1]))
