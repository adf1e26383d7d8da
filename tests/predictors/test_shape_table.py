from __future__ import annotations

from dataclasses import replace

import numpy as np

from autocompress.predictors.shape_table import ABSENT, ShapeTable
from autocompress.shape import LayerShape, ModelShape, by_block

TEACHER = ModelShape("bert", 100, 40, 24, 48, (LayerShape(3, 16, 96), LayerShape(4, 8, 64), LayerShape(3, 16, 96)), 5)
SHAPES = [
    TEACHER,
    replace(TEACHER, layers=TEACHER.layers[1:2], embedding_bits=8),
    replace(TEACHER, layers=()),
    replace(TEACHER, hidden=64, embedding_rank=8, activation="relu", norm_epsilon=1e-5),
]


def test_a_table_gives_back_the_shapes_that_it_was_made_of():
    table = ShapeTable.of(SHAPES)
    assert len(table) == len(SHAPES)
    assert list(table) == SHAPES
    assert [table[index] for index in range(-1, 3)] == [SHAPES[-1], *SHAPES[:3]]
    assert set(table.layers) == {TEACHER.layers[0], TEACHER.layers[1]}
    assert table.layer_codes[2].tolist() == [ABSENT] * 3
    assert len(ShapeTable.of([])) == 0


def test_slices_indices_and_booleans_pick_shapes():
    table = ShapeTable.of(SHAPES)
    assert list(table[1:3]) == SHAPES[1:3]
    assert list(table[np.array([3, 0])]) == [SHAPES[3], SHAPES[0]]
    assert list(table[np.array([False, True, False, True])]) == SHAPES[1::2]


def test_choices_become_the_shapes_that_they_describe():
    rng = np.random.default_rng(0)
    size = (200, len(TEACHER.layers))
    kept, heads, ffn = rng.random(size) < 0.7, rng.integers(1, 4, size), 8 * rng.integers(1, 9, size)
    attention, feed_forward = rng.choice([2, 3, 4, 8, 16, 32], size), rng.choice([4, 32], size)
    tables = rng.choice([4, 8, 32], size[0])
    table = ShapeTable.of_choices(
        TEACHER,
        kept=kept,
        heads=heads,
        ffn=ffn,
        attention_in_bits=attention,
        attention_out_bits=attention,
        ffn_in_bits=feed_forward,
        ffn_out_bits=feed_forward,
        embedding_bits=tables,
    )
    for row in range(size[0]):
        layers = tuple(
            LayerShape(
                heads[row, at], layer.head_width, ffn[row, at], *by_block(attention[row, at], feed_forward[row, at])
            )
            for at, layer in enumerate(TEACHER.layers)
            if kept[row, at]
        )
        assert table[row] == replace(TEACHER, layers=layers, embedding_bits=tables[row])
    assert len(set(table.layers)) == len(table.layers)


def test_choices_that_all_shapes_share_need_no_array_each():
    table = ShapeTable.of_choices(
        TEACHER,
        kept=np.array([[True, True, True], [False, False, True]]),
        heads=np.array([2, 1, 3]),
        ffn=np.array([[32], [100_000_000]]),
        attention_in_bits=np.array(8),
        attention_out_bits=np.array(8),
        ffn_in_bits=np.array(4),
        ffn_out_bits=np.array(4),
        embedding_bits=np.array(16),
    )
    wide = [
        LayerShape(2, 16, 32, *by_block(8, 4)),
        LayerShape(1, 8, 32, *by_block(8, 4)),
        LayerShape(3, 16, 32, *by_block(8, 4)),
    ]
    assert table[0] == replace(TEACHER, layers=tuple(wide), embedding_bits=16)
    assert table[1] == replace(TEACHER, layers=(replace(wide[2], ffn=100_000_000),), embedding_bits=16)


def test_what_a_table_holds_is_plain_integers():
    table = ShapeTable.of_choices(
        TEACHER,
        kept=np.ones((1, 3), bool),
        heads=np.ones((1, 3), np.int64),
        ffn=np.ones((1, 3), np.int16),
        attention_in_bits=np.array(8, np.uint8),
        attention_out_bits=np.array(8, np.uint8),
        ffn_in_bits=np.array(8),
        ffn_out_bits=np.array(8),
        embedding_bits=np.array(8),
    )
    plain = {name: value for name, value in vars(table.layers[0]).items() if name not in ("activations", "zero_points")}
    assert {type(value) for value in plain.values()} == {int}
    assert type(table[0].embedding_bits) is int
