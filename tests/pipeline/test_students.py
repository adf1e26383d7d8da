from dataclasses import replace

import pytest
import torch

from autocompress.compression import hidden
from autocompress.compression.depth import DepthStep
from autocompress.compression.ffn import FfnStep
from autocompress.compression.heads import HeadStep
from autocompress.compression.hidden import HiddenStep
from autocompress.compression.methods import draw
from autocompress.compression.order import OrderStep
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.compression.ranking.channel_importance import channel_scores
from autocompress.compression.ranking.layer_importance import ORDERS
from autocompress.compression.repair import RepairStep
from autocompress.compression.vocabulary import VocabularyStep
from autocompress.config import load_config
from autocompress.errors import ConfigError, StorageError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedLinear
from autocompress.pipeline.candidates import RANKING_BATCHES, Students, choices, space_of
from autocompress.pipeline.layer_orders import layer_orders
from autocompress.pipeline.start import Start
from autocompress.pipeline.status import read_events
from autocompress.pipeline.teacher import load_teacher, training_batches
from autocompress.pipeline.workspace import Workspace, existing
from autocompress.plan import Chosen, CompressionPlan
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
    equal = replace(space, allocation=("uniform",))
    assert maker.informed(equal) == equal
    informed = maker.informed(replace(space, allocation=("uniform", "global")))
    assert [len(layer.heads) for layer in informed.importance["kron_obs"]] == [s.heads for s in teacher.shape.layers]


def test_the_default_depths_are_from_a_third_of_the_layers_to_all(setting):
    config, teacher = setting
    assert space_of(config, teacher.shape).depth == (1, 2, 3)


@pytest.mark.parametrize(
    ("override", "error", "says"),
    [
        ("search.space.depth=[2,4]", ConfigError, "1 to 3 can stay"),
        ("search.space.depth_selection=[uniform,distilbert]", UnsupportedError, "6 of 12"),
        ("search.space.depth_selection=[tinybert]", UnsupportedError, "keeps 1, 3 of 3"),
    ],
)
def test_a_depth_that_the_teacher_or_a_selection_does_not_have_is_refused_before_anything_is_drawn(
    setting, override, error, says
):
    with pytest.raises(error, match=says):
        space_of(load_config("first.yaml", [override]), setting[1].shape)


def test_measured_orders_are_measured_once_a_teacher_and_only_if_asked_for(setting, monkeypatch):
    config, teacher = setting
    assert layer_orders(config, Start.of(teacher)) == {}
    asked = load_config("first.yaml", ["search.space.depth_selection=[uniform,block_influence,replace_one]"])
    told = []
    first = layer_orders(asked, Start.of(teacher), lambda *event: told.append(event[3]))
    assert {selection: sorted(order) for selection, order in first.items()} == dict.fromkeys(ORDERS, [0, 1, 2])
    assert [note for note in told if note in ORDERS] == list(ORDERS)
    for selection in first:
        monkeypatch.delitem(ORDERS, selection)
    assert layer_orders(asked, Start.of(teacher)) == first
    space = space_of(asked, teacher.shape, first)
    choice = {**PARAMS, "depth": 1, "depth_selection": "block_influence"}
    assert DepthStep((first["block_influence"][-1],)) in draw(Chosen(choice), teacher.shape, space).steps


def test_a_narrow_student_keeps_the_most_important_channels(setting):
    """And students that are not narrow are as they were before it was made."""
    config, teacher = setting
    maker = students(setting)
    before = maker.make(CompressionPlan((HeadStep((4, 4, 4)),)))
    narrow = maker.make(CompressionPlan((HiddenStep(24),)))
    assert adapter_of(narrow).shape(narrow) == hidden.reshape(teacher.shape, HiddenStep(24))
    batches = list(training_batches(teacher.task, RANKING_BATCHES, batch_size=16, seed=0))
    scores = channel_scores(teacher.model, batches).channels
    table = adapter_of(narrow).token_embedding(narrow).weight
    kept = scores.argsort(descending=True, stable=True)[:24]
    assert torch.equal(table, adapter_of(teacher.model).token_embedding(teacher.model).weight[:, kept])
    again = maker.make(CompressionPlan((HeadStep((4, 4, 4)),))).state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in before.state_dict().items())


def test_a_narrow_student_is_repaired_on_the_channels_that_it_kept(setting):
    _, teacher = setting
    maker = students(setting)
    steps = (HiddenStep(teacher.shape.hidden - 8),)
    batch = teacher.task.batches("train", batch_size=16, seed=0)[0]
    with torch.no_grad():
        dense, narrow, repaired = (
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            for model in (
                teacher.model,
                maker.make(CompressionPlan(steps)),
                maker.make(CompressionPlan((*steps, RepairStep("least_squares", 4, 0)))),
            )
        )
    assert (repaired - dense).norm() < (narrow - dense).norm()


def test_a_student_of_fewer_tokens_is_repaired_on_documents_that_it_can_read(setting):
    """Its tokenizer cuts them into other tokens than the teacher's: the dense model has the smaller table too."""
    _, teacher = setting
    maker, fewer = students(setting), VocabularyStep(teacher.shape.vocabulary - 2)
    narrow = (fewer, FfnStep((24, 24, 24)))
    dense, pruned, repaired = (
        maker.make(CompressionPlan(steps)) for steps in ((fewer,), narrow, (*narrow, RepairStep("least_squares", 4, 0)))
    )
    batch = maker.task(CompressionPlan((fewer,))).batches("train", batch_size=16, seed=0)[0]
    with torch.no_grad():
        expected, before, after = (
            model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
            for model in (dense, pruned, repaired)
        )
    assert (after - expected).norm() < (before - expected).norm()


def test_training_with_rounded_weights_goes_on_from_the_floats_behind_them(setting):
    """So small a rate moves no weight by half a step, but those that were nearly rounded the other way."""
    maker, rounded = students(setting), plan(setting, attention_bits=4, ffn_bits=4)
    aware = QuantizationAwareStep(3, 1e-4, seed=0)
    before, after = maker.make(rounded), maker.make(CompressionPlan((*rounded.steps, aware)))
    linears = [module for module in before.modules() if isinstance(module, QuantizedLinear)]
    assert min(float(module.scale.abs().median()) for module in linears) > 10 * aware.steps * aware.learning_rate
    others = [module for module in after.modules() if isinstance(module, QuantizedLinear)]
    moved = [float((a.weight != b.weight).float().mean()) for a, b in zip(linears, others, strict=True)]
    assert 0 < max(moved) < 0.2


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
