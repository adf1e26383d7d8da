from typing import get_args

import pytest
import torch

from autocompress.compression.ffn import FfnStep
from autocompress.compression.heads import HeadStep
from autocompress.compression.method import Context, LayerImportance, Space
from autocompress.compression.methods import METHODS, apply_plan, draw, reshape_plan
from autocompress.compression.order import CRITERIA, OrderStep, Rankings
from autocompress.errors import ConfigError, UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan, Criterion
from autocompress.shape import LayerShape, ModelShape
from tests.compression.training_data import batches, context_for
from tests.conftest import tiny_model
from tests.contracts.test_methods import FirstChoice

SHAPE = ModelShape("bert", 100, 32, 16, 16, (LayerShape(4, 4, 64),) * 3, 2)


def logits(model):
    batch = batches(1)[0]
    with torch.no_grad():
        return model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits


@pytest.mark.parametrize("criterion", CRITERIA)
def test_ordering_changes_no_output_and_the_first_units_are_the_important_ones(model, criterion):
    context = context_for(model)
    heads = "obs" if criterion == "l2p" else criterion
    ordered = apply_plan(model, CompressionPlan((OrderStep(heads, criterion),)), context)
    torch.testing.assert_close(logits(ordered), logits(model), atol=1e-5, rtol=1e-5)
    first = context.rankings(criterion)[1].neurons.order[0]
    theirs, ours = (adapter_of(one).layers(one)[1] for one in (model, ordered))
    assert torch.equal(ours.get(ours.ffn_in).weight[0], theirs.get(theirs.ffn_in).weight[first])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_rankings_name_each_unit_once_and_importance_never_rises(model, criterion):
    for layer in CRITERIA[criterion](model, batches(2)):
        for ranking, count in ((layer.heads, 4), (layer.neurons, 96)):
            assert sorted(ranking.order) == list(range(count))
            assert list(ranking.importance) == sorted(ranking.importance, reverse=True)
            assert ranking.importance[-1] >= 0


def test_every_criterion_that_a_plan_may_name_is_in_the_table():
    assert set(get_args(Criterion)) == set(CRITERIA)


def test_each_criterion_is_measured_once():
    read = []

    def read_batches():
        read.append(1)
        return batches(1)

    rankings = Rankings(tiny_model("bert"), read_batches)
    assert rankings("fisher") is rankings("fisher")
    assert len(read) == 1


@pytest.mark.parametrize("step", [OrderStep("l2p", "l2p"), OrderStep("obs", "luck")])
def test_a_criterion_that_does_not_rank_such_units_is_refused(step):
    model = tiny_model("bert")
    with pytest.raises(ConfigError, match="are to be ordered by") as caught:
        METHODS["order"].apply(model, step, context_for(model))
    assert "fisher" in caught.value.right and caught.value.next_step


def test_a_context_that_measures_nothing_says_so():
    model = tiny_model("bert")
    bare = Context(batches, lambda batch: logits(model))
    with pytest.raises(UnsupportedError, match="ranking"):
        METHODS["order"].apply(model, OrderStep("obs", "obs"), bare)


@pytest.mark.parametrize(
    "step", [HeadStep((4, 0, 4)), HeadStep((4, 5, 4)), HeadStep((4, 4)), FfnStep((96, 97, 96)), FfnStep((96, 96, 0))]
)
def test_a_keep_of_none_or_of_more_than_there_is_is_refused(step):
    model = tiny_model("bert")
    method = METHODS[step.method]
    for attempt in (
        lambda: method.reshape(adapter_of(model).shape(model), step),
        lambda: method.apply(model, step, context_for(model)),
    ):
        with pytest.raises(ConfigError, match="A plan keeps") as caught:
            attempt()
        assert "at least 1" in caught.value.right and caught.value.next_step


def global_space(depth=3):
    importance = (
        LayerImportance((9.0, 8.0, 7.0, 6.0), tuple(range(64, 0, -1))),
        LayerImportance((5.0, 4.0, 0.2, 0.1), (0.5,) * 64),
        LayerImportance((3.0, 0.3, 0.2, 0.1), tuple(range(128, 64, -1))),
    )
    return Space(
        (depth,), (0.5,), (0.5,), align=16, allocation=("global",), importance={"fisher": importance}
    )  # fmt: skip


def test_units_of_all_layers_compete_for_as_many_as_equal_shares_would_keep():
    plan = draw(FirstChoice(), SHAPE, global_space())
    steps = {step.method: step for step in plan.steps}
    assert steps["heads"].keep == (4, 1, 1)  # 6 of 12: all of the first layer; no layer loses its last.
    assert steps["ffn"].keep == (16, 16, 64)
    uniform = reshape_plan(SHAPE, draw(FirstChoice(), SHAPE, Space((3,), (0.5,), (0.5,), align=16)))
    assert sum(layer.ffn for layer in uniform.layers) == 96


def test_layers_that_are_left_compete_without_those_that_went():
    steps = {step.method: step for step in draw(FirstChoice(), SHAPE, global_space(depth=1)).steps}
    assert steps["depth"].kept == (2,)
    assert steps["heads"].keep == (2,) and steps["ffn"].keep == (32,)


def test_without_importance_all_layers_keep_equal_shares():
    space = Space((3,), (0.5,), (0.5,), align=16, allocation=("global",))
    steps = {step.method: step for step in draw(FirstChoice(), SHAPE, space).steps}
    assert steps["heads"].keep == (2, 2, 2) and steps["ffn"].keep == (32, 32, 32)
