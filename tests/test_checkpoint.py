"""Checkpoints: whatever is cut short, full or damaged, a whole one is left to go on from."""

import errno
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import fedsys
from fedsys.checkpoint import Checkpoints
from fedsys.errors import StorageError
from fedsys.experiment import Experiment
from fedsys.rounds import State
from fedsys.simulation import Silent, resume, simulate

from .conftest import left, lines

pytestmark = pytest.mark.usefixtures("no_pictures")


class Server(NamedTuple):
    weights: np.ndarray
    control: np.ndarray


EMPTY = State(0, Server(np.zeros(4, np.float32), np.zeros(4, np.float32)), np.zeros(2, np.float32))


def after(state: State, round: int) -> State:
    """A state that follows from the one before, as a run's does: clients 0 to 4 take turns."""
    rng = np.random.default_rng(round)
    heard = {client: rng.normal(size=4).astype(np.float32) for client in (round % 5, 2 * round % 5)}
    return State(
        round,
        Server(*rng.normal(size=(2, 4)).astype(np.float32)),
        rng.normal(size=2).astype(np.float32),
        {**state.memory, **heard},
        round % 3,
    )


def states(rounds: int) -> list[State]:
    found = [EMPTY]
    for round in range(1, rounds + 1):
        found.append(after(found[-1], round))
    return found


def same(one: State, other: State) -> bool:
    return (
        (one.round, one.missed, list(one.memory)) == (other.round, other.missed, list(other.memory))
        and all(np.array_equal(a, b) for a, b in zip(one.server, other.server, strict=True))
        and np.array_equal(one.buffers, other.buffers)
        and all(np.array_equal(one.memory[client], other.memory[client]) for client in one.memory)
    )


def files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_a_state_comes_back_bit_for_bit_and_types_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t")
    for state in states(9)[1:]:
        checkpoints.save(state)
        back, warnings = Checkpoints(tmp_path, "t").load(EMPTY)
        assert same(back, state) and not warnings
        assert back.server.weights.dtype == np.float32
        assert isinstance(back.server, Server)
        assert back.server.weights.flags.writeable


def test_the_last_two_are_kept_with_what_they_need_and_no_more(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t")
    every = states(12)
    for state in every[1:]:
        checkpoints.save(state)
        names = sorted(path.name for path in tmp_path.glob("*.checkpoint"))
        assert names == [f"round-{r:08d}.checkpoint" for r in (state.round - 1, state.round) if r]
        assert len(list(tmp_path.glob("memory/*"))) <= 5 + 2
    (tmp_path / "round-00000012.checkpoint").unlink()
    assert same(Checkpoints(tmp_path, "t").load(EMPTY)[0], every[11])


class Killed(BaseException):
    """A kill in the middle of a write."""


@pytest.mark.parametrize("moment", range(28))
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_cut_short_at_any_step_it_goes_on_from_the_last_or_the_one_before(
    tmp_path, monkeypatch, moment, done
):
    """Kills at the moment-th file that is put in place or removed, goes on, and kills again."""
    every = states(12)
    countdown = moment

    def cut(real):
        def call(*arguments, **options):
            nonlocal countdown
            countdown -= 1
            if countdown == -1:
                if done:
                    real(*arguments, **options)
                raise Killed
            real(*arguments, **options)

        return call

    monkeypatch.setattr("fedsys.storage.os.replace", cut(os.replace))
    monkeypatch.setattr(Path, "unlink", cut(Path.unlink))
    checkpoints, state = Checkpoints(tmp_path, "t"), EMPTY
    kills = 0
    while state.round < 12:
        try:
            state = after(state, state.round + 1)
            checkpoints.save(state)
        except Killed:
            kills += 1
            if kills == 1:
                countdown = 3  # and once more soon after
            reached = state.round
            checkpoints, state = Checkpoints(tmp_path, "t"), EMPTY
            if checkpoints.exist():
                state, warnings = checkpoints.load(EMPTY)
                assert not warnings
            assert same(state, every[state.round])
            assert state.round >= reached - 1
    monkeypatch.undo()
    whole = tmp_path / "whole"
    uninterrupted = Checkpoints(whole, "t")
    for state in every[1:]:
        uninterrupted.save(state)
    expected = files(whole)
    shutil.rmtree(whole)
    assert files(tmp_path) == expected


@pytest.fixture
def saved(tmp_path):
    checkpoints = Checkpoints(tmp_path, "t")
    for state in states(7)[1:]:
        checkpoints.save(state)
    return tmp_path


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def head(path: Path) -> None:
    """The digest's first digit: as if the disk had lost the checksum and not the state."""
    content = path.read_bytes()
    path.write_bytes(content[:20] + b"z" + content[21:])


@pytest.mark.parametrize("damage", [truncate, flip, empty, head])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(saved, damage):
    damage(saved / "round-00000007.checkpoint")
    checkpoints = Checkpoints(saved, "t")
    state, (warning,) = checkpoints.load(EMPTY)
    assert same(state, states(7)[6])
    assert str(saved / "round-00000007.checkpoint") in warning
    checkpoints.save(states(7)[7])
    state, warnings = Checkpoints(saved, "t").load(EMPTY)
    assert same(state, states(7)[7]) and not warnings


@pytest.mark.parametrize("damage", [truncate, flip, empty, Path.unlink])
def test_so_does_one_whose_clients_vectors_are_damaged(saved, damage):
    damage(saved / "memory" / "4-7")
    state, (warning,) = Checkpoints(saved, "t").load(EMPTY)
    assert same(state, states(7)[6])
    assert "needs 4-7, which is missing or damaged" in warning


def test_where_none_is_whole_one_line_says_so(saved):
    for path in saved.glob("*.checkpoint"):
        truncate(path)
    with pytest.raises(
        StorageError, match=r"is truncated or damaged.*no older one is left"
    ) as told:
        Checkpoints(saved, "t").load(EMPTY)
    assert "\n" not in str(told.value)


def test_leftovers_of_a_kill_are_removed(saved):
    stale = [
        saved / ".round-00000008.checkpoint.part",
        saved / "memory" / ".3-8.part",
        saved / "memory" / "3-8",
    ]
    for path in stale:
        path.write_bytes(b"half")
    checkpoints = Checkpoints(saved, "t")
    state, _ = checkpoints.load(EMPTY)
    for round in (8, 9):
        state = after(state, round)
        checkpoints.save(state)
    assert not list(saved.rglob(".*"))
    assert same(Checkpoints(saved, "t").load(EMPTY)[0], state)


def test_a_state_of_another_experiment_or_model_is_refused(saved):
    with pytest.raises(StorageError, match=r"is of another experiment \(t, this run's is u\)"):
        Checkpoints(saved, "u").load(EMPTY)
    wider = State(0, Server(np.zeros(5, np.float32), np.zeros(5, np.float32)), np.zeros(2))
    with pytest.raises(StorageError, match=r"is of another model \(4 weights, .*\(5 weights"):
        Checkpoints(saved, "t").load(wider)


def test_a_checkpoint_that_cannot_be_read_is_told_like_a_damaged_one(saved):
    newest = saved / "round-00000007.checkpoint"
    newest.unlink()
    newest.mkdir()
    with pytest.raises(StorageError, match="cannot be written"):  # a folder cannot be unlinked
        Checkpoints(saved, "t").load(EMPTY)


# --- whole runs ----------------------------------------------------------------------------------

SMALL = {
    "clients": 12,
    "cohort": 4,
    "rounds": 5,
    "strategy": "scaffold",
    "local": fedsys.Local(epochs=1),
    "compiler": "graph",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fedsys.Run, "report", lambda run: None)
        simulate(Experiment(**SMALL), folder=folder)
    return folder


@pytest.fixture
def copy(whole, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(whole, folder)
    return folder


class Listener(Silent):
    def __init__(self):
        self.told = []

    def said(self, line):
        self.told.append(line)


@pytest.mark.parametrize("where", ["checkpoints/round-00000005.checkpoint", "checkpoints/memory"])
def test_a_run_with_a_damaged_checkpoint_goes_on_to_the_same_end(copy, whole, where):
    path = copy / where
    truncate(path if path.is_file() else max(path.iterdir(), key=lambda p: p.name.split("-")[1]))
    listener = Listener()
    resume(copy, watcher=listener)
    (line,) = listener.told
    assert line.endswith("; going on from the checkpoint before it")
    assert left(copy) == left(whole)


def test_a_half_written_line_of_metrics_is_dropped(copy, whole):
    with open(copy / "metrics.jsonl", "a") as file:
        file.write('{"round": 6, "clients": 1')
    assert fedsys.Run.open(copy).metrics["round"] == 5
    resume(copy)
    assert left(copy) == left(whole)


def test_lost_metrics_are_told_and_cost_no_rounds(copy, whole):
    text = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text("".join(text[:3]))
    listener = Listener()
    resume(copy, rounds=6, watcher=listener)
    assert "has lost the metrics of 2 of the 5 rounds done" in listener.told[0]
    assert [line["round"] for line in lines(copy)] == [1, 2, 3, 6]


def test_a_kill_before_the_first_checkpoint_begins_again(copy, whole):
    shutil.rmtree(copy / "checkpoints")
    text = (copy / "metrics.jsonl").read_text().splitlines(keepends=True)
    (copy / "metrics.jsonl").write_text(text[0])
    resume(copy)
    assert left(copy) == left(whole)


def test_a_kill_before_the_facts_were_written_begins_again(tmp_path, whole):
    (tmp_path / "run").mkdir()
    shutil.copy(whole / "experiment.toml", tmp_path / "run")
    resume(tmp_path / "run")
    assert left(tmp_path / "run") == left(whole)


def test_without_checkpoints_a_run_of_many_rounds_is_not_begun_again(copy, cli):
    shutil.rmtree(copy / "checkpoints")
    before = files(copy)
    cli("simulate", "--resume", copy).refused(9, "holds no checkpoint: start the run anew")
    assert files(copy) == before


def test_damage_on_the_command_line_is_one_line_each(copy, cli):
    for path in copy.glob("checkpoints/*.checkpoint"):
        truncate(path)
    before = files(copy)
    cli("simulate", "--resume", copy).refused(
        9, "round-00000005.checkpoint: is truncated or damaged", "round-00000004.checkpoint"
    )
    assert files(copy) == before


def test_an_edited_experiment_is_refused(copy, cli):
    toml = copy / "experiment.toml"
    toml.write_text(toml.read_text().replace("seed = 0", "seed = 1"))
    before = files(copy)
    cli("simulate", "--resume", copy).refused(
        9, "round-00000005.checkpoint: is of another experiment", "put its experiment.toml back"
    )
    assert files(copy) == before


def test_a_changed_model_of_a_task_of_ones_own_is_refused(cli, own_task):
    options = ("--clients", 4, "--cohort", 2, "--rounds", 2, "--quiet", "--out", "out")
    assert cli("simulate", "--task", own_task, *options).code == 0
    (folder,) = Path("out").iterdir()
    Path("own.py").write_text(Path("own.py").read_text().replace("Dense(8", "Dense(9"))
    cli("simulate", "--resume", folder, "--rounds", 3).refused(
        9, "is of another model", "put the model back, or start a new run"
    )
    assert "rounds = 2" in (folder / "experiment.toml").read_text()


class Full:
    """A file on a disk with so many bytes left in all: takes a part, and refuses the rest."""

    room = 0

    def __init__(self, path, mode, **options):
        self.file = open(path, mode, **options)  # noqa: SIM115
        self.raw = options.get("buffering") == 0

    def write(self, content):
        fits = bytes(content)[: max(0, Full.room)]
        Full.room -= len(content)
        self.file.write(fits)
        if len(fits) < len(content) and not (self.raw and fits):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return len(fits)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.file.close()


def used(folder: Path) -> int:
    """Bytes that a run writes in all: by far most are checkpoints."""
    sizes = [path.stat().st_size for path in folder.glob("checkpoints/*.checkpoint")]
    own = [path.stat().st_size for path in folder.glob("checkpoints/memory/*")]
    return 5 * sizes[0] + 5 * 4 * own[0]


@pytest.mark.parametrize("part", [0.0, 0.005, 0.1, 0.35, 0.52, 0.71, 0.9, 0.995])
def test_a_disk_that_fills_up_at_any_write_leaves_a_run_to_go_on_with(
    tmp_path, monkeypatch, whole, part
):
    Full.room = int(part * used(whole))
    monkeypatch.setattr("fedsys.storage.open", Full, raising=False)
    folder = tmp_path / "run"
    with pytest.raises(StorageError, match="No space left on device: make room there") as told:
        simulate(Experiment(**SMALL), folder=folder)
    monkeypatch.undo()
    assert not list(folder.rglob(".*.part"))
    if part:
        assert f"go on with --resume {folder}" in str(told.value)
        monkeypatch.setattr(fedsys.Run, "report", lambda run: None)
        resume(folder)
        assert left(folder) == left(whole)
