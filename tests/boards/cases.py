"""The encoder that is run on every board."""

import numpy as np

from autocompress.compiler.packing import column_sums, dot_panels, row_panels
from autocompress.compiler.schedules.gemm_i8 import gemm_i8
from autocompress.shape import LayerShape, ModelShape, WeightGrid, by_block, nearest_embedding_bits
from tests.compiler.numpy_graph import reference
from tests.compiler.test_engines_agree import spread_weights

BATCH, TOKENS = 2, 11


def encoder(bits):
    """Return (shape, weights): odd heads, widths that fill no vector, own embeddings, 6 of 11 tokens that stay.

    At 8 bits the second layer reads over fixed ranges, of channels that are smoothed.
    """
    layers = (LayerShape(2, 12, 70, *by_block(bits, bits), most_tokens=6), LayerShape(3, 8, 33, *by_block(bits, bits)))
    layers = (layers[0], layers[1].with_activations("smoothed"))
    shape = ModelShape("bert", 50, 40, 24, 37, layers, classes=3, embedding_bits=nearest_embedding_bits(bits))
    return shape, spread_weights(shape)


def grouped_encoder(bits):
    """Return (shape, weights) of which the weights are in groups: of 64, and of 128 with zero points below 8 bits."""
    layers = (LayerShape(2, 12, 150, *by_block(bits, bits), activations="token" if bits == 8 else "dynamic"),) * 2
    layers = (layers[0].with_grid(WeightGrid(64)), layers[1].with_grid(WeightGrid(128, zero_points=True)))
    shape = ModelShape("bert", 50, 40, 37, 37, layers, classes=3, embedding_bits=nearest_embedding_bits(bits))
    return shape, spread_weights(shape)


def inputs():
    """Return ids and a mask in which the second row has padding."""
    mask = np.ones((BATCH, TOKENS), np.int64)
    mask[1, 7:] = 0
    return np.random.default_rng(3).integers(0, 50, mask.shape), mask


def assert_reference(logits, bits, narrow=lambda x: x, *, case=encoder):
    """Hold logits of ``case(bits)`` against the float64 reference.

    Noise of 2e-7 on the norms, which is what rounding in f32 may do, moves the reference's own logits by up to 0.024
    at 4 bits and 0.045 at 2: values at the edge of a step. ``narrow``: see ``reference``.
    """
    ids, mask = inputs()
    expected = reference(*case(bits), ids, mask, narrow)
    tolerance = {32: 2e-5, 16: 1e-2, 8: 2e-2, 4: 2e-2, 3: 3e-2, 2: 4e-2}[bits] * max(1.0, np.abs(expected).max())
    np.testing.assert_allclose(logits, expected, atol=tolerance)


def integer_product(machine, q, weight):
    """Return a kernel (named ``kernel``) that multiplies uint8 ``q`` with int8 ``weight`` exactly, and its inputs."""
    (rows, depth), columns, dot = q.shape, weight.shape[1], machine.dot
    tile = machine.tile(rows, columns)
    padded = np.zeros((rows, -(-depth // dot.group) * dot.group), dot.stored)
    padded[:, :depth] = q - dot.shift
    kernel = gemm_i8("kernel", rows=rows, depth=depth, columns=columns, activation=None, tile=tile, dot=dot)
    ones, zeros = (row_panels(np.full(columns, value, np.float32), tile.panel) for value in (1, 0))
    sums = column_sums(weight, tile.panel)
    scale, zero = np.ones(1, np.float32), np.zeros(1, np.int32)
    return kernel, [padded, scale, zero, dot_panels(weight, tile.panel, dot.group), ones, sums, zeros]
