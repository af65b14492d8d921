"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 70,000 grey images of clothes, 28 x 28 pixels."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsys.errors import DataError
from fedsys.task import Examples, Task
from fedsys.tasks import files, models
from fedsys.tasks.idx import parse_idx

if TYPE_CHECKING:
    import keras

_MODELS: dict[str, Callable[[], keras.Model]] = {
    "2nn": models.two_nn,
    "cnn": models.mcmahan_cnn,
    "depthwise": models.depthwise,
    "logistic": partial(models.logistic, (28, 28, 1), 10),
}
_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
_NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
_MIRROR = "https://storage.googleapis.com/tensorflow/tf-keras-datasets"
_REMEDY = f"pass --data FOLDER that holds {', '.join(f'{name}.gz' for name in _NAMES)}"


@dataclass(frozen=True)
class FashionMnist:
    """60,000 training and 10,000 test images in ten classes.

    data: a folder or web address that holds the four IDX files, packed or not. Without it, the
    folder where Keras keeps data sets ($KERAS_HOME or ~/.keras, datasets/fashion-mnist); files
    that are not there are downloaded to it.
    model: 'cnn' or '2nn' of McMahan et al. 2017, 'depthwise' (fits a microcontroller), 'logistic'.
    Inputs are pixels divided by 255, float32, [rows, 28, 28, 1].
    """

    data: str | None = None
    model: str = "cnn"

    def __post_init__(self) -> None:
        models.check_model(self.model, _MODELS, "fashion-mnist")

    def load(self) -> Task:
        """Reads the files. Raises DataError when one is missing, damaged or of another kind."""
        if self.data is not None:
            files.check_folder(self.data, "task.data", _REMEDY)
        sources = _cached() if self.data is None else _given(self.data)
        return Task(
            name="fashion-mnist",
            model=_MODELS[self.model],
            train=_examples(*sources[:2]),
            test=_examples(*sources[2:]),
            classes=_CLASSES,
            prepared={"inputs": "pixels from 0 to 255, divided by 255"},
        )


def _examples(images_source: str, labels_source: str) -> Examples:
    images = parse_idx(files.read(images_source, "task.data", _REMEDY), images_source, 3)
    labels = parse_idx(files.read(labels_source, "task.data", _REMEDY), labels_source, 1)
    if images.shape[1:] != (28, 28):
        height, width = images.shape[1:]
        raise DataError(f"{images_source!r} holds images of {height} x {width}, needs 28 x 28")
    if len(images) != len(labels):
        raise DataError(
            f"{images_source!r} holds {len(images)} images but {labels_source!r} {len(labels)} "
            "labels: take both from one source"
        )
    if len(labels) and labels.max() >= len(_CLASSES):
        raise DataError(f"{labels_source!r} holds label {labels.max()}, needs 0 to 9")
    inputs = images[..., None].astype(np.float32)
    inputs /= 255  # in place: the training images are 188 MB
    return Examples(inputs, labels.astype(np.int64))


def _given(folder: str) -> list[str]:
    """The four files in the user's folder. Raises DataError that names those not there."""
    if files.is_address(folder):
        return [files.join(folder, f"{name}.gz") for name in _NAMES]
    found = {name: _in_folder(folder, name) for name in _NAMES}
    lacking = [name for name, source in found.items() if source is None]
    if lacking:
        raise DataError(
            f"task.data: folder {folder!r} lacks {', '.join(f'{name}.gz' for name in lacking)}; "
            f"{_REMEDY}"
        )
    return [source for source in found.values() if source is not None]


def _in_folder(folder: str, name: str) -> str | None:
    for candidate in (f"{name}.gz", name):
        if files.holds(folder, candidate, "task.data", _REMEDY):
            return files.join(folder, candidate)
    return None


def _cached() -> list[str]:
    """The four files in the Keras data folder, downloaded where they are not there."""
    home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
    folder = home / "datasets" / "fashion-mnist"
    return [_in_folder(str(folder), name) or _download(folder, f"{name}.gz") for name in _NAMES]


def _download(folder: Path, name: str) -> str:
    content = files.read(f"{_MIRROR}/{name}", "task.data", _REMEDY)
    parse_idx(content, name, 3 if "images" in name else 1)  # a proxy's login page is not kept
    unfinished = folder / f".{name}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        unfinished.write_bytes(content)
        unfinished.replace(folder / name)  # another process sees the whole file or none
    except OSError as error:
        raise DataError(
            f"task.data: cannot keep {name} in {str(folder)!r}: {error.strerror}; set KERAS_HOME "
            f"to a folder that can be written, or {_REMEDY}"
        ) from None
    return str(folder / name)
