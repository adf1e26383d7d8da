"""Notebooks are stories that run: on public names only, and without outputs in the repository."""

import ast
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import autocompress

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


@pytest.fixture(params=NOTEBOOKS, ids=lambda path: path.stem)
def path(request: pytest.FixtureRequest) -> Path:
    return request.param


def code(path: Path) -> Iterator[nbformat.NotebookNode]:
    return (cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code")


def test_there_is_a_notebook() -> None:
    assert NOTEBOOKS


def test_it_imports_only_public_names(path: Path) -> None:
    nodes = [node for cell in code(path) for node in ast.walk(ast.parse(cell.source))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    assert not [name for name in modules if name.startswith("autocompress.")]
    names = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] == "autocompress":
            assert node.module == "autocompress"
            names |= {alias.name for alias in node.names}
    assert names and names <= set(autocompress.__all__)


def test_its_outputs_are_stripped(path: Path) -> None:
    assert all(cell.outputs == [] and cell.execution_count is None for cell in code(path))


@pytest.mark.slow
def test_it_runs_from_top_to_bottom(path: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert all(cell.execution_count for cell in notebook.cells if cell.cell_type == "code")
