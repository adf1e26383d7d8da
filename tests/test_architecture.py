"""The plan of the house, held: imports point down, neighbours do not know each other, packages have owner rooms."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.compression.methods import METHODS
from autocompress.engines import ENGINES
from autocompress.evaluation.metrics import METRICS
from autocompress.models.load import ADAPTERS
from autocompress.search.proposing import SAMPLERS

PACKAGE = Path(__file__).parents[1] / "autocompress"
FILES = sorted(PACKAGE.rglob("*.py"))

LAYERS: tuple[tuple[str, ...], ...] = (
    ("errors",),
    ("_optional",),
    ("shape", "plan", "cost"),
    ("feeds",),
    ("devices", "engines"),
    ("compiler",),
    ("models", "profiling", "predictors", "runtime", "report", "training"),
    ("boards",),
    ("compression", "evaluation", "export", "search"),
    ("search_space",),
    ("search_config", "device_config", "task_config"),
    ("config",),
    ("pipeline",),
    ("cli",),
    ("__init__", "__main__"),
)
"""Lowest first. A room is a file or folder of the package; rooms of one layer do not import each other."""
LAYER_OF = {room: height for height, rooms in enumerate(LAYERS) for room in rooms}

OWNERS: dict[str, set[str]] = {
    "torch": {"models", "training", "compression", "evaluation", "export", "pipeline"},
    "transformers": {"models", "training", "compression", "evaluation", "export", "pipeline"},
    "onnxruntime": {"engines"},
    "tvm": {"compiler", "engines", "boards"},
    "optuna": {"search"},
    "ray": {"pipeline"},
    "pydantic": {"devices", "search_space", "search_config", "device_config", "task_config", "config"},
    "yaml": {"devices", "config"},
    "plotly": {"report"},
}
NAMELESS = {"utils", "util", "helpers", "helper", "common", "core", "base", "manager", "misc"}
ON_THE_BOARD = tuple(f"autocompress.{room}" for room in ("feeds", "engines", "profiling", "runtime", "boards"))
NOT_ON_THE_BOARD = ("torch", "transformers", "optuna")


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path) -> Iterator[str]:
    """Yield the full name of every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} imports relatively"
            module = node.module or ""
            # ``from autocompress import report`` names a room, ``from autocompress.report import page`` names one too.
            yield from (f"{module}.{alias.name}" for alias in node.names)


def rooms_imported(path: Path) -> set[str]:
    """Return the rooms that a file imports; a public name of the package itself counts as ``__init__``."""
    names = [name.split(".") for name in imported(path)]
    inside = [name[1] if len(name) > 1 else "__init__" for name in names if name[0] == "autocompress"]
    return {room if room in LAYER_OF else "__init__" for room in inside}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
class TestEveryFile:
    def test_stands_in_a_room_of_the_plan(self, path: Path) -> None:
        assert room_of(path) in LAYER_OF

    def test_imports_only_its_own_room_and_lower_layers(self, path: Path) -> None:
        own = room_of(path)
        upward = {room for room in rooms_imported(path) - {own} if LAYER_OF[room] >= LAYER_OF[own]}
        assert not upward, f"{own} imports {sorted(upward)}, which are not below it"

    def test_imports_third_party_packages_only_where_they_are_at_home(self, path: Path) -> None:
        packages = {name.split(".")[0] for name in imported(path)}
        strangers = {package for package in packages & set(OWNERS) if room_of(path) not in OWNERS[package]}
        assert not strangers, f"{sorted(strangers)} belong to {[sorted(OWNERS[one]) for one in sorted(strangers)]}"

    def test_has_a_name_that_says_what_it_holds(self, path: Path) -> None:
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        assert not {part.strip("_") for part in parts} & NAMELESS

    def test_is_short_enough_to_read(self, path: Path) -> None:
        assert len(path.read_text("utf-8").splitlines()) <= 350


def test_every_room_of_the_plan_exists() -> None:
    planned = set(LAYER_OF) - {"__main__"}
    assert planned == {room_of(path) for path in FILES} - {"__main__"}


@pytest.mark.parametrize("module", ON_THE_BOARD)
def test_what_runs_on_a_board_loads_neither_torch_nor_transformers_nor_optuna(module: str) -> None:
    program = f"import sys, pkgutil, importlib, {module} as room\n" + (
        "names = [m.name for m in pkgutil.walk_packages(getattr(room, '__path__', []), room.__name__ + '.')]\n"
        "[importlib.import_module(name) for name in names]\n"
        f"print(*[name for name in {NOT_ON_THE_BOARD!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


@pytest.mark.parametrize("name", [*METHODS, *ADAPTERS, *ENGINES, *METRICS, *SAMPLERS])
def test_everything_in_a_table_has_its_line_in_the_guide(name: str) -> None:
    guide = (PACKAGE.parent / "docs" / "how_to_add.md").read_text("utf-8")
    assert f"`{name}`" in guide
