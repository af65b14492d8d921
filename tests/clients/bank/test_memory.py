"""What a bank keeps between rounds, on its own disk."""

import numpy as np
import pytest

pytest.importorskip("flwr", reason="Flower is not installed")

from flwr.app import Array, ArrayRecord

from fedsys.clients.bank.memory import JOBS, Memory
from fedsys.errors import DataError
from fedsys.flower.rounds.client import MEMORY

JOB = "ab" * 32


def vectors(*rounds):
    return ArrayRecord({str(r): Array(np.full(5, r, np.float32)) for r in rounds})


def test_what_was_kept_is_there_after_a_restart(tmp_path):
    memory = Memory(tmp_path / "memory")
    memory.load(JOB)
    before = memory.held(JOB)
    memory.kept[f"{MEMORY}.{JOB}"] = vectors(1, 2)
    memory.save(JOB, before)
    again = Memory(tmp_path / "memory")
    again.load(JOB)
    held = again.held(JOB)
    assert list(held) == ["1", "2"]
    for round in (1, 2):
        np.testing.assert_array_equal(held[str(round)].numpy(), np.full(5, round, np.float32))
    assert (tmp_path / "memory").stat().st_mode & 0o077 == 0


def test_it_is_written_when_it_changed_and_not_else(tmp_path):
    memory = Memory(tmp_path)
    memory.load(JOB)
    memory.save(JOB, memory.held(JOB))
    assert not list(tmp_path.iterdir()), "a strategy that remembers nothing writes nothing"
    memory.kept[f"{MEMORY}.{JOB}"] = vectors(1)
    memory.save(JOB, None)
    path = tmp_path / f"{JOB}.bin"
    path.unlink()
    memory.save(JOB, memory.held(JOB))
    assert not path.exists()


def test_a_damaged_file_counts_as_none(tmp_path):
    memory = Memory(tmp_path)
    memory.kept[f"{MEMORY}.{JOB}"] = vectors(1)
    memory.save(JOB, None)
    path = tmp_path / f"{JOB}.bin"
    path.write_bytes(path.read_bytes()[:-3])
    again = Memory(tmp_path)
    again.load(JOB)
    assert again.held(JOB) is None


def test_old_jobs_are_forgotten_and_names_from_outside_stay_in_the_folder(tmp_path):
    memory = Memory(tmp_path)
    for number in range(JOBS + 3):
        job = f"{number:064x}"
        memory.load(job)
        memory.kept[f"{MEMORY}.{job}"] = vectors(1)
        memory.save(job, None)
    assert len(list(tmp_path.glob("*.bin"))) == JOBS
    assert memory.held(f"{JOBS + 2:064x}") is not None
    for bad in ("../x", "", "AB" * 32):
        with pytest.raises(DataError):
            memory.load(bad)
