"""TensorBoard's files hold the metrics of a run."""

from pathlib import Path

import pytest
import tensorflow as tf
from tensorflow.core.util.event_pb2 import Event

import fedsys
from fedsys.errors import StorageError
from fedsys.events import EventWriter
from fedsys.experiment import Experiment
from fedsys.simulation import resume, simulate

pytestmark = pytest.mark.usefixtures("no_pictures")


def read(folder: Path) -> list[Event]:
    files = sorted(map(str, folder.glob("events.out.tfevents.*")))
    return [Event.FromString(record.numpy()) for record in tf.data.TFRecordDataset(files)]


def scalars(folder: Path) -> dict[int, dict[str, float]]:
    return {
        event.step: {value.tag: value.simple_value for value in event.summary.value}
        for event in read(folder)
        if event.summary.value
    }


def test_events_are_the_metrics_of_each_round(tmp_path):
    experiment = Experiment(
        clients=6, cohort=3, rounds=4, evaluate=2, compiler="graph", local=fedsys.Local(epochs=1)
    )
    run = simulate(experiment, folder=tmp_path / "run")
    resume(run.folder, rounds=6)
    found = scalars(run.folder / "events")
    assert list(found) == [1, 2, 3, 4, 5, 6]
    for record in fedsys.Run.open(run.folder).records:
        told = found[record["round"]]
        expected = {
            name.replace("_", "/", 1): float(value)
            for name, value in record.items()
            if name != "round" and isinstance(value, int | float)
        }
        assert told == pytest.approx(expected, rel=1e-6)
    assert {"test/accuracy", "train/loss", "clients/loss_worst"} <= found[6].keys()
    assert read(run.folder / "events")[0].file_version == "brain.Event:2"


def test_a_kill_loses_no_event(tmp_path):
    writer = EventWriter(tmp_path)
    writer.write(1, {"round": 1, "loss": 0.5, "lost": None, "name": "x", "reasons": {}})
    assert scalars(tmp_path) == {1: {"loss": 0.5}}  # while it is still open


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot be written"):
        EventWriter(tmp_path / "file" / "events")


def test_a_full_disk_is_told_like_any_other(tmp_path, monkeypatch):
    with EventWriter(tmp_path) as writer:
        writer._writer.close()
        writer._writer = tf.io.TFRecordWriter("/dev/full")
        with pytest.raises(StorageError, match="cannot be written"):
            writer.write(1, {"loss": 0.5})
        writer._writer = tf.io.TFRecordWriter(str(tmp_path / "other"))


class Failing:
    def close(self):
        raise tf.errors.ResourceExhaustedError(None, None, "full")


def test_an_error_at_the_end_hides_no_error_before(tmp_path):
    writer = EventWriter(tmp_path)
    writer._writer = Failing()
    with pytest.raises(ZeroDivisionError), writer:
        _ = 1 / 0
    with pytest.raises(StorageError, match="No space left on device: make room there"), writer:
        pass
