from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from autocompress.predictors.features import BOUNDED, columns, features, features_many
from autocompress.predictors.sampling import BLOCK_VOCABULARY, COMMON_BITS, FFN_ALIGN, Variety, corners, sample_shapes
from autocompress.shape import BITS, EMBEDDING_BITS, LayerShape, Pixels, WeightGrid, by_block, nearest_embedding_bits
from tests.predictors.synthetic import TEACHER, TOKENS

GRIDS = (WeightGrid(), WeightGrid(64), WeightGrid(128, zero_points=True))


def nested(shape) -> bool:
    return 1 <= len(shape.layers) <= len(TEACHER.layers) and all(
        1 <= layer.heads <= 4 and layer.head_width == 32 and layer.ffn <= 512 and layer.ffn % FFN_ALIGN == 0
        for layer in shape.layers
    )


@pytest.mark.parametrize("count", [1, 8, 24, 100])
def test_as_many_different_shapes_as_asked_for_lie_within_the_teacher(count):
    shapes = sample_shapes(TEACHER, count, 3)
    assert len(shapes) == len(set(shapes)) == count
    assert all(nested(shape) for shape in shapes)
    assert {(shape.hidden, shape.vocabulary, shape.classes) for shape in shapes} == {(128, 1000, 2)}


def test_the_seed_decides_the_shapes():
    assert sample_shapes(TEACHER, 24, 5) == sample_shapes(TEACHER, 24, 5)
    assert sample_shapes(TEACHER, 24, 5) != sample_shapes(TEACHER, 24, 6)


def test_the_teacher_comes_first_and_the_corners_with_it():
    shapes = sample_shapes(TEACHER, 24, 0)
    assert shapes[0] == TEACHER
    assert shapes[: len(corners(TEACHER))] == corners(TEACHER)
    assert min(len(shape.layers) for shape in corners(TEACHER)) == 1


@pytest.mark.parametrize(
    ("activations", "grids"),
    [
        (("dynamic",), GRIDS[:1]),
        (("dynamic", "static", "smoothed"), GRIDS[:1]),
        (("static",), GRIDS),
        (("dynamic", "token"), GRIDS),
    ],
)
@pytest.mark.parametrize("shares", [("all",), ("all", 1.0, 0.5, 0.1), (0.3,)])
@pytest.mark.parametrize("hidden", [(), (40, 72, 128)])
@pytest.mark.parametrize("bits", [COMMON_BITS, BITS])
def test_no_shape_within_the_teacher_is_outside_the_range_of_the_corners(bits, hidden, shares, activations, grids):
    variety = Variety(
        bits=bits, hidden=hidden, tokens_keep=shares, max_tokens=TOKENS, activations=activations, grids=grids
    )
    teacher = replace(TEACHER, vocabulary=30_000)
    ends = columns(features_many(corners(teacher, variety), TOKENS), BOUNDED)
    rng = np.random.default_rng(0)
    for _ in range(300):
        layers = tuple(
            LayerShape(
                int(rng.integers(1, 5)),
                32,
                FFN_ALIGN * int(rng.integers(1, 17)),
                *by_block(bits[rng.integers(len(bits))], bits[rng.integers(len(bits))]),
            )
            for _ in range(rng.integers(1, 5))
        )
        table = nearest_embedding_bits(bits[rng.integers(len(bits))])
        stream = int(rng.choice(hidden or (TEACHER.hidden,)))
        kept = int(rng.integers(BLOCK_VOCABULARY, teacher.vocabulary + 1))
        shape = replace(teacher, layers=layers, vocabulary=kept, embedding_bits=table).with_hidden(stream)
        shape = shape.with_activations(activations[rng.integers(len(activations))])
        shape = shape.with_grid(grids[rng.integers(len(grids))])
        shape = shape.with_schedule(shares[rng.integers(len(shares))], TOKENS)
        row = columns(features(shape, TOKENS), BOUNDED)
        outside = (row < ends.min(axis=0)) | (row > ends.max(axis=0))
        assert not outside.any(), np.array(BOUNDED)[outside]


def test_shapes_of_images_have_no_token_table_and_all_their_tokens():
    reads = {"vocabulary": 0, "positions": 17, "pixels": Pixels(3, 32, 32, 8)}
    vit = replace(TEACHER, embedding=TEACHER.hidden, order="pre", head="first", **reads)
    shapes = sample_shapes(vit, 64, 0, Variety(hidden=(64, 128), tokens_keep=("all", 0.5)))
    assert len(set(shapes)) == 64
    assert {(shape.vocabulary, shape.positions, shape.embedding_bits) for shape in shapes} == {(0, 17, 32)}
    assert {shape.layers[0].most_tokens for shape in shapes} >= {0, 1}
    averaged = sample_shapes(replace(vit, head="first_and_mean"), 64, 0, Variety(tokens_keep=("all", 0.5)))
    assert {layer.most_tokens for shape in averaged for layer in shape.layers} == {0}


@pytest.mark.parametrize("bits", [COMMON_BITS, (2, *COMMON_BITS), BITS, BITS[::-1]])
def test_every_depth_and_the_widths_asked_for_come_up(bits):
    shapes = sample_shapes(TEACHER, 48, 0, Variety(bits=bits))
    assert set(Counter(len(shape.layers) for shape in shapes)) == {1, 2, 3, 4}
    assert {shape.embedding_bits for shape in shapes} == set(bits) & set(EMBEDDING_BITS)
    for part in ("attention_in_bits", "attention_out_bits", "ffn_in_bits", "ffn_out_bits"):
        assert {getattr(layer, part) for shape in shapes for layer in shape.layers} == set(bits)
    mixed = [shape for shape in shapes if len({layer.ffn_in_bits for layer in shape.layers}) > 1]
    assert mixed


def test_widths_of_the_stream_come_up_where_there_are_several_and_change_nothing_where_there_are_none():
    shapes = sample_shapes(TEACHER, 64, 0, Variety(hidden=(96, 64, 128)))
    assert {shape.hidden for shape in shapes[len(corners(TEACHER)) :]} == {64, 96, 128}
    assert all(shape.embedding == shape.hidden for shape in shapes)
    assert sample_shapes(TEACHER, 64, 0, Variety(hidden=(TEACHER.hidden,))) == sample_shapes(TEACHER, 64, 0)


def test_schedules_come_up_where_there_are_several_and_change_nothing_where_there_are_none():
    shapes = sample_shapes(TEACHER, 64, 0, Variety(tokens_keep=("all", 1.0, 0.25), max_tokens=TOKENS))
    kept = {tuple(layer.most_tokens for layer in shape.layers) for shape in shapes if len(shape.layers) == 2}
    assert kept == {(0, 0), (0, 1), (TOKENS // 4, 1)}
    assert sample_shapes(TEACHER, 64, 0, Variety(max_tokens=TOKENS)) == sample_shapes(TEACHER, 64, 0)


def test_ways_to_read_activations_come_up_where_there_are_several_and_change_nothing_where_there_are_none():
    shapes = sample_shapes(TEACHER, 64, 0, Variety(activations=("dynamic", "static", "smoothed")))
    rest = [shape.layers for shape in shapes[len(corners(TEACHER)) + 4 :]]
    assert {layer.activations for layers in rest for layer in layers} == {"dynamic", "static", "smoothed"}
    assert all(layer.activations == "dynamic" or 8 in layer.bits
               for layers in rest for layer in layers)  # fmt: skip
    only = sample_shapes(TEACHER, 64, 0, Variety(activations=("static",)))[len(corners(TEACHER)) + 2 :]
    eights = [layer for shape in only for layer in shape.layers if 8 in layer.bits]
    assert {layer.activations for layer in eights} == {"static"}


def test_grids_come_up_where_there_are_several_and_change_nothing_where_there_are_none():
    shapes = sample_shapes(TEACHER, 64, 0, Variety(grids=GRIDS))
    rest = [layer for shape in shapes[len(corners(TEACHER)) + 4 :] for layer in shape.layers]
    assert {(layer.weight_group, layer.zero_points) for layer in rest} == {(32, False), (64, False), (128, True)}
    assert all(layer.weight_group == 32 or 4 in layer.bits for layer in rest)
    assert sample_shapes(TEACHER, 64, 0, Variety(grids=GRIDS[:1])) == sample_shapes(TEACHER, 64, 0)


def test_projected_embeddings_keep_their_width():
    projected = replace(TEACHER, embedding=32)
    assert {shape.embedding for shape in sample_shapes(projected, 32, 0, Variety(hidden=(64, 128)))} == {32}


def test_layers_of_one_shape_differ():
    shapes = sample_shapes(TEACHER, 48, 0)
    assert any(len({layer.heads for layer in shape.layers}) > 1 for shape in shapes)
    assert any(len({layer.ffn for layer in shape.layers}) > 1 for shape in shapes)


def test_a_teacher_with_very_few_shapes_gives_what_there_is():
    small = replace(TEACHER, layers=(LayerShape(1, 32, 16),))
    shapes = sample_shapes(small, 200, 0)
    # Three widths of bits for attention, for the feed-forward block and for the embedding.
    assert 8 < len(shapes) <= 27
    assert len(set(shapes)) == len(shapes)
