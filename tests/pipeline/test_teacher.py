import json
import shutil
from functools import partial

import pytest
from safetensors.torch import load_file

from autocompress.config import RunConfig, load_config
from autocompress.devices.paths import cache_folder
from autocompress.errors import ConfigError, SourceError, UnsupportedError
from autocompress.evaluation.task import predict_with
from autocompress.pipeline import teacher as teachers
from autocompress.pipeline.inputs import fetch_inputs
from autocompress.pipeline.teacher import load_teacher
from autocompress.training.checkpoint import Checkpoint


def config(world, *overrides: str) -> RunConfig:
    return load_config(world.run_file, overrides)


def events(run: RunConfig) -> list[tuple[str, int, int]]:
    told = []
    load_teacher(run, lambda stage, done, total, note: told.append((stage, done, total)))
    return told


@pytest.fixture
def limitless(world, tmp_path) -> str:
    """A model of 32 positions whose tokenizer states no limit."""
    shutil.copytree(world.folder / "model", tmp_path / "model")
    path = tmp_path / "model/tokenizer_config.json"
    settings = json.loads(path.read_text())
    del settings["model_max_length"]
    path.write_text(json.dumps(settings))
    return str(tmp_path / "model")


@pytest.mark.parametrize("ask", [load_teacher, fetch_inputs])
def test_documents_longer_than_the_positions_are_refused_before_anything_is_trained(world, limitless, ask):
    with pytest.raises(ConfigError, match="48 tokens") as caught:
        ask(config(world, f"model.source={limitless}", "task.max_tokens=48"))
    assert caught.value.next_step == "Set task.max_tokens to 32 or less."


def test_as_many_tokens_as_positions_are_allowed(world, limitless):
    inputs = fetch_inputs(config(world, f"model.source={limitless}", "task.max_tokens=32"))
    assert inputs.start is inputs.teacher and inputs.teacher.shape.positions == 32


def test_a_teacher_is_fitted_once_for_the_same_recipe_and_documents(world):
    steps = 8 * -(-216 // 32)  # epochs, documents left after validation is cut out of 240, documents a step
    assert events(config(world))[-1] == ("fine-tune", steps, steps)
    assert events(config(world))[-1] == ("fine-tune", 1, 1)
    assert events(config(world, "model.finetune.epochs=1"))[-1] == ("fine-tune", 7, 7)


class Interruption(BaseException):
    """What ends a process, as abruptly as a signal."""


def test_a_fine_tuning_that_was_interrupted_goes_on_inside_and_ends_with_the_same_teacher(world, monkeypatch):
    monkeypatch.setattr(teachers, "Checkpoint", partial(Checkpoint, seconds=0.0))
    run = config(world, "model.finetune.epochs=1", "model.finetune.seed=7")
    steps = []

    def until(last):
        def progress(stage, done, total, note):
            if stage == "fine-tune":
                steps.append(done)
            if done == last:
                raise Interruption

        return progress

    with pytest.raises(Interruption):
        load_teacher(run, until(4))
    folder = load_teacher(run, until(None)).folder
    assert steps == [0, 1, 2, 3, 4, 0, 5, 6, 7]
    assert not list((cache_folder() / "teachers").glob("*.training"))
    resumed = load_file(folder / "model.safetensors")
    shutil.rmtree(folder)
    whole = load_file(load_teacher(run).folder / "model.safetensors")
    assert resumed.keys() == whole.keys()
    assert all((resumed[name] == whole[name]).all() for name in whole)


def test_a_device_that_is_not_there_is_refused_before_anything_is_fetched(world):
    told = []
    with pytest.raises(ConfigError, match="training_device is mps"):
        load_teacher(config(world, "search.training_device=mps"), lambda *event: told.append(event))
    assert not told


def test_the_teacher_knows_the_names_of_its_classes_and_does_its_task(world):
    teacher = load_teacher(config(world))
    assert teacher.model.config.id2label == {0: "animal", 1: "plant"}
    assert teacher.shape == fetch_inputs(config(world)).teacher.shape
    assert not teacher.model.training


def test_the_fingerprint_follows_weights_and_documents(world):
    prints = [
        load_teacher(config(world, *overrides)).fingerprint
        for overrides in ([], [], ["model.finetune.epochs=1"], ["task.eval_limit=20"])
    ]
    assert prints[0] == prints[1]
    assert len(set(prints)) == 3


def test_a_base_model_is_to_be_fitted_first(world, tmp_path):
    run = {"model": {"source": "model"}}
    world.write_run(**run)
    try:
        with pytest.raises(UnsupportedError, match="no classifier"):
            load_teacher(config(world))
    finally:
        world.write_run()


def test_other_classes_in_another_number_are_refused(world, tmp_path):
    """The teacher that was fitted to two classes is asked for three."""
    two = load_teacher(config(world)).folder
    shutil.copytree(world.folder / "data", tmp_path / "data")
    with (tmp_path / "data/train.tsv").open("a") as file:
        file.write("the old stone\tmineral\n" * 20)
    world.write_run(model={"source": str(two)}, task={"data": {"source": str(tmp_path / "data")}, "max_tokens": 12})
    try:
        with pytest.raises(SourceError, match=r"2 classes apart \(animal, plant\), the data has 3"):
            load_teacher(config(world))
    finally:
        world.write_run()


def test_for_fidelity_its_answers_take_the_place_of_all_labels_but_those_of_the_test_split(world):
    half_taught = "model.finetune.epochs=1"  # So that it is not always right.
    plain, faithful = (
        load_teacher(config(world, half_taught, f"goal.objective={name}")) for name in ("task", "fidelity")
    )
    assert faithful.task.evaluate(predict_with(faithful.model), "validation").value == 1.0
    assert faithful.task.dataset.test == plain.task.dataset.test
    assert faithful.fingerprint != plain.fingerprint
