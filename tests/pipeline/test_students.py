import pytest
import torch

from autocompress.compression.methods import draw
from autocompress.config import load_config
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.candidates import Chosen, Students, space_of
from autocompress.pipeline.status import read_events
from autocompress.pipeline.teacher import load_teacher
from autocompress.pipeline.workspace import Workspace, existing
from tests.cli.world import World

PARAMS = {"depth": 2, "heads_keep": 0.5, "ffn_keep": 0.5, "attention_bits": 8, "ffn_bits": 8, "embedding_bits": 8,
          "vocabulary_keep": 1.0, "embedding_rank": 0}  # fmt: skip


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
