from functools import partial

import pytest
import torch

from autocompress.compression.methods import draw
from autocompress.config import load_config
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.evaluation.task import predict_with
from autocompress.models.load import adapter_of
from autocompress.pipeline import schooling
from autocompress.pipeline.candidates import Students, space_of
from autocompress.pipeline.inputs import fetch_inputs
from autocompress.pipeline.lessons import Lessons
from autocompress.pipeline.schooling import schooled
from autocompress.pipeline.start import load_start
from autocompress.pipeline.teacher import load_teacher
from autocompress.plan import Chosen
from autocompress.training.checkpoint import Checkpoint
from tests.cli.world import CUES, SPECIAL, WORDS, write_model

PARAMS = {"depth": 1, "heads_keep": 0.5, "ffn_keep": 0.5, "attention_bits": 8, "ffn_bits": 8, "embedding_bits": 8,
          "vocabulary_keep": 0.7, "embedding_rank": 0}  # fmt: skip
FEWER = [word for words in CUES.values() for word in words] + ["house", "river", "the"]


@pytest.fixture(scope="module")
def small(world):
    """A smaller model whose tokens are some of the teacher's, in another order."""
    return write_model(world.folder / "small", 5, layers=2, hidden=16, words=sorted(FEWER))


@pytest.fixture(scope="module")
def foreign(world):
    """A smaller model with a token that the teacher does not have."""
    return write_model(world.folder / "foreign", 5, layers=2, hidden=16, words=[*WORDS, "castle"])


def run(world, source, *overrides):
    given = ["model.finetune.epochs=8", f"model.student.source={source}", "model.student.steps=150"]
    rate = "model.student.learning_rate=2.0e-2"
    tokens = ["search.space.vocabulary_keep=[0.7,1.0]", "search.space.vocabulary_coverage=0.5"]
    return load_config(world.run_file, [*given, rate, *tokens, *overrides])


def loaded(config):
    inputs = fetch_inputs(config)
    teacher = load_teacher(config, inputs=inputs)
    return teacher, load_start(config, inputs, teacher)


def students(config, teacher, start, **options):
    return Students(teacher, start, batch_size=16, seed=0, coverage=0.5, **options)


def taught(config, told=lambda *event: None):
    teacher, start = loaded(config)
    lessons = Lessons(config, teacher, told)
    start = schooled(students(config, teacher, start, progress=told, lessons=lessons), config, told)
    return teacher, start, students(config, teacher, start, lessons=lessons)


def test_students_are_made_of_the_teacher_unless_the_run_names_another_model(world):
    config = load_config(world.run_file)
    inputs = fetch_inputs(config)
    teacher = load_teacher(config, inputs=inputs)
    start = load_start(config, inputs, teacher)
    assert inputs.start is inputs.teacher and start.model is teacher.model
    assert (start.name, start.fingerprint, start.counterparts) == ("teacher", teacher.fingerprint, None)


def test_another_model_has_its_own_shape_and_tokens_and_the_classes_of_the_task(world, small):
    teacher, start = loaded(run(world, small))
    shape = adapter_of(start.model).shape(start.model)
    assert shape == start.shape == fetch_inputs(run(world, small)).start.shape
    assert (shape.hidden, len(shape.layers), shape.vocabulary) == (16, 2, len(SPECIAL) + len(FEWER))
    assert shape.classes == teacher.shape.classes == 2
    assert start.task.dataset == teacher.task.dataset and start.task.tokenizer is not teacher.task.tokenizer


def test_for_fidelity_it_learns_the_teachers_answers(world, small):
    config = run(world, small, "goal.objective=fidelity", "model.finetune.epochs=1")
    teacher, start = loaded(config)
    assert start.task.dataset == teacher.task.dataset != fetch_inputs(config).start.task.dataset


def test_tokens_have_the_teachers_ids_by_their_names(world, small):
    teacher, start = loaded(run(world, small))
    ours, theirs = (task.tokenizer.get_vocab() for task in (start.task, teacher.task))
    assert {token: int(start.counterparts[place]) for token, place in ours.items()} == {t: theirs[t] for t in ours}
    same = loaded(run(world, write_model(world.folder / "same", 7, layers=1, hidden=16)))[1]
    assert same.counterparts is None


def test_it_learns_the_task_from_the_teacher_once_and_is_what_plans_change(world, small):
    told = []
    config = run(world, small)
    teacher, start, maker = taught(config, lambda *event: told.append(event[:3]))
    assert [done for stage, done, total in told if stage == "teach"] == list(range(1, 151))
    assert start.task.evaluate(predict_with(start.model), "test").value > 0.9  # Untaught it guesses.
    again = []
    repeated = taught(config, lambda *event: again.append(event[:3]))[1]
    assert again == [("teach", 1, 1)] and repeated.fingerprint == start.fingerprint
    state = repeated.model.state_dict()
    assert all(torch.equal(value, state[name]) for name, value in start.model.state_dict().items())
    plan = draw(Chosen(PARAMS), start.shape, space_of(config, start.shape))
    student, task = maker.make(plan), maker.task(plan)
    shape = adapter_of(student).shape(student)
    assert (shape.hidden, len(shape.layers)) == (16, 1) and shape.vocabulary < start.shape.vocabulary
    assert len(task.tokenizer) == shape.vocabulary


def test_the_teacher_is_asked_for_its_own_ids_of_the_tokens_that_are_left(world, small):
    config = run(world, small, "model.student.steps=0")
    teacher, _, maker = taught(config)
    plan = draw(Chosen(PARAMS), maker.start.shape, space_of(config, maker.start.shape))
    translate = maker._vocabularies.translation(plan)
    ours, theirs = maker.task(plan).tokenizer.get_vocab(), teacher.task.tokenizer.get_vocab()
    found = translate(torch.arange(len(ours)))
    assert {token: int(found[place]) for token, place in ours.items()} == {token: theirs[token] for token in ours}


@pytest.mark.parametrize("recipe", ["ei_bert", "minilmv2", "tinybert"])
def test_recipes_that_compare_tokens_compare_the_same_ones(world, small, recipe):
    config = run(world, small, f"model.student.recipe={recipe}", "model.student.steps=2")
    losses = []
    taught(config, lambda *event: losses.append(event[3]))
    assert any("loss" in str(note) for note in losses)


def test_models_of_other_tokens_compare_answers_alone(world, foreign):
    assert loaded(run(world, foreign))[1].counterparts is None
    with pytest.raises(UnsupportedError, match="no token 'castle'") as caught:
        fetch_inputs(run(world, foreign, "search.space.recipe=[logits,tinybert]"))
    assert "logits, self_distillation, cross_entropy, steady." in caught.value.right
    with pytest.raises(UnsupportedError, match="minilm"):
        fetch_inputs(run(world, foreign, "model.student.recipe=minilm"))


def test_documents_longer_than_the_small_model_reads_are_refused(world, small):
    with pytest.raises(ConfigError, match="33 tokens"):
        fetch_inputs(run(world, small, "task.max_tokens=33"))


def test_a_schooling_that_was_interrupted_goes_on_and_ends_the_same(world, small, monkeypatch):
    monkeypatch.setattr(schooling, "Checkpoint", partial(Checkpoint, seconds=0.0))
    config = run(world, small, "search.seed=3", "model.student.steps=8")

    class Interruption(BaseException):
        pass

    def until(last):
        def progress(stage, done, total, note):
            if stage == "teach" and done == last:
                raise Interruption

        return progress

    with pytest.raises(Interruption):
        taught(config, until(5))
    steps = []
    resumed = taught(config, lambda stage, done, *rest: steps.append(done) if stage == "teach" else None)[1]
    assert steps == [6, 7, 8]
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "elsewhere"))
    whole = taught(config)[1].model.state_dict()
    assert all(torch.equal(value, whole[name]) for name, value in resumed.model.state_dict().items())
