"""A task of one's own in a file of one's own, and where its mistakes are said to be."""

import sys
import textwrap

import pytest

from fedsys.errors import DataError, UsageError
from fedsys.tasks import TASKS

GOOD = """
    from __future__ import annotations

    import numpy as np
    from fedsys.task import Examples, Task

    def make():
        rows = Examples(np.zeros((4, 2)), np.arange(4) % 2)
        return Task("mine", lambda: None, rows, rows, "binary")
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def to(name, text):
        (tmp_path / name).write_text(textwrap.dedent(text))

    return to


def load(text):
    return TASKS.parse(text).load()


def message(text):
    with pytest.raises(DataError) as raised:
        load(text)
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_a_function_makes_the_task(write):
    write("mine.py", GOOD)
    task = load("mine.py:make")
    assert task.name == "mine"
    assert len(task.train) == 4


def test_two_files_of_one_name_are_two_tasks(write, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        write(f"{folder}/task.py", GOOD.replace('"mine"', f'"{folder}"'))
    first, second = load("a/task.py:make"), load("b/task.py:make")
    assert (first.name, second.name) == ("a", "b")
    assert first.model.__module__ != second.model.__module__


def test_a_file_may_import_its_neighbours(write):
    write("neighbour_of_mine.py", "NAME = 'by a neighbour'")
    text = GOOD.replace("import numpy", "from neighbour_of_mine import NAME\n    import numpy")
    write("mine.py", text.replace('"mine"', "NAME"))
    assert load("mine.py:make").name == "by a neighbour"


def test_no_file(write, tmp_path):
    assert message("no.py:make").startswith(f"task: 'no.py' does not exist (looked in {tmp_path})")
    assert "does not exist" in message("https://example.org/mine.py:make")


def test_no_such_function(write):
    write("mine.py", GOOD)
    assert message("mine.py:mak") == (
        "mine.py: no function 'mak'; did you mean 'make'? known: make"
    )
    write("none.py", "X = 1")
    assert message("none.py:X") == "none.py: no function 'X'; it defines no functions"


def test_a_syntax_error(write):
    write("mine.py", "x = 1\ny = = 2\n")
    assert message("mine.py:make") == "mine.py:2: SyntaxError: invalid syntax"


def test_an_error_while_the_file_runs(write):
    write("mine.py", "x = 1\n\nimport no_such_library\n")
    assert message("mine.py:make") == (
        "mine.py:3: ModuleNotFoundError: No module named 'no_such_library'"
    )


def test_an_error_in_the_function_or_below_it(write):
    write("mine.py", "import json\n\ndef make():\n    return json.loads('{\\n')\n")
    assert message("mine.py:make").startswith("mine.py:4: JSONDecodeError: Expecting property name")
    write("other.py", "def make(path):\n    pass\n")
    assert message("other.py:make").startswith("other.py: TypeError: make() missing 1 required")
    write("quits.py", "def make():\n    raise SystemExit(3)\n")
    assert message("quits.py:make") == "quits.py:2: SystemExit: 3"


def test_another_thing_than_a_task(write):
    write("mine.py", "def make():\n    return {'name': 'mine'}\n")
    assert message("mine.py:make") == (
        "mine.py: make() returned dict, must return a fedsys.task.Task"
    )


def test_what_fedsys_refuses_keeps_its_kind_and_gets_a_place(write):
    write("mine.py", GOOD.replace('"binary"', '"binry"'))
    with pytest.raises(UsageError, match=r"^mine\.py:9: objective 'binry' is unknown; did you"):
        load("mine.py:make")
