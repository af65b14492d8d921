"""The app bundle that Flower wants with every run: ours says what a run is not.

Flower sends a run's bundle (FAB) to every node. What our banks run is the fedsys that they have
installed, so the bundle holds a project file and nothing else. Its bytes never change: a bank
refuses a run with any other bundle by its hash alone.
"""

from __future__ import annotations

import hashlib
import io
import zipfile

PROJECT = """\
[project]
name = "fedsys"
version = "1.0.0"
description = "Holds no code: banks run the fedsys that they installed themselves."
license = "Apache-2.0"
dependencies = ["flwr>=1.41"]

[tool.flwr.app]
publisher = "fedsys"

[tool.flwr.app.components]
serverapp = "fedsys.nothing:app"
clientapp = "fedsys.nothing:app"

[tool.flwr.app.config]
"""

_WHEN = (1980, 1, 1, 0, 0, 0)


def bundle() -> bytes:
    """The bundle, as bytes that are always the same."""
    data = PROJECT.encode()
    contents = f"pyproject.toml,{hashlib.sha256(data).hexdigest()},{8 * len(data)}\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("pyproject.toml", _WHEN), data)
        archive.writestr(zipfile.ZipInfo(".info/CONTENT", _WHEN), contents)
    return file.getvalue()


def bundle_hash() -> str:
    """How Flower names the bundle."""
    return hashlib.sha256(bundle()).hexdigest()
