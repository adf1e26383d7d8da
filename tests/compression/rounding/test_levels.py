import copy
from dataclasses import replace

import pytest
import torch

from autocompress.compression.rounding.grids import grid_of
from autocompress.compression.rounding.layer_inputs import LayerInputs, head_inputs
from autocompress.compression.rounding.levels import levels_of, round_head, round_layers
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import compensated
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedLinear, expand_groups
from autocompress.shape import WeightGrid, by_block
from tests.compression.padded import padded
from tests.compression.quadratics import correlated, setting
from tests.conftest import tiny_model

BATCHES = [padded(4, 0), padded(6, 1)]
WAYS = ["optq", "aespa", "descent"]


def rounded(model, rounding, bits=((4, 4),) * 3, batches=BATCHES, **options):
    student = copy.deepcopy(model)
    round_layers(student, [by_block(*pair) for pair in bits], rounding, batches, **options)
    return student


@pytest.mark.parametrize("rounding", WAYS)
def test_a_layer_is_rounded_for_what_the_rounded_layers_before_it_give(rounding):
    """So the last layer gets the levels that it gets alone, behind the others as they came out."""
    student = rounded(tiny_model("bert"), rounding, iterations=20)
    alone = copy.deepcopy(student)
    last, dense = adapter_of(alone).layers(alone)[2], adapter_of(tiny_model("bert")).layers(tiny_model("bert"))[2]
    for path in (*last.attention_linears, *last.ffn_linears):
        last.replace(path, dense.get(path))
    round_last = [(32,) * 4, (32,) * 4, (4,) * 4]
    round_layers(alone, round_last, rounding, BATCHES, iterations=20)
    assert all(torch.equal(alone.state_dict()[name], value) for name, value in student.state_dict().items())


def test_the_output_projection_is_rounded_for_what_rounded_attention_gives():
    """By hand: OPTQ of the output projection, on inputs behind rounded queries, keys and values."""
    model = tiny_model("bert")
    student = rounded(model, "optq", bits=((3, 32), (32, 32), (32, 32)))
    layer, dense = adapter_of(student).layers(student)[0], adapter_of(model).layers(model)[0]
    tokens = torch.cat([x[real] for x, real in LayerInputs(student, BATCHES).of(layer.output)])
    hessian = Objective(second_moment([tokens])[None]).damped().inputs[0]
    weight = dense.get(dense.output).weight.detach()
    grid = grid_of(weight, 3)
    assert torch.equal(layer.get(layer.output).weight, grid.levels(compensated(weight, hessian, grid)))


@pytest.mark.parametrize("rounding", WAYS)
def test_padding_and_labels_do_not_count(rounding):
    noisy = copy.deepcopy(BATCHES)
    for batch in noisy:
        batch.input_ids[batch.attention_mask == 0] = 39
    first, second = (rounded(tiny_model("bert"), rounding, batches=b, iterations=20) for b in (BATCHES, noisy))
    assert all(torch.equal(second.state_dict()[name], value) for name, value in first.state_dict().items())


@pytest.mark.parametrize("rounding", WAYS)
def test_bits_that_have_no_grid_are_left_or_rounded_to_nearest(rounding):
    model = tiny_model("distilbert")
    student = rounded(model, rounding, bits=((32, 8), (16, 2), (4, 32)), iterations=5)
    before, after = (adapter_of(one).layers(one) for one in (model, student))
    for path in before[0].attention_linears:
        assert after[0].get(path).weight.equal(before[0].get(path).weight)
        assert after[1].get(path).weight.equal(before[1].get(path).weight.to(torch.bfloat16))
        assert isinstance(after[2].get(path), QuantizedLinear)
    found = [layer.bits for layer in adapter_of(student).shape(student).layers]
    assert found == [by_block(32, 8), by_block(16, 2), by_block(4, 32)]


@pytest.mark.parametrize("rounding", WAYS)
def test_linears_are_rounded_on_the_grid_that_is_asked_for(rounding):
    def grid_at(bits):
        return WeightGrid(64, zero_points=True).at(bits, "token")

    student = rounded(tiny_model("bert"), rounding, bits=((2, 8),) * 3, grid_at=grid_at, iterations=20)
    for layer in adapter_of(student).layers(student):
        assert {layer.get(path).grid for path in layer.attention_linears} == {WeightGrid(64, zero_points=True)}
        assert {layer.get(path).grid for path in layer.ffn_linears} == {WeightGrid(64)}
        assert layer.get(layer.query).zero_points.any()


@pytest.mark.parametrize("rounding", WAYS)
def test_inputs_that_are_always_zero_get_no_weight(rounding):
    x, weight = correlated(inputs=40), torch.randn(8, 40)
    x[:, [3, 17]] = 0
    levels = levels_of(weight, grid_of(weight, 4), Objective(second_moment([x])[None]), rounding, iterations=20)
    assert not levels[:, [3, 17]].any()
    assert levels.any(0).sum() == 38


def test_blocks_of_rows_are_rounded_each_for_their_own_inputs():
    weight, _, grid, one = setting(3, coupled=False)
    other = Objective(second_moment([correlated(inputs=40, seed=5)])[None])
    both = Objective(torch.cat([one.inputs, other.inputs]))
    expected = [
        levels_of(rows, part, objective, "optq")
        for rows, part, objective in zip(weight.chunk(2), grid.chunks(2), (one, other), strict=True)
    ]
    assert torch.equal(levels_of(weight, grid, both, "optq"), torch.cat(expected))


@pytest.mark.parametrize("rounding", WAYS)
def test_layers_that_pass_on_fewer_tokens_are_rounded_for_those(rounding):
    """A schedule that drops nothing rounds as none does; one that drops most tokens rounds otherwise, from there on."""
    plain, loose, tight = (tiny_model("bert") for _ in range(3))
    adapter_of(loose).select_tokens(loose, (39, 39, 39))
    adapter_of(tight).select_tokens(tight, (2, 2, 1))
    weights = []
    for model in (plain, loose, tight):
        student = rounded(model, rounding, iterations=20)
        layer = adapter_of(student).layers(student)[0]
        weights.append([layer.get(path).weight for path in (*layer.attention_linears, *layer.ffn_linears)])
    assert all(torch.equal(one, other) for one, other in zip(weights[0], weights[1], strict=True))
    different = [not torch.equal(one, other) for one, other in zip(weights[0], weights[2], strict=True)]
    assert different == [False, False, False, True, True, True]


@pytest.mark.parametrize("rounding", WAYS)
@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_the_head_is_rounded_for_what_it_gives_and_loses_less_than_by_rounding_to_nearest(family, rounding):
    model = tiny_model(family)
    dense, _ = adapter_of(model).head_linears(model)
    x = torch.cat(list(head_inputs(model, dense, BATCHES)))
    assert x.shape == (sum(len(batch.input_ids) for batch in BATCHES), adapter_of(model).shape(model).hidden)

    def lost(way):
        student = copy.deepcopy(model)
        round_head(student, 2, way, BATCHES, iterations=200)
        assert adapter_of(student).shape(student) == replace(adapter_of(model).shape(model), head_bits=2)
        linear, before = student.get_submodule(dense), model.get_submodule(dense)
        apart = expand_groups(linear.weight, linear.scale) - before.weight
        return float((x @ apart.detach().mT).square().sum())

    assert lost(rounding) < lost("nearest")
