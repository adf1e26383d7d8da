from dataclasses import replace

import pytest
import torch

from autocompress.compression.methods import draw
from autocompress.compression.order import OrderStep
from autocompress.config import load_config
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.candidates import Chosen, Students, choices, space_of
from autocompress.pipeline.status import read_events
from autocompress.pipeline.teacher import load_teacher
from autocompress.pipeline.workspace import Workspace, existing
from autocompress.plan import CompressionPlan
from tests.cli.world import World

PARAMS = {"depth": 2, "heads_keep": 0.5, "ffn_keep": 0.5, "attention_bits": 8, "ffn_bits": 8, "embedding_bits": 8}


@pytest.fixture(scope="module")
def setting(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        world = World(tmp_path_factory.mktemp("world"))
        patch.chdir(world.folder)
        patch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
        config = load_config("first.yaml", ["model.finetune.epochs=1"])
        yield config, load_teacher(config)


def students(setting, told=None):
    _, teacher = setting
    return Students(teacher, batch_size=16, seed=0, progress=told or (lambda *args: None))


def plan(setting, **other):
    config, teacher = setting
    return draw(Chosen({**PARAMS, **other}), teacher.shape, space_of(config, teacher.shape))


def test_candidates_that_differ_in_bits_share_one_training(setting):
    trained = []
    maker = students(setting, lambda stage, step, total, note: trained.append(step))
    maker.make(plan(setting))
    steps = len(trained)
    maker.make(plan(setting, ffn_bits=4))
    assert steps > 0 and len(trained) == steps
    maker.make(plan(setting, depth=1))
    assert len(trained) == 2 * steps


def test_a_student_is_the_same_whatever_was_made_before_it(setting):
    maker = students(setting)
    maker.make(plan(setting, ffn_bits=4))
    shared, alone = maker.make(plan(setting)), students(setting).make(plan(setting))
    assert all(
        torch.equal(a, b) for a, b in zip(shared.state_dict().values(), alone.state_dict().values(), strict=True)
    )


def test_units_are_ordered_and_repaired_as_the_run_says(setting):
    config, teacher = setting
    given = ["model.finetune.epochs=1", "search.space.heads_order=[obs]", "search.space.neurons_order=[kron_obs]"]
    config = load_config("first.yaml", [*given, "search.space.repair=[none,least_squares]"])
    space = space_of(config, teacher.shape)
    assert choices(space)["repair"] == ("none", "least_squares")
    params = {**PARAMS, "attention_bits": 32, "ffn_bits": 32, "embedding_bits": 32}
    plans = [draw(Chosen({**params, "repair": kind}), teacher.shape, space) for kind in space.repair]
    assert OrderStep("obs", "kron_obs") in plans[0].steps
    maker = students(setting)
    untrained = [CompressionPlan(tuple(s for s in plan.steps if s.method != "distill")) for plan in plans]
    batch = teacher.task.batches("train", batch_size=16, seed=0)[0]
    with torch.no_grad():
        dense, pruned, repaired = (
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            for model in (teacher.model, *(maker.make(plan) for plan in untrained))
        )
    assert (repaired - dense).norm() < (pruned - dense).norm()


def test_importance_is_measured_where_layers_compete(setting):
    config, teacher = setting
    space, maker = space_of(config, teacher.shape), students(setting)
    assert maker.informed(space) == space
    informed = maker.informed(replace(space, allocation=("uniform", "global")))
    assert [len(layer.heads) for layer in informed.importance["fisher"]] == [s.heads for s in teacher.shape.layers]


def test_the_default_depths_are_from_a_third_of_the_layers_to_all(setting):
    config, teacher = setting
    assert space_of(config, teacher.shape).depth == (1, 2, 3)


def test_a_line_that_a_killed_process_left_unfinished_is_no_event(tmp_path):
    workspace = Workspace(tmp_path)
    workspace.noting(lambda *args: None)("search", 1, 3, "a note")
    with workspace.events.open("a") as file:
        file.write('{"time": 1, "sta')
    (event,) = read_events(workspace)
    assert (event["stage"], event["done"], event["total"], event["note"]) == ("search", 1, 3, "a note")


def test_a_folder_without_a_run_and_a_run_without_a_result_are_told_apart(tmp_path):
    with pytest.raises(ConfigError, match=r"run\.yaml"):
        existing(tmp_path)
    (tmp_path / "run.yaml").write_text("")
    with pytest.raises(StorageError, match="--resume"):
        existing(tmp_path).report()
