import pytest

from autocompress.config import load_config
from autocompress.errors import ConfigError
from autocompress.pipeline import calibration, setting
from autocompress.pipeline.setting import check, prepare


def test_a_wrong_device_costs_no_fine_tuning(world, monkeypatch):
    def train(*args):
        raise AssertionError("the teacher was loaded first")

    monkeypatch.setattr(setting, "load_teacher", train)
    with pytest.raises(ConfigError, match="raspberry-pi-4"):
        prepare(load_config(world.run_file, ["device.profile=raspberry-pi4"]))


def test_checking_trains_nothing_and_foresees_what_a_run_would(world):
    board = ["device.profile=raspberry-pi-4", "budget.size=0.8x", "export.container=tar"]
    config = load_config(world.run_file, board)
    foreseen = check(config)
    assert not (world.folder / "home/cache/teachers").exists()
    prepared = prepare(config)
    assert prepared.feasibility == foreseen
    assert not prepared.on_this_machine and prepared.target is not None
    assert prepared.runs_here("onnxruntime") and not prepared.runs_here("tvm")
    assert prepared.container == "tar"


def test_the_predictor_must_know_the_widths_that_the_space_adds(world, monkeypatch):
    asked = []

    def predictor_for(*args, bits, **kwargs):
        asked.append(bits)
        return calibration.predictor_for(*args, bits=bits, **kwargs)

    monkeypatch.setattr(setting, "predictor_for", predictor_for)
    board = ["device.profile=raspberry-pi-4", "budget.size=0.8x"]
    check(load_config(world.run_file, board))
    check(load_config(world.run_file, [*board, "search.space.ffn_bits=[2,8]", "search.space.embedding_bits=[16]"]))
    assert asked == [(4, 8, 32), (2, 4, 8, 16, 32)]
