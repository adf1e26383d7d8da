from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from autocompress.compiler.graph import emit, weight_specs
from autocompress.predictors.activations import planned_bytes
from autocompress.predictors.features import (
    BOUNDS,
    FEATURES,
    HARDWARE,
    KERNELS,
    LATENCY,
    MEMORY,
    SIZE,
    columns,
    features,
    features_many,
)
from autocompress.predictors.hardware import NOMINAL
from autocompress.predictors.roofline import EFFICIENCY
from autocompress.shape import BITS, EMBEDDING_BITS, LayerShape, ModelShape, Pixels, WeightGrid, by_block

SHAPE = ModelShape(
    "bert",
    100,
    40,
    24,
    48,
    (
        LayerShape(3, 16, 96, *by_block(32, 8)),
        LayerShape(1, 16, 32, *by_block(4, 4)),
        LayerShape(2, 16, 64, *by_block(8, 32)),
    ),
    5,
    embedding_bits=8,
)
FACTORISED = replace(
    SHAPE,
    layers=(LayerShape(3, 16, 96, *by_block(2, 16)), LayerShape(1, 16, 32, *by_block(16, 2))),
    embedding_bits=16,
    embedding_rank=8,
)
SELECTING = replace(SHAPE, layers=tuple(replace(layer, most_tokens=most) for layer, most in
                                        zip(SHAPE.layers, (20, 6, 1), strict=True)))  # fmt: skip

FIXED = replace(SHAPE, layers=(LayerShape(3, 16, 96, *by_block(32, 8), activations="static"),
                               LayerShape(1, 16, 32, *by_block(8, 8), activations="smoothed"),
                               LayerShape(2, 16, 64, *by_block(8, 32))))  # fmt: skip

GROUPED = replace(SHAPE, layers=(LayerShape(3, 16, 96, *by_block(8, 4), activations="token",
                                            weight_group=64, zero_points=True),
                                 LayerShape(1, 16, 32, *by_block(8, 8), activations="token", weight_group=128),
                                 LayerShape(2, 16, 64, *by_block(3, 32))))  # fmt: skip

IMAGES = replace(SHAPE, family="vit", vocabulary=0, positions=41, embedding=48, order="pre", head="first",
                 embedding_bits=32, pixels=Pixels(3, 40, 64, 8), head_bits=8)  # fmt: skip
AVERAGED = replace(IMAGES, head="first_and_mean", layers=FIXED.layers, head_bits=4)


class Counting:
    """A graph whose values are element counts; it adds up what every operation does."""

    def __init__(self, shape: ModelShape, tokens: int) -> None:
        self.specs, self.tokens, self.rows = weight_specs(shape), tokens, tokens
        self.totals = dict.fromkeys(FEATURES, 0.0)
        self.bits: dict[int, float] = {}

    def lookup(self, name, bits):
        width = self.specs[f"{name}.word"].dimensions[1]
        self.totals[f"embedding_elements_{bits}"] += self.tokens * width
        return width

    def positions(self, x, name):
        assert self.specs[f"{name}.position"].dimensions[1] == x
        return x

    def patches(self, pixels):
        self.totals["pixels"] += pixels.channels * pixels.height * pixels.width
        self.rows = pixels.rows * pixels.columns
        return pixels.channels * pixels.patch * pixels.patch

    def behind_learned(self, x, name, learned):
        self.rows += learned
        assert self.specs[f"{name}.position"].dimensions == (self.rows, x) == (self.tokens, x)
        return x

    def norm(self, x, name, epsilon):
        assert self.specs[f"{name}.weight"].dimensions == (x,)
        return x

    def sum_and_norm(self, x, y, name, epsilon):
        self.totals["norms_first"] = 1.0
        return self.add(x, y), self.norm(x, name, epsilon)

    def linear(self, x, name, bits, activation=None, *, reads="dynamic", grid=None):
        self.name, (inputs, outputs) = name, self.specs[f"{name}.weight"].dimensions
        assert inputs == x
        self.totals[f"gemm_macs_{bits}"] += (grid is None) * self.rows * inputs * outputs
        self.totals[f"gemm_weights_{bits}"] += inputs * outputs
        if reads != "dynamic":
            assert bits == 8
            self.totals["fixed_ranges"] += reads != "token"
            self.totals[f"{reads}_elements"] += self.rows * inputs
        elif bits != 32:
            self.totals[f"quantized_elements_{bits}"] += self.rows * inputs
        if bits == 8 and grid is None:
            self.totals["dequantized_elements"] += self.rows * outputs
        if grid is not None:
            self.grouped(bits, grid, inputs, outputs)
        return outputs

    def grouped(self, bits, grid, inputs, outputs):
        scales = int(np.prod(self.specs[f"{self.name}.scale"].dimensions))
        kind = "coarse_macs" if grid.group > 32 else "token_macs" if bits == 8 else f"gemm_macs_{bits}"
        self.totals[kind] += self.rows * inputs * outputs
        self.totals["coarse_sums"] += (grid.group > 32) * self.rows * scales
        if grid.zero_points:
            self.totals["zero_points"] += scales
            self.totals["zero_point_sums"] += self.rows * scales

    def attention(self, qkv, heads, head_width):
        assert qkv == 3 * heads * head_width
        scores = heads * self.tokens * self.tokens
        self.totals["attention_macs"] += scores * head_width + scores * head_width
        self.totals["softmax_elements"] += scores
        self.totals["heads"] += heads
        return heads * head_width

    def attention_received(self, qkv, heads, head_width):
        self.received = heads * self.tokens * self.tokens
        return self.attention(qkv, heads, head_width), heads

    def most_significant(self, received, most):
        if most < self.tokens:
            self.totals["selections"] += 1
            self.totals["received_elements"] += self.received
        self.taken = most < self.tokens
        self.rows = self.tokens = min(most, self.tokens)
        return self.tokens

    def take(self, x, places):
        self.totals["taken_elements"] += self.taken * places * x
        return x

    def add(self, x, y):
        assert x == y
        return x

    def first_token(self, x):
        self.rows = 1
        return x

    def first_and_mean(self, x, learned):
        self.rows = 1
        return 2 * x


@pytest.mark.parametrize(
    "shape",
    [SHAPE, FACTORISED, SELECTING, FIXED, GROUPED],
    ids=["plain", "factorised", "selecting", "fixed", "grouped"],
)
@pytest.mark.parametrize("tokens", [1, 7, 40])
def test_the_columns_count_what_the_encoder_graph_does(shape, tokens):
    check_counts(shape, tokens)


@pytest.mark.parametrize("shape", [IMAGES, AVERAGED], ids=["first", "first and mean"])
def test_the_columns_count_what_the_graph_of_images_does(shape):
    check_counts(shape, shape.positions)


def check_counts(shape, tokens):
    graph = Counting(shape, tokens)
    emit(graph, shape)
    row = dict(zip(FEATURES, features(shape, tokens), strict=True))
    for name, total in graph.totals.items():
        if total:
            assert row[name] == total, name


def test_grids_of_weights_are_told_apart_and_take_the_bytes_of_their_scales_and_zero_points():
    four = replace(SHAPE, layers=(LayerShape(4, 32, 256, *by_block(4, 4)),), hidden=128, embedding=128)
    usual, coarse, zeros = (features(four.with_grid(WeightGrid(*grid)), 40) for grid in ((), (128,), (32, True)))
    weights, macs = 128 * 128 * 4 + 2 * 128 * 256, 40 * (128 * 128 * 4 + 2 * 128 * 256)
    names = ("gemm_macs_4", "coarse_macs", "coarse_sums", "zero_points", "zero_point_sums")
    assert columns(usual, names).tolist() == [macs, 0, 0, 0, 0]
    assert columns(coarse, names).tolist() == [0, macs, macs / 128, 0, 0]
    assert columns(zeros, names).tolist() == [macs, 0, 0, weights / 32, macs / 32]
    stored = [float(columns(row, ("weight_bytes",))[0]) for row in (usual, coarse, zeros)]
    # f32 scales, of which three in four are saved, or half a byte a group more.
    assert np.diff(stored).tolist() == [-0.75 * 4 * weights / 32, 0.75 * 4 * weights / 32 + weights / 32 / 2]


def test_ways_to_read_activations_are_told_apart_and_what_is_multiplied_is_the_same():
    kinds = ("dynamic", "static", "smoothed")
    eight = replace(SHAPE, layers=(LayerShape(3, 16, 96, *by_block(8, 8)),))
    rows = [features(eight.with_activations(kind), 40) for kind in kinds]
    names = ("quantized_elements_8", "static_elements", "smoothed_elements", "fixed_ranges")
    read = 40 * (48 + 48 + 48 + 96)
    assert [columns(row, names).tolist() for row in rows] == [[read, 0, 0, 0], [0, read, 0, 4], [0, 0, read, 4]]
    assert len({columns(row, ("gemm_macs_8", "dequantized_elements", "kernels_8")).tobytes() for row in rows}) == 1
    (token,) = (features(eight.with_activations(kind), 40) for kind in ("token",))
    counted = ("gemm_macs_8", "token_macs", "token_elements", "fixed_ranges", "dequantized_elements")
    macs = 40 * (48 * 144 + 48 * 48 + 2 * 48 * 96)
    assert columns(token, counted).tolist() == [0, macs, read, 0, 0]
    # A step and a zero point for each of four maps, then one number a channel.
    assert np.diff([float(columns(row, ("weight_bytes",))[0]) for row in rows]).tolist() == [4 * 5, 4 * 240]


def test_a_layer_that_fewer_tokens_reach_costs_less_and_maps_on_other_rows_are_other_code():
    names = ("gemm_macs_4", "selections", "kernels_32")
    few, all_tokens = (columns(features(shape, 40), names) for shape in (SELECTING, SHAPE))
    # The second layer reads 20 tokens and passes on 6.
    maps = 20 * 48 * 48 + 6 * (16 * 48 + 2 * 48 * 32)
    assert few.tolist() == [maps, 2, all_tokens[2]]
    alike = replace(SELECTING, layers=SELECTING.layers[1:2] * 2)
    # Attention of 40 tokens and of 6, and one feed-forward block of 6: three blocks of two maps each, and not two.
    assert [float(columns(features(alike, tokens), ("kernels_4",))[0]) for tokens in (40, 6)] == [6, 4]


def test_a_feature_that_the_graph_has_not_is_zero():
    row = dict(zip(FEATURES, features(replace(SHAPE, layers=SHAPE.layers[1:2]), 8), strict=True))
    assert row["gemm_macs_8"] == row["quantized_elements_8"] == row["linear_bytes_8"] == 0
    assert row["embedding_elements_4"] == row["embedding_elements_32"] == 0


def test_bytes_are_those_of_the_weight_specs():
    row = dict(zip(FEATURES, features(SHAPE, 8), strict=True))
    specs = weight_specs(SHAPE)
    assert row["weight_bytes"] + row["position_bytes"] == sum(spec.size_bytes for spec in specs.values())
    assert row["position_bytes"] == 40 * 24 * 4
    assert row["embedding_bytes_8"] == 100 * 24 + 100 * 4
    assert row["linear_bytes_4"] == (48 * 48 + 16 * 48 + 48 * 32 + 32 * 48) / 2


def test_bytes_of_two_and_sixteen_bits_and_of_a_factorised_table_are_counted():
    row = dict(zip(FEATURES, features(FACTORISED, 8), strict=True))
    assert row["weight_bytes"] + row["position_bytes"] == sum(s.size_bytes for s in weight_specs(FACTORISED).values())
    assert row["embedding_bytes_16"] == 100 * 8 * 2
    assert row["linear_bytes_2"] == (48 * 144 + 48 * 48 + 48 * 32 + 32 * 48) / 4
    assert row["linear_bytes_16"] == (48 * 96 + 96 * 48 + 48 * 48 + 16 * 48) * 2
    # From rank to embedding, from embedding to hidden, and the head.
    assert row["linear_bytes_32"] == (8 * 24 + 24 * 48 + 48 * 48 + 48 * 5) * 4


def test_linear_maps_that_differ_are_counted_once():
    twice = replace(SHAPE, layers=(*SHAPE.layers, SHAPE.layers[0], replace(SHAPE.layers[2], ffn=96)))
    row = dict(zip(FEATURES, features(twice, 8), strict=True))
    # Into and out of attention and feed-forward block. 32 bits: attention 48, ffn 64 and 96; 4: 16 and 32; 8: 96, 32.
    assert [row[name] for name in KERNELS] == [{32: 6, 8: 4, 4: 4}.get(bits, 0) for bits in BITS]


@pytest.mark.parametrize("tokens", [1, 10, 40])
@pytest.mark.parametrize("layer", SHAPE.layers)
def test_activations_of_equal_layers_are_what_a_compiled_program_holds(layer, tokens):
    shape = replace(SHAPE, layers=(layer,) * 3)
    row = dict(zip(FEATURES, features(shape, tokens), strict=True))
    # The logits, and rows of the head that are no wider than the model, differ with the classes.
    head_bytes = 4 * (SHAPE.hidden + SHAPE.classes)
    assert row["activation_bytes"] == pytest.approx(planned_bytes(shape, tokens, NOMINAL.machine), abs=head_bytes)


def test_activations_of_unlike_layers_are_off_by_less_than_a_hundredth_of_the_memory_of_a_process():
    rng, process_bytes = np.random.default_rng(0), EFFICIENCY["tvm"].process_bytes
    for _ in range(60):
        layers = tuple(
            LayerShape(int(rng.integers(1, 9)), 32, 32 * int(rng.integers(1, 33)), *map(int, rng.choice(BITS, 2)))
            for _ in range(rng.integers(1, 9))
        )
        shape = ModelShape("bert", 30522, 512, 256, 256, layers, 2)
        shape = shape.with_schedule(rng.choice([0.2, 1.0]), 128) if rng.random() < 0.5 else shape
        planned = planned_bytes(shape, 128, NOMINAL.machine)
        row = dict(zip(FEATURES, features(shape, 128), strict=True))
        whole = process_bytes + row["weight_bytes"] + planned
        assert abs(row["activation_bytes"] - planned) < 0.01 * whole


def test_layers_after_the_widest_take_its_storage_again():
    one, four = (replace(SHAPE, layers=SHAPE.layers[:1] * count) for count in (2, 5))
    assert columns(features(one, 10), ("activation_bytes",)) == columns(features(four, 10), ("activation_bytes",))


def test_many_shapes_make_one_array_of_the_same_rows():
    shapes = [
        SHAPE,
        replace(SHAPE, layers=SHAPE.layers[:1]),
        SELECTING,
        replace(SELECTING, layers=SELECTING.layers[1:]),
    ]
    many = features_many(shapes, 8)
    assert np.array_equal(many, [features(shape, 8) for shape in shapes])
    assert features_many([], 8).shape == (0, len(FEATURES))


def test_columns_are_picked_by_name():
    row = features(SHAPE, 8)
    assert columns(row, ("hidden", "tokens")).tolist() == [48, 8]
    assert columns(row[None], ("layers",)).tolist() == [[3]]


def test_every_bit_width_has_its_columns():
    assert set(FEATURES) == {*LATENCY, *MEMORY, *SIZE, *HARDWARE, *BOUNDS}
    for bits in BITS:
        assert f"gemm_macs_{bits}" in LATENCY
        assert f"linear_bytes_{bits}" in MEMORY
    for bits in EMBEDDING_BITS:
        assert f"embedding_elements_{bits}" in LATENCY
        assert f"embedding_bytes_{bits}" in MEMORY
