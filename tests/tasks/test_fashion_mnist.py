"""Fashion-MNIST: the real files, and everything that can be wrong with a copy."""

import gzip
import shutil
import struct

import numpy as np
import pytest

from fedsys.errors import DataError
from fedsys.tasks import FashionMnist, files

NAMES = {
    "train-images-idx3-ubyte": (6, 28, 28),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (3, 28, 28),
    "t10k-labels-idx1-ubyte": (3,),
}


def packed(shape, value=7):
    head = struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)
    return gzip.compress(head + bytes([value]) * int(np.prod(shape)))


@pytest.fixture
def small(tmp_path):
    """A folder of tiny files in the right format."""
    folder = tmp_path / "small"
    folder.mkdir()
    for name, shape in NAMES.items():
        (folder / f"{name}.gz").write_bytes(packed(shape))
    return folder


@pytest.fixture(scope="module")
def real(data):
    return FashionMnist(str(data / "fashion-mnist")).load()


def test_the_real_images(real):
    assert real.train.inputs.shape == (60_000, 28, 28, 1)
    assert real.test.inputs.shape == (10_000, 28, 28, 1)
    assert real.train.inputs.dtype == np.float32
    assert real.train.inputs.min() == 0
    assert real.train.inputs.max() == 1
    assert np.bincount(real.train.labels).tolist() == [6000] * 10
    assert np.bincount(real.test.labels).tolist() == [1000] * 10
    assert real.classes[real.train.labels[0]] == "Ankle boot"  # shown on the data set's page
    # Published by many: the mean of the training pixels.
    assert real.train.inputs.mean(dtype=np.float64) == pytest.approx(0.2860, abs=1e-4)


def test_pictures_and_labels_belong_together(real):
    """The nearest class mean names about 68 % of test images; mixed up rows would give 10 %."""
    pixels = real.train.inputs.reshape(60_000, -1)
    means = np.stack([pixels[real.train.labels == label].mean(axis=0) for label in range(10)])
    tests = real.test.inputs.reshape(10_000, -1)
    distance = (means**2).sum(axis=1) - 2 * tests @ means.T
    assert (distance.argmin(axis=1) == real.test.labels).mean() > 0.65


@pytest.mark.parametrize(
    ("model", "parameters"),
    [("2nn", 199_210), ("cnn", 1_663_370), ("depthwise", 17_290), ("logistic", 7_850)],
)
def test_its_models_read_its_inputs(small, model, parameters):
    task = FashionMnist(str(small), model).load()
    network = task.model()
    assert network.count_params() == parameters
    assert network(task.test.inputs).shape == (3, 10)


def test_unpacked_files_are_as_good(small):
    for name in NAMES:
        file = small / f"{name}.gz"
        (small / name).write_bytes(gzip.decompress(file.read_bytes()))
        file.unlink()
    assert len(FashionMnist(str(small)).load().train) == 6


def message(folder):
    with pytest.raises(DataError) as raised:
        FashionMnist(None if folder is None else str(folder)).load()
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_missing_files_are_named(small):
    (small / "train-labels-idx1-ubyte.gz").unlink()
    (small / "t10k-labels-idx1-ubyte.gz").unlink()
    assert "lacks train-labels-idx1-ubyte.gz, t10k-labels-idx1-ubyte.gz; pass" in message(small)


def test_no_folder(small, tmp_path):
    assert "does not exist" in message(tmp_path / "no")
    assert "is a file, not a folder" in message(small / "train-images-idx3-ubyte.gz")


def test_a_truncated_file(small):
    file = small / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.decompress(file.read_bytes())[:-100])
    expected = 16 + 6 * 784
    assert (
        f"{str(file)!r} is truncated: expected {expected} bytes unpacked, found {expected - 100}"
        in message(small)
    )


def test_images_in_place_of_labels(small):
    shutil.copy(small / "train-images-idx3-ubyte.gz", small / "train-labels-idx1-ubyte.gz")
    assert "holds 3 dimensions, needs 1; were images and labels mixed up?" in message(small)


def test_files_that_do_not_fit_together(small):
    shutil.copy(small / "t10k-labels-idx1-ubyte.gz", small / "train-labels-idx1-ubyte.gz")
    assert "holds 6 images but" in message(small)


def test_other_images_and_other_labels(small):
    (small / "t10k-labels-idx1-ubyte.gz").write_bytes(packed((3,), value=47))
    assert "holds label 47, needs 0 to 9" in message(small)
    (small / "train-images-idx3-ubyte.gz").write_bytes(packed((6, 32, 32)))
    assert "holds images of 32 x 32, needs 28 x 28" in message(small)


def test_without_a_folder_the_keras_folder_is_used(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    shutil.copytree(small, tmp_path / "keras" / "datasets" / "fashion-mnist")
    assert len(FashionMnist().load().train) == 6


def test_without_files_they_are_downloaded_and_kept(small, tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))
    asked = []

    def answer(address, place, remedy):
        asked.append(address)
        return (small / address.rsplit("/", 1)[1]).read_bytes()

    monkeypatch.setattr(files, "_download", answer)
    assert len(FashionMnist().load().train) == 6
    assert len(FashionMnist().load().train) == 6
    assert len(asked) == 4
    kept = tmp_path / "keras" / "datasets" / "fashion-mnist"
    assert sorted(file.name for file in kept.iterdir()) == sorted(f"{name}.gz" for name in NAMES)


def test_a_login_page_is_not_kept(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(files, "_download", lambda *_: b"<html>please log in</html>")
    assert "is no IDX file" in message(None)
    assert not list(tmp_path.rglob("*.gz"))


def test_offline(tmp_path, monkeypatch):
    import urllib.error
    import urllib.request

    def refuse(*arguments, **named):
        raise urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(urllib.request, "urlopen", refuse)
    line = message(None)
    assert "could not download https://" in line
    assert "train-images-idx3-ubyte.gz: Name or service not known; pass --data FOLDER" in line
    assert all(f"{name}.gz" in line for name in NAMES)


def test_a_folder_that_cannot_be_written(small, tmp_path, monkeypatch):
    (tmp_path / "datasets").write_text("a file where the folder should be")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(
        files, "_download", lambda address, *_: (small / address.rsplit("/", 1)[1]).read_bytes()
    )
    assert "cannot keep train-images-idx3-ubyte.gz" in message(None)
