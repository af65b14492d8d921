"""Run folders, read by whoever comes later."""

import fcntl
import json

import numpy as np
import pytest

from fedsys.errors import StorageError
from fedsys.experiment import Experiment
from fedsys.runs import Run, all_runs, new_folder
from fedsys.storage import append_line, write_atomic


@pytest.fixture
def run(tmp_path):
    return Run.create(tmp_path / "run", Experiment(rounds=3))


def test_a_new_run_holds_its_experiment(run):
    assert Run.open(run.folder).experiment == Experiment(rounds=3)
    assert run.records == []
    assert run.known == {}


def test_facts_are_written_over_those_before(run):
    run.say({"a": 1, "b": 2})
    run.say({"b": 3})
    assert run.facts == {"a": 1, "b": 3}


def test_metrics_are_strict_json(run):
    run.record({"round": 1, "loss": float("nan"), "worst": float("inf"), "seconds": 0.5})
    run.record({"round": 2, "loss": 0.25, "worst": -float("inf"), "seconds": 0.5})
    text = (run.folder / "metrics.jsonl").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert run.records[0] == {"round": 1, "loss": None, "worst": None, "seconds": 0.5}
    np.testing.assert_array_equal(run.history["loss"], [np.nan, 0.25])
    assert run.metrics["round"] == 2


def test_a_run_without_a_round_says_so(run):
    for read in (lambda: run.metrics, lambda: run.history):
        with pytest.raises(StorageError, match="no round is done yet: go on with --resume"):
            read()
    with pytest.raises(StorageError, match="has no model yet: finish it with --resume"):
        _ = run.model


def test_rewinding_forgets_later_rounds_and_a_half_line(run):
    for round in (1, 2, 3):
        run.record({"round": round})
    with open(run.folder / "metrics.jsonl", "a") as file:
        file.write('{"rou')
    run.rewind(2)
    assert (run.folder / "metrics.jsonl").read_text() == '{"round": 1}\n{"round": 2}\n'


@pytest.mark.parametrize("line", ["nonsense", "[]", "{}", '{"round": "one"}', ""])
def test_a_damaged_line_of_metrics_is_named(run, line):
    (run.folder / "metrics.jsonl").write_text(f'{{"round": 1}}\n{line}\n{{"round": 3}}\n')
    with pytest.raises(StorageError, match=r"metrics.jsonl: line 2 is damaged"):
        _ = run.records


def test_who_runs_it_is_known_by_the_lock(run):
    run.say({"status": "running"})
    assert run.facts["status"] == "running"  # no lock: nobody can tell
    with run.locked():
        assert Run.open(run.folder).facts["status"] == "running"
        with pytest.raises(StorageError, match="another process is running it"), run.locked():
            pass
    assert run.facts["status"] == "killed"
    with run.locked():
        run.say({"status": "done"})
    assert run.facts["status"] == "done"


def test_a_lock_is_let_go_of_after_an_error(run):
    with pytest.raises(ZeroDivisionError), run.locked():
        _ = 1 / 0
    with run.locked():
        pass


def test_an_error_while_it_is_locked_is_not_taken_for_one_of_the_lock(run):
    with pytest.raises(FileNotFoundError), run.locked():
        raise FileNotFoundError("something else")


def test_looking_at_a_run_leaves_it_to_others(run):
    with run.locked():
        pass
    run.say({"status": "running"})
    assert run.facts["status"] == "killed"
    with open(run.folder / ".lock") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises where it is held


def test_runs_are_found_by_folder_name_or_the_start_of_one(tmp_path):
    for name in ("digits-a1", "digits-b2", "heart-c3"):
        Run.create(tmp_path / name, Experiment())
    (tmp_path / "no-run").mkdir()
    (tmp_path / "file").write_text("")
    assert {run.name for run in all_runs(tmp_path)} == {"digits-a1", "digits-b2", "heart-c3"}
    assert Run.open(tmp_path / "heart-c3").name == "heart-c3"
    assert Run.open("heart-c3", tmp_path).name == "heart-c3"
    assert Run.open("heart", tmp_path).name == "heart-c3"
    with pytest.raises(StorageError, match=r"run 'digits' is one of .*: say which"):
        Run.open("digits", tmp_path)
    with pytest.raises(StorageError, match="no run 'haert'; did you mean 'heart-c3'"):
        Run.open("haert", tmp_path)
    with pytest.raises(StorageError, match="there are no runs in"):
        Run.open("x", tmp_path / "none")


def test_new_folders_are_numbered(tmp_path):
    names = [new_folder(tmp_path / "out", "x").name for _ in range(4)]
    assert names == ["x", "x-2", "x-3", "x-4"]


# --- writing -------------------------------------------------------------------------------------


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomic(path, [b"one", memoryview(b"two")])
    assert path.read_bytes() == b"onetwo"

    def parts():
        yield b"half"
        raise OSError(28, "No space left on device")

    with pytest.raises(StorageError, match="cannot be written: No space left on device: make room"):
        write_atomic(path, parts())
    assert path.read_bytes() == b"onetwo"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_lines_are_added(tmp_path):
    for number in range(3):
        append_line(tmp_path / "lines", json.dumps(number))
    assert (tmp_path / "lines").read_text() == "0\n1\n2\n"
    with pytest.raises(StorageError, match="No space left on device: make room there"):
        append_line(type(tmp_path)("/dev/full"), "x")
    with pytest.raises(StorageError, match="Not a directory: choose another place"):
        append_line(tmp_path / "lines" / "x", "x")
