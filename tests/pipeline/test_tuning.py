"""How profiling tunes the compiler; a table takes the place of the clock."""

from dataclasses import replace

import pytest

from autocompress.compiler import local_timer
from autocompress.compiler.target import Target
from autocompress.compiler.tuning_log import KernelClass, find_log
from autocompress.errors import ConfigError
from autocompress.pipeline.tuning import kept_log, read_tune, tune_device, tune_host
from autocompress.shape import LayerShape, ModelShape

SHAPE = ModelShape("bert", 50, 32, 24, 24, (LayerShape(4, 6, 45),), classes=3)


class ByTable:
    """Times nothing: the tile named first is the slowest."""

    compiled = 0

    def __init__(self, target):
        assert target == Target.host()

    def __call__(self, kernels):
        ByTable.compiled += 1
        return lambda order: {name: order.count(name) * [100.0 - list(kernels).index(name)] for name in order}


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    monkeypatch.setattr(local_timer, "LocalTimer", ByTable)
    monkeypatch.setattr(ByTable, "compiled", 0)
    return tmp_path / "tuning"


@pytest.mark.parametrize(
    ("asked", "engine", "how"),
    [
        (None, "tvm", "tiles"),
        (None, "onnxruntime", "off"),
        ("off", "tvm", "off"),
        ("off", "onnxruntime", "off"),
        ("metaschedule", "tvm", "metaschedule"),
    ],
)
def test_tiles_are_tuned_where_there_are_any_unless_asked_otherwise(asked, engine, how):
    assert read_tune(asked, engine) == how


@pytest.mark.parametrize(("asked", "engine"), [("tile", "tvm"), ("tiles", "onnxruntime"), ("", "tvm")])
def test_another_way_to_tune_is_refused(asked, engine):
    with pytest.raises(ConfigError, match="tiles, metaschedule") as raised:
        read_tune(asked, engine)
    assert "--tune" in raised.value.next_step


def test_metaschedule_is_refused_on_a_board_which_tiles_are_not():
    assert (read_tune(None, "tvm", board="rpi4"), read_tune("tiles", "tvm", board="rpi4")) == ("tiles", "tiles")
    with pytest.raises(ConfigError, match="metaschedule is asked for the board rpi4") as raised:
        read_tune("metaschedule", "tvm", board="rpi4")
    assert "profile rpi4 --engine tvm --tune tiles" in raised.value.next_step


def test_what_was_timed_on_a_board_is_kept_for_builds_for_its_target(folder):
    target = {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"}
    log = tune_device([SHAPE], tokens=5, target=Target.read(target), timer=ByTable(Target.host()))
    assert kept_log(target) == log == find_log("aarch64-linux-gnu cortex-a72", [folder])
    assert len(log.entries) == 5 and kept_log().digest == "rule"


def test_what_was_timed_is_kept_for_the_builds_that_follow(folder):
    assert kept_log().digest == "rule"
    told = []
    log = tune_host([SHAPE, SHAPE], tokens=5, how="tiles", progress=lambda *event: told.append(event))
    assert kept_log() == log == find_log(str(Target.host()), [folder])
    assert {(one.rows, one.depth, one.columns) for one in log.entries} == {
        (5, 32, 32),  # output
        (5, 32, 64),  # inwards
        (5, 32, 128),  # queries, keys and values
        (5, 64, 32),  # outwards
        (1, 32, 32),  # the head's two products
    }
    assert [(stage, done, total) for stage, done, total, _ in told] == [("tune", done, 5) for done in range(6)]
    assert ByTable.compiled == 5 and log.digest != "rule"


def test_a_second_time_only_what_is_new_is_timed():
    first = tune_host([SHAPE], tokens=5, how="tiles")
    wider = replace(SHAPE, layers=(LayerShape(4, 6, 100),))
    second = tune_host([SHAPE, wider], tokens=5, how="tiles")
    assert ByTable.compiled == 5 + 1  # 24 x 100 is of the class of 24 x 72, which is known.
    assert {(one.depth, one.columns) for one in second.entries.keys() - first.entries.keys()} == {(128, 32)}
    assert {kernel_class: second.entries[kernel_class] for kernel_class in first.entries} == first.entries


def test_a_log_that_cannot_be_read_is_replaced(folder):
    tune_host([SHAPE], tokens=5, how="tiles")
    (path,) = folder.iterdir()
    path.write_text("{")
    assert all(isinstance(one, KernelClass) for one in tune_host([SHAPE], tokens=5, how="tiles").entries)
    assert ByTable.compiled == 10
