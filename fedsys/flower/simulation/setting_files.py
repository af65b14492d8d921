"""A setting as files, for processes on this machine that train its clients.

The rows lie in files that every process maps, and takes into its memory once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fedsys.engines.ray.parcels import packed, unpacked
from fedsys.partition import Partition
from fedsys.task import Examples

if TYPE_CHECKING:
    from fedsys.setting import Setting

ARRAYS = ("inputs", "labels", "order", "start", "weights")


def pack(setting: Setting, folder: Path) -> None:
    """Writes what training the clients needs.

    Raises OSError where there is no room, and UsageError where the task cannot be packed.
    """
    task, partition = setting.task, setting.partition
    rows = task.train.inputs, task.train.labels
    arrays = *rows, partition.order, partition.start, setting.weights
    for name, array in zip(ARRAYS, arrays, strict=True):
        np.save(folder / f"{name}.npy", array, allow_pickle=False)
    bare = replace(task, train=_few(task.train), test=_few(task.test), client_test=None)
    content = packed((bare, setting.experiment, setting.cohort), f"task {task.name!r}")
    (folder / "setting.pickle").write_bytes(content)


def unpack(folder: Path) -> Setting:
    """The setting in a folder, with a model that is built anew, and without rows to test on."""
    from fedsys.layout import Layout
    from fedsys.setting import Setting

    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
    bare, experiment, cohort = unpacked((folder / "setting.pickle").read_bytes())
    task = replace(bare, train=Examples(arrays["inputs"], arrays["labels"]))
    model = task.model()
    if not model.built:
        model.build((None, *arrays["inputs"].shape[1:]))
    return Setting(
        experiment,
        task,
        task.objective,
        Partition(np.array(arrays["order"]), np.array(arrays["start"])),
        cohort,
        model,
        Layout.of(model),
        np.array(arrays["weights"]),
    )


def _few(examples: Examples) -> Examples:
    return Examples(examples.inputs[:1].copy(), examples.labels[:1].copy())
