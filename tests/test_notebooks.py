"""Every notebook runs from top to bottom. What it claims, it asserts itself."""

from pathlib import Path

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

from fedsys.engines import ENGINES

NOTEBOOKS = sorted((Path(__file__).parents[1] / "notebooks").glob("*.ipynb"))
ENGINE = {"04_tensorflow_federated": "tff"}
"""Notebook -> the engine that it needs beside fedsys itself."""


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_runs(path, tmp_path):
    engine = ENGINE.get(path.stem, "compiled")
    if missing := ENGINES.parse(engine).status().missing:
        pytest.skip(f"{missing}: fedsys engines install {engine}")
    notebook = nbformat.read(path, as_version=4)
    # Without folders to look for kernels in, there is the one of this interpreter.
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    resources = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(notebook, km=kernel, timeout=300, resources=resources).execute()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_is_kept_without_outputs(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert all(cell.execution_count is None for cell in notebook.cells if "outputs" in cell)
    assert notebook.metadata.kernelspec.name == "python3"
