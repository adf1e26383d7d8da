"""Choose the shapes around a teacher on which a predictor is fitted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import ceil, log2

import numpy as np
from scipy.stats import qmc

from autocompress.shape import (
    EMBEDDING_BITS,
    Activations,
    Bits,
    EmbeddingBits,
    LayerShape,
    ModelShape,
    TokenShare,
    WeightGrid,
    by_block,
    nearest_embedding_bits,
)

FFN_ALIGN = 32
"""Feed-forward neurons come in multiples of this, unless a space says otherwise."""
SPREAD = 0.25
"""How far the heads and neurons of one layer lie from the shape's mean, as a share of the teacher's."""
COMMON_BITS: tuple[Bits, ...] = (4, 8, 32)
"""Widths that every predictor is fitted on; others only where they are asked for."""
BLOCK_EVERY = 4
"""Every so many shapes drawn, one is a single block."""
BLOCK_VOCABULARY = 1024
"""Of a block: its token table is sent to a board in no time."""
DIMENSIONS = 6
"""Depth, heads, neurons, attention bits, feed-forward bits, embedding bits, around which layers vary; where there are
several, the width of the residual stream, the schedule of tokens, how activations are read, the grid of weights in
groups and the bits of the head are one more each."""


@dataclass(frozen=True)
class Variety:
    """What shapes around a teacher may differ in, beside depth, heads and neurons.

    Attributes:
        align: Feed-forward neurons come in multiples of this, as pruning will leave them.
        bits: Widths to draw from.
        hidden: Widths of the residual stream to draw from; if empty, the teacher's alone.
        tokens_keep: Shares of the tokens that reach the last layer; see ``ModelShape.with_schedule``.
        max_tokens: Of the longest document; 0: as many as the teacher has positions.
        activations: How 8-bit weights read them, in every layer alike.
        grids: Of weights in groups, in every layer alike.
        head_bits: Of the head's linears.
        beside: Shapes that must be known too, whatever they are nested within: the teacher's, where students are made
            of another model.
    """

    align: int = FFN_ALIGN
    bits: tuple[Bits, ...] = COMMON_BITS
    hidden: tuple[int, ...] = ()
    tokens_keep: tuple[TokenShare, ...] = ("all",)
    max_tokens: int = 0
    activations: tuple[Activations, ...] = ("dynamic",)
    grids: tuple[WeightGrid, ...] = (WeightGrid(),)
    head_bits: tuple[Bits, ...] = (32,)
    beside: tuple[ModelShape, ...] = ()


USUAL = Variety()


def sample_shapes(teacher: ModelShape, count: int, seed: int, variety: Variety = USUAL) -> tuple[ModelShape, ...]:
    """Return ``count`` different shapes that are nested within ``teacher``; equal arguments give equal shapes.

    First come the ``corners``, so that the range of every cost feature is covered; then a scrambled Sobol sequence
    (Sobol 1967, Owen 1998) over depth, heads, neurons and bits, in which every layer may differ. Every
    ``BLOCK_EVERY``-th of these is cut to a single block with a small vocabulary, which takes a board the least time.

    Args:
        teacher: The largest shape.
        count: How many; as many as there are ``corners``, or more, to have all of them.
        seed: Of the sequence and of the differences between layers.
        variety: What else they may differ in.
    """
    shapes = dict.fromkeys(corners(teacher, variety))
    for position, shape in enumerate(_interior(teacher, count, seed, variety), 1):
        if len(shapes) >= count:
            break
        shapes.setdefault(shape if position % BLOCK_EVERY else block(shape))
    return tuple(shapes)[:count]


def candidates(teacher: ModelShape, count: int, seed: int, variety: Variety = USUAL) -> tuple[ModelShape, ...]:
    """Return up to ``count`` whole shapes, drawn as ``sample_shapes`` draws them; give another seed for others."""
    return tuple(dict.fromkeys(_interior(teacher, count, seed, variety)))[:count]


def corners(teacher: ModelShape, variety: Variety = USUAL) -> tuple[ModelShape, ...]:
    """Return the teacher and the narrowest shape of its depth at each width, and the smallest at the ends of the bits.

    The smallest is a ``block``, so that no share of the vocabulary takes fewer bytes than were measured.
    Of the least hidden width, if it is below the teacher's, both the teacher and the smallest come at these ends too;
    and so do all of these with the token schedules at the ends, if there are any. Where ranges of activations may be
    fixed, the teacher and the smallest come so at 8 bits, and at the fewest bits with each unusual grid of weights;
    with each unusual width of the head both come at the nearest width of the layers. Shapes ``beside`` the
    space come last.
    They hold the least and the most of every cost feature, and most of what a linear fit can learn; the small ones
    tell what a layer costs however little it computes, twice, so that no fit hangs on one sample.
    """
    layers = tuple(replace(layer, heads=1, ffn=min(variety.align, layer.ffn)) for layer in teacher.layers)
    narrow = replace(teacher, layers=layers)
    smallest = block(narrow)
    widths = sorted(variety.bits, reverse=True)
    wide, small = ([_at(shape, width) for width in widths] for shape in (teacher, narrow))
    ends, least = (widths[-1], widths[0]), min(variety.hidden, default=teacher.hidden)
    thin = [shape.with_hidden(least) for shape in (teacher, smallest) if least < teacher.hidden]
    # Below a share of 1 every layer but the last selects: that is the most of what selection costs.
    shares = sorted(share for share in variety.tokens_keep if share != "all")
    ends_of_shares = dict.fromkeys((*shares[-1:], *[share for share in shares if share < 1][-1:], *shares[:1]))
    few = [
        shape.with_schedule(share, variety.max_tokens or shape.positions)
        for share in ends_of_shares
        for shape in (teacher, smallest, *thin)
    ]
    found = (*wide, *small, *(_at(shape, width) for shape in (smallest, *thin, *few) for width in ends))
    fixed = [kind for kind in variety.activations if kind != "dynamic" and 8 in widths]
    read = (_at(shape, 8).with_activations(kind) for kind in fixed for shape in (teacher, smallest))
    unusual = [grid for grid in variety.grids if grid != WeightGrid() and widths[-1] < 8]
    return (
        *found,
        *read,
        *(_at(shape, widths[-1]).with_grid(grid) for grid in unusual for shape in (teacher, smallest)),
        *(
            replace(_at(shape, min(widths, key=lambda width: abs(width - head))), head_bits=head)
            for head in variety.head_bits
            if head != 32
            for shape in (teacher, smallest)
        ),
        *variety.beside,
    )


def block(shape: ModelShape) -> ModelShape:
    """Return the first layer of ``shape`` alone, between the smallest token table and the same classifier."""
    return replace(shape, vocabulary=min(BLOCK_VOCABULARY, shape.vocabulary), layers=shape.layers[:1])


def is_block(shape: ModelShape, teacher: ModelShape) -> bool:
    """Return whether ``shape`` is a block and no whole model nested within ``teacher``."""
    return shape.vocabulary < teacher.vocabulary


def _at(teacher: ModelShape, bits: Bits) -> ModelShape:
    layers = tuple(layer.with_bits(*by_block(bits, bits)) for layer in teacher.layers)
    return replace(teacher, layers=layers, embedding_bits=_table_bits(teacher, nearest_embedding_bits(bits)))


def _table_bits(teacher: ModelShape, bits: EmbeddingBits) -> EmbeddingBits:
    """Return ``bits``, or 32 where a model has no token table."""
    return 32 if teacher.pixels is not None else bits


def _interior(teacher: ModelShape, count: int, seed: int, variety: Variety) -> Iterator[ModelShape]:
    bits, streams = tuple(sorted(variety.bits)), sorted(variety.hidden) or [teacher.hidden]
    head_widths = variety.head_bits
    shares, tokens = variety.tokens_keep, variety.max_tokens or teacher.positions
    several = [len(choices) > 1 for choices in (streams, shares, variety.activations, variety.grids, head_widths)]
    # Twice as many points as asked for: small teachers have shapes that come up more than once.
    sequence = qmc.Sobol(DIMENSIONS + sum(several), seed=seed).random_base2(ceil(log2(max(2, 2 * count))))
    rng = np.random.default_rng(seed)
    tables = [table for table in EMBEDDING_BITS if table in bits]

    def width(share: float) -> Bits:
        return _bits(share, bits, rng)

    for depth, heads, ffn, attention, feed_forward, embedding, *others in sequence.tolist():
        kept = np.linspace(0, len(teacher.layers) - 1, 1 + int(depth * len(teacher.layers))).round().astype(int)
        layers = tuple(
            _layer(teacher.layers[index], heads, ffn, (width(attention), width(feed_forward)), rng, variety.align)
            for index in kept
        )
        table = _table_bits(teacher, tables[int(embedding * len(tables))])
        shape = replace(teacher, layers=layers, embedding_bits=table)
        # One more dimension each for those of which there are several.
        rest = iter(others)
        stream, share, kind, grid, head = (next(rest) if chosen else 0.0 for chosen in several)
        shape = shape.with_activations(variety.activations[int(kind * len(variety.activations))])
        shape = shape.with_grid(variety.grids[int(grid * len(variety.grids))])
        shape = replace(shape, head_bits=head_widths[int(head * len(head_widths))])
        shape = shape.with_hidden(streams[int(stream * len(streams))])
        yield shape.with_schedule(shares[int(share * len(shares))], tokens)


def _layer(
    whole: LayerShape, heads: float, ffn: float, bits: tuple[Bits, Bits], rng: np.random.Generator, align: int
) -> LayerShape:
    heads, ffn = np.clip(np.array([heads, ffn]) + rng.uniform(-SPREAD, SPREAD, 2), 0.0, 1.0).tolist()
    step = min(align, whole.ffn)
    return replace(
        whole,
        heads=1 + round(heads * (whole.heads - 1)),
        ffn=step * max(1, round(ffn * whole.ffn / step)) if whole.ffn % step == 0 else whole.ffn,
    ).with_bits(*by_block(*bits))


def _bits(share: float, widths: tuple[Bits, ...], rng: np.random.Generator) -> Bits:
    """Return one of ``widths`` for every layer alike or, in the last part of 0..1, one a layer at random."""
    choice = int(share * (len(widths) + 1))
    return widths[choice] if choice < len(widths) else widths[int(rng.integers(len(widths)))]
