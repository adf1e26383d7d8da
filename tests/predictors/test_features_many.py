from __future__ import annotations

from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autocompress.predictors.features import (
    BEYOND,
    BOUNDED,
    FEATURES,
    HARDWARE,
    KERNELS,
    columns,
    features,
    features_many,
)
from autocompress.predictors.hardware import NOMINAL
from autocompress.predictors.shape_table import ShapeTable
from autocompress.shape import BITS, EMBEDDING_BITS, WEIGHT_GROUPS, Activations, LayerShape, ModelShape, Order, by_block

LAYERS = st.builds(
    LayerShape,
    st.integers(1, 3),
    st.sampled_from([5, 16]),
    st.sampled_from([1, 32, 100]),
    st.sampled_from(BITS),
    st.sampled_from(BITS),
    activations=st.sampled_from(get_args(Activations)),
    weight_group=st.sampled_from(WEIGHT_GROUPS),
    zero_points=st.booleans(),
)
SHAPES = st.builds(
    ModelShape,
    st.just("bert"),
    st.just(50),
    st.just(40),
    st.sampled_from([24, 48]),
    st.sampled_from([32, 48]),
    st.lists(LAYERS, max_size=4).map(tuple),
    st.integers(1, 3),
    embedding_bits=st.sampled_from(EMBEDDING_BITS),
    embedding_rank=st.sampled_from([0, 8]),
    order=st.sampled_from(get_args(Order)),
    head=st.sampled_from(["dense", "first"]),
)
SMALL = replace(NOMINAL, l2_bytes=1000)


def named(row) -> dict[str, float]:
    return dict(zip(FEATURES, row.tolist(), strict=True))


@settings(deadline=None, max_examples=40)
@given(st.lists(SHAPES, max_size=6), st.sampled_from([1, 12]), st.sampled_from([NOMINAL, SMALL]))
def test_rows_are_the_same_singly_and_in_bulk(shapes, tokens, hardware):
    singly = np.array([features(shape, tokens, hardware) for shape in shapes]).reshape(-1, len(FEATURES))
    assert np.array_equal(features_many(shapes, tokens, hardware), singly)
    assert np.array_equal(features_many(ShapeTable.of(shapes), tokens, hardware), singly)
    assert np.array_equal(features_many(ShapeTable.of(shapes)[::-1], tokens, hardware), singly[::-1])


def test_rows_are_the_same_where_a_table_is_longer_than_what_is_counted_at_once():
    rng = np.random.default_rng(0)
    teacher = ModelShape("bert", 50, 40, 32, 32, (LayerShape(3, 16, 96),) * 3, 2)
    size = (9000, 3)
    table = ShapeTable.of_choices(
        teacher,
        kept=rng.random(size) < 0.8,
        heads=rng.integers(1, 4, size),
        ffn=rng.choice([32, 96], size),
        attention_in_bits=rng.choice([8, 32], size),
        attention_out_bits=rng.choice([2, 8], size),
        ffn_in_bits=rng.choice([4, 32], size),
        ffn_out_bits=rng.choice([3, 4], size),
        embedding_bits=rng.choice([8, 32], size[0]),
    )
    rows = features_many(table, 12)
    for index in [0, 4095, 4096, 8191, 8192, 8999]:
        assert np.array_equal(rows[index], features(table[index], 12))


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.randoms(use_true_random=False))
def test_the_order_of_layers_changes_nothing(shape, random):
    layers = list(shape.layers)
    random.shuffle(layers)
    assert np.array_equal(features(replace(shape, layers=tuple(layers)), 12), features(shape, 12))


@settings(deadline=None, max_examples=40)
@given(SHAPES, LAYERS)
def test_what_depends_on_layers_is_a_sum_over_them(shape, layer):
    longer = replace(shape, layers=(*shape.layers, layer))
    empty = replace(shape, layers=())
    added = features(longer, 12) - features(shape, 12)
    alone = features(replace(shape, layers=(layer,)), 12) - features(empty, 12)
    sums = tuple(name for name in FEATURES if name not in (*KERNELS, "activation_bytes", *BEYOND))
    assert np.array_equal(columns(added, sums), columns(alone, sums))


@settings(deadline=None, max_examples=40)
@given(SHAPES, st.sampled_from(["heads", "ffn"]), st.integers(1, 40))
def test_a_wider_layer_never_counts_less(shape, part, more):
    def wider(layer):
        return replace(layer, **{part: getattr(layer, part) + more})

    names = (*(name for name in BOUNDED), *HARDWARE)
    before = columns(features(shape, 12, SMALL), names)
    after = columns(features(replace(shape, layers=tuple(map(wider, shape.layers))), 12, SMALL), names)
    assert (after >= before).all()


@settings(deadline=None, max_examples=40)
@given(SHAPES)
def test_whole_tiles_are_no_less_than_what_they_cover(shape):
    row = features(shape, 12)
    plain, padded = (columns(row, tuple(f"{name}_{bits}" for bits in BITS)) for name in ("gemm_macs", "padded_macs"))
    assert (padded >= plain).all()


def test_every_column_of_one_small_layer_is_what_its_widths_say():
    tokens, shape = 10, ModelShape("bert", 50, 40, 32, 32, (LayerShape(2, 16, 48, *by_block(8, 32)),), 3)
    row = named(features(shape, tokens, SMALL))
    # Query, key and value together, then back, at 8 bits; into and out of the feed-forward block; then the head.
    macs_8, macs_32 = 32 * 96 + 32 * 32, 32 * 48 + 48 * 32
    head = 32 * 32 + 32 * 3
    assert row["gemm_macs_8"] == tokens * macs_8
    assert row["gemm_macs_32"] == tokens * macs_32 + head
    # Columns come in panels of 32, 3 classes in one of 16; 10 rows in two tiles of 5; depths fit groups of 4.
    assert row["padded_macs_8"] == row["dot_macs"] == tokens * macs_8
    assert row["padded_macs_32"] == tokens * (32 * 64 + 48 * 32) + 32 * 32 + 32 * 16
    # Bytes of each matrix less 1000; only the classifier fits.
    assert row["beyond_l2_bytes"] == (3072 + 1024 - 2000) + (2 * 4 * 1536 - 2000) + (4096 - 1000)
    assert [row[name] for name in BEYOND] == [0, 0, 0]
    assert row["attention_macs"] == 2 * tokens * tokens * 32
    assert row["softmax_elements"] == 2 * tokens * tokens
    assert row["quantized_elements_8"] == tokens * (32 + 32)
    assert row["dequantized_elements"] == tokens * (96 + 32)
    assert [row[name] for name in KERNELS] == [{8: 2, 32: 2}.get(bits, 0) for bits in BITS]
    assert (row["layers"], row["heads"], row["constant"]) == (1, 2, 1)


@pytest.mark.parametrize("bits", [8, 16])
def test_only_a_dot_product_instruction_adds_to_its_column(bits):
    layer = LayerShape(2, 16, 48, *by_block(bits, bits))
    row = named(features(ModelShape("bert", 50, 40, 32, 32, (layer,) * 2, 3), 10))
    assert row["dot_macs"] == row[f"padded_macs_{bits}"] > 0


def test_bytes_beyond_a_cache_are_those_of_all_linear_maps_less_its_size():
    shape = ModelShape("bert", 50, 40, 384, 384, (LayerShape(12, 32, 1536),) * 6, 3)
    row = named(features(shape, 10))
    linear_bytes = 4 * (6 * (4 * 384 * 384 + 2 * 384 * 1536) + 384 * 384 + 384 * 3)
    assert [row[name] for name in BEYOND] == [linear_bytes - mib * 2**20 for mib in (1, 4, 16)]
