"""The benchmark of training steps: which ways ask the teacher, and what a checkpoint is."""

import pytest

from autocompress.config import load_config
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import load_teacher
from benchmarks.teachers import Tutored
from benchmarks.training_steps import RECIPES_OF, checkpoint_cost, context_of, costs, half, step_s
from tests.cli.world import World


@pytest.fixture(scope="module")
def tutored(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("world"))
        patch.chdir(world.folder)
        patch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
        teacher = load_teacher(load_config(world.run_file, ["model.finetune.epochs=1"]))
        yield Tutored("world", teacher.folder, teacher.model, teacher.task)


@pytest.mark.parametrize("name", RECIPES_OF)
def test_a_teacher_is_asked_while_the_store_is_empty_alone(tutored, tmp_path, monkeypatch, name):
    ran, forward = [], tutored.model.forward
    monkeypatch.setattr(tutored.model, "forward", lambda *args, **named: ran.append(1) or forward(*args, **named))
    student = half(tutored.model)
    del student.forward  # The copy has the counting one too.
    asked = []
    for _ in range(2):
        ran.clear()
        assert step_s(student, RECIPES_OF[name], context_of(tutored, tmp_path), steps=2) > 0
        asked.append(len(ran))
    assert asked == ([0, 0] if name == "labels" else [3, 0])


def test_every_way_is_measured_in_every_round_against_labels(tutored):
    assert len(adapter_of(half(tutored.model)).layers(half(tutored.model))) == 1  # Of three, rounded down.
    found = costs(tutored, steps=1, rounds=2)
    assert all(len(times) == 2 for times in found["rounds"].values())
    assert found["over_labels"]["labels"] == 1 and len(found["step_s"]) == 5


def test_a_checkpoint_holds_weights_and_two_moments(tutored):
    found = checkpoint_cost(tutored, rounds=1)
    weights = sum(4 * parameter.numel() for parameter in tutored.model.parameters())
    assert 3 * weights < found["bytes"] < 3 * weights + 40_000
