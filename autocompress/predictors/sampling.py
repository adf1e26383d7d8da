"""Choose the shapes around a teacher on which a predictor is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from math import ceil, log2

import numpy as np
from scipy.stats import qmc

from autocompress.shape import BITS, Bits, LayerShape, ModelShape

FFN_ALIGN = 32
"""Feed-forward neurons come in multiples of this, unless a space says otherwise."""
SPREAD = 0.25
"""How far the heads and neurons of one layer lie from the shape's mean, as a share of the teacher's."""
DIMENSIONS = 6
"""Depth, heads, neurons, attention bits, feed-forward bits, embedding bits; layers vary around these."""


def sample_shapes(teacher: ModelShape, count: int, seed: int, align: int = FFN_ALIGN) -> tuple[ModelShape, ...]:
    """Return ``count`` different shapes that are nested within ``teacher``; equal arguments give equal shapes.

    First come the ``corners``, so that the range of every cost feature is covered; then a scrambled Sobol sequence
    (Sobol 1967, Owen 1998) over depth, heads, neurons and bits, in which every layer may differ.

    Args:
        teacher: The largest shape.
        count: How many (>= 8 to have all corners).
        seed: Of the sequence and of the differences between layers.
        align: Feed-forward neurons come in multiples of this, as pruning will leave them.
    """
    shapes = dict.fromkeys(corners(teacher, align))
    for shape in _interior(teacher, count, seed, align):
        if len(shapes) >= count:
            break
        shapes.setdefault(shape)
    return tuple(shapes)[:count]


def corners(teacher: ModelShape, align: int = FFN_ALIGN) -> tuple[ModelShape, ...]:
    """Return the teacher, the narrowest shape of its depth (each at 32, 8, 4 bits), and the smallest at 4 and 32.

    They hold the least and the most of every cost feature, and most of what a linear fit can learn; the small ones
    tell what a layer costs however little it computes, twice, so that no fit hangs on one sample.
    """
    layers = tuple(replace(layer, heads=1, ffn=min(align, layer.ffn)) for layer in teacher.layers)
    narrow, smallest = replace(teacher, layers=layers), replace(teacher, layers=layers[:1])
    wide, small = ([_at(shape, bits) for bits in (32, 8, 4)] for shape in (teacher, narrow))
    return (*wide, *small, _at(smallest, 4), _at(smallest, 32))


def _at(teacher: ModelShape, bits: Bits) -> ModelShape:
    layers = tuple(replace(layer, attention_bits=bits, ffn_bits=bits) for layer in teacher.layers)
    return replace(teacher, layers=layers, embedding_bits=bits)


def _interior(teacher: ModelShape, count: int, seed: int, align: int) -> Iterator[ModelShape]:
    # Twice as many points as asked for: small teachers have shapes that come up more than once.
    sequence = qmc.Sobol(DIMENSIONS, seed=seed).random_base2(ceil(log2(max(2, 2 * count))))
    rng = np.random.default_rng(seed)
    for depth, heads, ffn, attention, feed_forward, embedding in sequence.tolist():
        kept = np.linspace(0, len(teacher.layers) - 1, 1 + int(depth * len(teacher.layers))).round().astype(int)
        layers = tuple(
            _layer(teacher.layers[index], heads, ffn, (_bits(attention, rng), _bits(feed_forward, rng)), rng, align)
            for index in kept
        )
        yield replace(teacher, layers=layers, embedding_bits=BITS[int(embedding * len(BITS))])


def _layer(
    whole: LayerShape, heads: float, ffn: float, bits: tuple[Bits, Bits], rng: np.random.Generator, align: int
) -> LayerShape:
    heads, ffn = np.clip(np.array([heads, ffn]) + rng.uniform(-SPREAD, SPREAD, 2), 0.0, 1.0).tolist()
    step = min(align, whole.ffn)
    return replace(
        whole,
        heads=1 + round(heads * (whole.heads - 1)),
        ffn=step * max(1, round(ffn * whole.ffn / step)) if whole.ffn % step == 0 else whole.ffn,
        attention_bits=bits[0],
        ffn_bits=bits[1],
    )


def _bits(share: float, rng: np.random.Generator) -> Bits:
    """Return one of three widths for every layer alike or, in the last quarter of 0..1, one a layer at random."""
    choice = int(share * (len(BITS) + 1))
    return BITS[choice] if choice < len(BITS) else BITS[int(rng.integers(len(BITS)))]
