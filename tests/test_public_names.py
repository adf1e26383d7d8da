"""The front door: about ten names, each of which is what it says, whatever was imported before."""

import subprocess
import sys
from types import ModuleType

import pytest

import autocompress
import autocompress.export.package
import autocompress.search.study


@pytest.mark.parametrize("name", autocompress.__all__)
def test_a_public_name_is_a_class_or_function_even_after_its_namesake_room_was_imported(name: str) -> None:
    found = getattr(autocompress, name)
    assert callable(found) and not isinstance(found, ModuleType)
    assert found.__name__ == name


def test_rooms_can_still_be_imported_by_their_paths() -> None:
    from autocompress.export import package
    from autocompress.search import study

    assert package.__name__ == "autocompress.export.package"
    assert study.__name__ == "autocompress.search.study"


def test_asking_for_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'searching'"):
        autocompress.searching  # noqa: B018


def test_the_front_door_alone_loads_nothing_heavy() -> None:
    program = "import sys, autocompress; print(*{'torch', 'onnxruntime', 'tvm', 'optuna'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
