import json
from dataclasses import replace

import pytest

from autocompress.shape import (
    BITS,
    EMBEDDING_BITS,
    LayerShape,
    ModelShape,
    WeightGrid,
    by_block,
    nearest_embedding_bits,
)

SHAPE = ModelShape("bert", 100, 40, 24, 48, (LayerShape(3, 16, 96, *by_block(16, 2)),), 5, embedding_bits=16)


@pytest.mark.parametrize("rank", [0, 8])
def test_a_shape_reads_back_from_json(rank):
    shape = replace(SHAPE, embedding_rank=rank)
    assert ModelShape.from_dict(json.loads(json.dumps(shape.to_dict()))) == shape


def test_a_shape_written_before_there_were_ranks_has_a_table_as_wide_as_the_embedding():
    written = SHAPE.to_dict()
    del written["embedding_rank"]
    assert ModelShape.from_dict(written) == SHAPE
    assert SHAPE.token_width == 24


@pytest.mark.parametrize("activations", ["static", "smoothed"])
def test_a_shape_tells_how_activations_are_read_where_there_are_eight_bits(activations):
    shape = replace(SHAPE, layers=(LayerShape(3, 16, 96, *by_block(8, 4)), LayerShape(3, 16, 96, *by_block(4, 4))))
    fixed = shape.with_activations(activations)
    assert [layer.activations for layer in fixed.layers] == [activations, "dynamic"]
    assert ModelShape.from_dict(json.loads(json.dumps(fixed.to_dict()))) == fixed
    assert fixed.describe() == f"{shape.describe()}, {activations} activations"
    assert fixed.with_activations("dynamic") == shape


def test_a_shape_written_before_ranges_could_be_fixed_finds_them_as_it_runs():
    written = SHAPE.to_dict()
    for layer in written["layers"]:
        del layer["activations"]
    assert ModelShape.from_dict(written) == SHAPE


def test_a_shape_tells_groups_and_zero_points_where_weights_have_them():
    layers = (
        LayerShape(3, 16, 96, *by_block(8, 4)),
        LayerShape(3, 16, 96, *by_block(8, 8)),
        LayerShape(3, 16, 96, *by_block(16, 32)),
    )
    shape, grid = replace(SHAPE, layers=layers), WeightGrid(64, zero_points=True)
    found = shape.with_grid(grid)
    assert [(each.weight_group, each.zero_points) for each in found.layers] == [(64, True), (32, False), (32, False)]
    assert found.layers[0].grid_at(4) == grid
    assert found.layers[0].grid_at(8) is None
    token = shape.with_activations("token").with_grid(grid)
    assert [(each.weight_group, each.zero_points) for each in token.layers] == [(64, True), (64, False), (32, False)]
    assert token.layers[0].grid_at(8) == token.layers[1].grid_at(8) == WeightGrid(64)
    assert ModelShape.from_dict(json.loads(json.dumps(token.to_dict()))) == token
    assert found.describe() == f"{shape.describe()}, groups of 32-64, zero points"
    assert found.with_grid(WeightGrid()) == shape
    assert token.with_activations("dynamic") == found


def test_a_shape_written_before_there_were_other_groups_has_the_usual_ones():
    written = SHAPE.to_dict()
    for layer in written["layers"]:
        del layer["weight_group"], layer["zero_points"]
    assert ModelShape.from_dict(written) == SHAPE


def test_a_rank_is_the_width_of_the_token_table_and_is_told():
    shape = replace(SHAPE, embedding_rank=8)
    assert shape.token_width == 8
    assert shape.describe() == f"{SHAPE.describe()}, embedding rank 8"


def test_a_token_table_has_the_bits_asked_for_or_the_fewest_it_can_have():
    assert [nearest_embedding_bits(bits) for bits in BITS] == [max(bits, min(EMBEDDING_BITS)) for bits in BITS]


def counts(share, *, depth, tokens=64):
    shape = ModelShape("bert", 100, 512, 24, 24, (LayerShape(2, 12, 48),) * depth, 2)
    return tuple(layer.most_tokens for layer in shape.with_schedule(share, tokens).layers)


def test_counts_of_tokens_fall_in_equal_steps_to_the_share_and_end_at_the_first_token():
    # 48 of 64 tokens go in five steps of 9.6; counts are rounded up.
    assert counts(0.25, depth=6) == (55, 45, 36, 26, 16, 1)
    assert counts(0.7, depth=2, tokens=10) == (7, 1)
    assert counts(0.5, depth=1) == (1,)


def test_a_whole_share_leaves_all_layers_but_the_last_alone_and_all_leaves_every_one():
    assert counts(1.0, depth=4) == (0, 0, 0, 1)
    assert counts("all", depth=4) == (0, 0, 0, 0)


def test_no_more_tokens_reach_a_layer_than_those_before_it_pass_on():
    shape = ModelShape("bert", 100, 512, 24, 24, (LayerShape(2, 12, 48),) * 6, 2).with_schedule(0.25, 64)
    assert shape.tokens_reaching(64) == (64, 55, 45, 36, 26, 16, 1)
    assert shape.tokens_reaching(40) == (40, 40, 40, 36, 26, 16, 1)
    assert "tokens left 1-55" in shape.describe()
