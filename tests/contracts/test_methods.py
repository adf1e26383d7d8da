"""The beam of the house, for every method on every family: users get what the search foresaw."""

import json
from dataclasses import replace
from typing import get_args

import pytest
import torch

from autocompress.compression.method import Context, Space
from autocompress.compression.methods import METHODS, apply_plan, draw, read_plan, reshape_plan
from autocompress.models.load import adapter_of
from autocompress.plan import CompressionPlan, RangeKind, Rounding
from autocompress.shape import Activations
from tests.compression.training_data import context_for

SPACE = Space(depth=(2,), hidden_keep=(0.5,), heads_keep=(0.5,), ffn_keep=(0.4,), attention_bits=(8,), ffn_bits=(4,),
              head_bits=(8,),
              embedding_bits=(8,), align=8, distill_steps=2, repair=("least_squares",),
              vocabulary_keep=(0.9,), embedding_rank=(8,), tokens_keep=(0.5,), max_tokens=6, positions="task",
              quantization_aware_steps=2)  # fmt: skip
SHAPE_STAYS = {"order", "repair", "distill", "quantization_aware"}


class FirstChoice:
    """A trial that always takes the first choice."""

    def suggest_categorical(self, name, choices):
        return choices[0]


@pytest.mark.parametrize("name", METHODS)
def test_apply_leaves_the_shape_that_reshape_foresaw(model, name):
    before = adapter_of(model).shape(model)
    method = METHODS[name]
    step = method.suggest(FirstChoice(), before, SPACE)
    after = adapter_of(model).shape(method.apply(model, step, context_for(model)))
    assert after == method.reshape(before, step)
    assert name in SHAPE_STAYS or after != before


@pytest.mark.parametrize("rounding", get_args(Rounding))
def test_however_weights_are_rounded_the_shape_is_the_same(model, rounding):
    before, space = adapter_of(model).shape(model), replace(SPACE, rounding=(rounding,), rounding_batches=2)
    step = METHODS["quantize"].suggest(FirstChoice(), before, space)
    assert step.rounding == rounding
    student = METHODS["quantize"].apply(model, step, context_for(model))
    assert adapter_of(student).shape(student) == METHODS["quantize"].reshape(before, step)


@pytest.mark.parametrize("activations", get_args(Activations))
@pytest.mark.parametrize("ranges", get_args(RangeKind))
def test_however_activations_are_read_the_shape_is_what_reshape_foresaw(model, ranges, activations):
    before = adapter_of(model).shape(model)
    space = replace(SPACE, activations=(activations,), ranges=ranges, rounding_batches=2)
    step = METHODS["quantize"].suggest(FirstChoice(), before, space)
    after = METHODS["quantize"].reshape(before, step)
    student = METHODS["quantize"].apply(model, step, context_for(model))
    assert adapter_of(student).shape(student) == after
    assert {layer.activations for layer in after.layers} == {activations}


@pytest.mark.parametrize("name", METHODS)
def test_a_step_reads_back_from_json(model, name):
    step = METHODS[name].suggest(FirstChoice(), adapter_of(model).shape(model), SPACE)
    plan = CompressionPlan((step,))
    assert read_plan(json.loads(json.dumps(plan.to_json()))) == plan


def test_a_whole_plan_leaves_the_teacher_alone(model):
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    shape = adapter_of(model).shape(model)
    plan = draw(FirstChoice(), shape, SPACE)
    student = apply_plan(model, plan, context_for(model))
    assert adapter_of(student).shape(student) == reshape_plan(shape, plan)
    assert adapter_of(model).shape(model) == shape
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_plan_is_applied_the_same_way_twice(model):
    plan = draw(FirstChoice(), adapter_of(model).shape(model), replace(SPACE, distill_steps=3))
    context: Context = context_for(model)
    first, second = (apply_plan(model, plan, context).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_an_empty_plan_leaves_the_teacher_as_it_is(model):
    student = apply_plan(model, CompressionPlan(), context_for(model))
    assert student is not model
    assert all(torch.equal(tensor, model.state_dict()[name]) for name, tensor in student.state_dict().items())
