from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import pytest

from autocompress.boards.address import Direct, Place, save
from autocompress.boards.connection import Patience
from autocompress.boards.ssh import reach
from autocompress.config import load_config
from autocompress.errors import ConfigError, DeviceError
from autocompress.pipeline import bench, calibration, setting
from autocompress.pipeline.bench import Bench
from autocompress.pipeline.candidates import space_of
from autocompress.pipeline.setting import check, check_fleet, prepare
from autocompress.pipeline.trials import fingerprint_of
from autocompress.shape import WeightGrid
from tests.boards.agents import free_port
from tests.cli.world import write_model
from tests.pipeline.test_calibration import ByFormula

BOARD = ("device.profile=raspberry-pi-4", "budget.size=0.8x")


@contextmanager
def by_formula(profile, *, engines):
    """Lead to a board on which a formula takes the place of the runner."""
    yield Bench(ByFormula(profile.name), profile.tvm_target)


@pytest.fixture
def untrained(monkeypatch):
    def train(*args):
        raise AssertionError("the teacher was loaded first")

    monkeypatch.setattr(setting, "load_teacher", train)


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Keep what is measured and added from the other tests of this world."""
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))


@pytest.fixture
def away(home, monkeypatch):
    """A board that was added and does not answer."""
    save("raspberry-pi-4", Direct(Place("127.0.0.1", free_port())))
    monkeypatch.setattr(bench, "reach", partial(reach, patience=Patience(connect_s=2, call_s=5, pauses_s=())))


@pytest.fixture
def there(home, monkeypatch):
    """A board that answers."""

    monkeypatch.setattr(setting, "answers", lambda profile: True)
    monkeypatch.setattr(setting, "reach_device", by_formula)


def test_a_wrong_device_costs_no_fine_tuning(world, untrained):
    with pytest.raises(ConfigError, match="raspberry-pi-4"):
        prepare(load_config(world.run_file, ["device.profile=raspberry-pi4"]))


def test_a_device_to_train_on_that_is_not_there_costs_no_download(world):
    told = []
    with pytest.raises(ConfigError, match="training_device is mps"):
        prepare(load_config(world.run_file, ["search.training_device=mps"]), lambda *event: told.append(event))
    assert not told


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


def test_the_predictor_must_know_what_the_space_adds(world, monkeypatch):
    asked = []

    def predictor_for(*args, variety, **kwargs):
        asked.append((variety.bits, variety.tokens_keep, variety.max_tokens, variety.activations, variety.grids))
        return calibration.predictor_for(*args, variety=variety, **kwargs)

    monkeypatch.setattr(setting, "predictor_for", predictor_for)
    board = ["device.profile=raspberry-pi-4", "budget.size=0.8x"]
    more = ["search.space.ffn_bits=[2,8]", "search.space.embedding_bits=[16]", "search.space.tokens_keep=[all,0.5]"]
    more += ["search.space.activations=[static,dynamic]", "search.space.weight_group=[32,128]"]
    check(load_config(world.run_file, board))
    check(load_config(world.run_file, [*board, *more, "search.space.zero_points=[true]"]))
    grids = (WeightGrid(32, zero_points=True), WeightGrid(128, zero_points=True))
    usual = ((4, 8, 32), (1.0,), 12, ("dynamic",), (WeightGrid(),))
    assert asked == [usual, ((2, 4, 8, 16, 32), ("all", 0.5), 12, ("static", "dynamic"), grids)]


def test_the_predictor_knows_the_largest_student_and_the_teacher_beside_it(world, monkeypatch):
    asked = []

    def predictor_for(profile, shape, variety, **kwargs):
        asked.append((shape, variety.beside))
        return calibration.predictor_for(profile, shape, variety=variety, **kwargs)

    monkeypatch.setattr(setting, "predictor_for", predictor_for)
    small = write_model(world.folder / "smaller", layers=1, hidden=16)
    shorter, other = "search.space.positions=task", f"model.student.source={small}"
    for more in ([], [shorter], [other], [shorter, other]):
        check(load_config(world.run_file, [*BOARD, *more]))
    (teacher, nothing), *others = asked
    assert nothing == () and all(beside == (teacher,) for _, beside in others)
    assert others[0][0] == replace(teacher, positions=12)  # Of task.max_tokens.
    assert (others[1][0].hidden, others[1][0].positions) == (16, 32)
    assert others[2][0] == replace(others[1][0], positions=12)


def test_a_board_that_is_away_costs_no_fine_tuning(world, away, untrained):
    with pytest.raises(DeviceError, match="raspberry-pi-4") as caught:
        prepare(load_config(world.run_file, BOARD))
    assert "device probe raspberry-pi-4" in caught.value.next_step


def test_checking_asks_a_board_only_where_it_is_to_be_calibrated(world, away, monkeypatch):
    config = load_config(world.run_file, BOARD)
    with pytest.raises(DeviceError, match="did not answer while measuring"):
        check(config)
    with monkeypatch.context() as patch:
        patch.setattr(setting, "reach_device", by_formula)
        foreseen = check(config)
    assert check(config) == foreseen


def test_a_board_that_answers_is_calibrated_and_measured(world, there):
    prepared = prepare(load_config(world.run_file, BOARD))
    assert prepared.measurable and not prepared.on_this_machine
    assert prepared.target == prepared.profile.tvm_target and not prepared.runs_here("tvm")
    assert prepared.predictor.predict(prepared.teacher.shape, 12).calibrated


@pytest.mark.parametrize("board", ["raspberry-pi-4", "host"])
def test_a_library_that_is_to_be_measured_is_linked(world, there, untrained, board):
    tar = [f"device.profile={board}", "device.engine=tvm", "export.container=tar"]
    with pytest.raises(ConfigError, match="export.container is tar") as caught:
        prepare(load_config(world.run_file, tar))
    assert "linked, to be measured" in caught.value.right


def test_a_library_that_is_only_packed_for_a_board_may_be_a_bundle(world, there):
    assert prepare(load_config(world.run_file, [*BOARD, "export.container=tar"])).container == "tar"


PI, PI_5 = "raspberry-pi-4", "raspberry-pi-5"
FLEET = (*BOARD, f"fleet=[{{profile: {PI_5}, budget: {{size: 0.5x}}}}, {{profile: {PI}, threads: 4}}]")


def test_each_device_of_a_fleet_has_its_predictor_and_limits_and_all_have_one_space_and_teacher(world, home):
    names = [f"{PI}-onnxruntime-1t", PI_5, f"{PI}-onnxruntime-4t"]
    config = load_config(world.run_file, [*FLEET, "search.space.align=auto", "search.space.ffn_bits=[3,8]"])
    foreseen, prepared = check_fleet(config), prepare(config)
    assert list(foreseen) == list(prepared.everywhere) == names
    first, *others = prepared.everywhere.values()
    assert first is prepared and prepared.feasible
    for name, seen in prepared.everywhere.items():
        assert seen.feasibility == foreseen[name] and not seen.measurable
        assert seen.teacher is prepared.teacher and seen.start is prepared.start
        assert seen.feasibility.candidates == first.feasibility.candidates
        assert space_of(seen.config, seen.start.shape) == space_of(config, prepared.start.shape)
    assert [seen.profile.name for seen in others] == [PI_5, PI]
    assert first.feasibility.limits["size_bytes"] == pytest.approx(1.6 * others[0].feasibility.limits["size_bytes"])
    assert others[1].feasibility.limits == pytest.approx(first.feasibility.limits)
    sources = {
        seen.predictor.predict(prepared.start.shape, 12).latency_p50_ms.value for seen in prepared.everywhere.values()
    }
    assert len(sources) == 3  # Another board, and another number of threads.


def test_every_device_of_a_fleet_decides_the_sequence_of_candidates_and_one_alone_is_digested_as_ever(world, home):
    def print_of(*overrides: str) -> str:
        return fingerprint_of(prepare(load_config(world.run_file, [*BOARD, *overrides])))

    alone = print_of()
    others = [f"fleet=[{{profile: {PI_5}{more}}}]" for more in ("", ", threads: 4", ", budget: {size: 0.5x}")]
    assert len({alone, *map(print_of, others)}) == 4
    assert alone == print_of("fleet=[]")


def test_a_wrong_device_of_a_fleet_costs_no_fine_tuning(world, untrained):
    with pytest.raises(ConfigError, match="raspberry-pi-6"):
        prepare(load_config(world.run_file, [*BOARD, "fleet=[{profile: raspberry-pi-6}]"]))
