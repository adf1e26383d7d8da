"""The beam of the house, for every method on every family: users get what the search foresaw."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch

from autocompress.compression.factorize import FactorizeStep
from autocompress.compression.method import Context, Space
from autocompress.compression.methods import METHODS, apply_plan, draw, read_plan, reshape_plan
from autocompress.compression.positions import PositionsStep
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.tokens import TokenStep
from autocompress.compression.vocabulary import VocabularyStep
from autocompress.errors import UnsupportedError
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan, RangeKind, Rounding
from autocompress.shape import Activations
from tests.compression.training_data import context_for
from tests.conftest import tiny_model

SPACE = Space(depth=(2,), hidden_keep=(0.5,), heads_keep=(0.5,), ffn_keep=(0.4,), attention_bits=(8,), ffn_bits=(4,),
              head_bits=(8,),
              embedding_bits=(8,), align=8, distill_steps=2, repair=("least_squares",),
              vocabulary_keep=(0.9,), embedding_rank=(8,), tokens_keep=(0.5,), max_tokens=6, positions="task",
              quantization_aware_steps=2)  # fmt: skip
SHAPE_STAYS = {"order", "repair", "distill", "quantization_aware"}
OF_TEXT_ALONE = {
    "vocabulary": VocabularyStep(30),
    "positions": PositionsStep(12),
    "factorize": FactorizeStep(8),
    "quantize": QuantizeStep((8,) * 3, (8,) * 3, (8,) * 3, (8,) * 3, embedding_bits=8),
}
"""Steps that no model of images can take."""


class FirstChoice:
    """A trial that always takes the first choice."""

    def suggest_categorical(self, name, choices):
        return choices[0]


@pytest.mark.parametrize("name", METHODS)
def test_apply_leaves_the_shape_that_reshape_foresaw(any_model, name):
    before = adapter_of(any_model).shape(any_model)
    method = METHODS[name]
    step = method.suggest(FirstChoice(), before, SPACE)
    after = adapter_of(any_model).shape(method.apply(any_model, step, context_for(any_model)))
    assert after == method.reshape(before, step)
    stays = SHAPE_STAYS
    if before.pixels is not None:
        stays = stays | {"vocabulary", "positions", "factorize"}
    if before.head == "first_and_mean":
        stays = stays | {"tokens"}
    assert (name in stays) == (after == before)


@pytest.mark.parametrize("step", OF_TEXT_ALONE.values(), ids=OF_TEXT_ALONE)
def test_what_makes_no_sense_of_images_is_refused_and_says_what_does(image_model, step):
    with pytest.raises(UnsupportedError, match="A model that reads images is asked for") as caught:
        METHODS[step.method].reshape(adapter_of(image_model).shape(image_model), step)
    assert "fewer layers, hidden channels, heads" in caught.value.right
    assert "search.space" in caught.value.next_step


@pytest.mark.parametrize("family", ["dinov2", "dinov2_with_registers"])
def test_tokens_whose_mean_the_head_reads_are_not_left_out(family):
    model = tiny_model(family)
    with pytest.raises(UnsupportedError, match="mean of all patches"):
        METHODS["tokens"].apply(model, TokenStep((12, 8, 1)), context_for(model))


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_however_weights_are_rounded_the_shape_is_the_same(either_model, rounding):
    before = adapter_of(either_model).shape(either_model)
    space = replace(SPACE, rounding=(rounding,), rounding_batches=2)
    step = METHODS["quantize"].suggest(FirstChoice(), before, space)
    assert step.rounding == rounding
    student = METHODS["quantize"].apply(either_model, step, context_for(either_model))
    assert adapter_of(student).shape(student) == METHODS["quantize"].reshape(before, step)


@pytest.mark.parametrize("activations", get_args(Activations))
@pytest.mark.parametrize("ranges", get_args(RangeKind))
def test_however_activations_are_read_the_shape_is_what_reshape_foresaw(either_model, ranges, activations):
    before = adapter_of(either_model).shape(either_model)
    space = replace(SPACE, activations=(activations,), ranges=ranges, rounding_batches=2)
    step = METHODS["quantize"].suggest(FirstChoice(), before, space)
    after = METHODS["quantize"].reshape(before, step)
    student = METHODS["quantize"].apply(either_model, step, context_for(either_model))
    assert adapter_of(student).shape(student) == after
    assert {layer.activations for layer in after.layers} == {activations}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_reads_back_from_json(any_model, name):
    step = METHODS[name].suggest(FirstChoice(), adapter_of(any_model).shape(any_model), SPACE)
    plan = CompressionPlan((step,))
    assert read_plan(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_whole_plan_leaves_the_teacher_alone(any_model):
    before = {name: tensor.clone() for name, tensor in any_model.state_dict().items()}
    shape = adapter_of(any_model).shape(any_model)
    plan = draw(FirstChoice(), shape, SPACE)
    student = apply_plan(any_model, plan, context_for(any_model))
    assert adapter_of(student).shape(student) == reshape_plan(shape, plan)
    assert adapter_of(any_model).shape(any_model) == shape
    assert all(torch.equal(tensor, before[name]) for name, tensor in any_model.state_dict().items())


def test_a_plan_is_applied_the_same_way_twice(any_model):
    plan = draw(FirstChoice(), adapter_of(any_model).shape(any_model), replace(SPACE, distill_steps=3))
    context: Context = context_for(any_model)
    first, second = (apply_plan(any_model, plan, context).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_empty_plan_leaves_the_teacher_as_it_is(any_model):
    student = apply_plan(any_model, CompressionPlan(), context_for(any_model))
    assert student is not any_model
    assert all(torch.equal(tensor, any_model.state_dict()[name]) for name, tensor in student.state_dict().items())
