"""How much the bits of each part of a model matter, and which parts of all layers get them.

A part is the attention or the feed-forward linears of one layer. Its sensitivity at some bits is the mean over
calibration documents of KL(softmax(floats) || softmax(that part rounded to nearest)), in nats; nothing else is rounded
meanwhile. No labels, no gradients; one run over the documents for each part and width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from torch import nn

from autocompress.compression.method import LayerSensitivity
from autocompress.compression.ranking.layer_importance import divergence, logits
from autocompress.compression.rounding.levels import round_to_nearest
from autocompress.models.adapter import LayerModules
from autocompress.models.load import adapter_of
from autocompress.shape import Activations, Bits, LayerShape, ModelShape, WeightGrid, by_block
from autocompress.training.batches import TrainingBatch

USUAL = WeightGrid()


def bits_in_memory(bits: Bits, grid: WeightGrid = USUAL, activations: Activations = "dynamic") -> float:
    """Return the bits that a weight takes with its share of its group's scale and zero point, where it has a group."""
    stored = grid.at(bits, activations)
    return bits if stored is None else bits + (32 + bits * stored.zero_points) / stored.group


def sensitivities(
    model: nn.Module, batches: Sequence[TrainingBatch], *, attention_bits: Sequence[Bits], ffn_bits: Sequence[Bits]
) -> tuple[LayerSensitivity, ...]:
    """Return the sensitivity of each group of linears at each of its block's widths; the model is left as it was."""
    expected = logits(model, batches)

    def moved(layer: LayerModules, paths: Sequence[str], bits: Bits) -> float:
        if bits == 32:
            return 0.0
        with _rounded(layer, paths, bits):
            return divergence(expected, logits(model, batches))

    return tuple(
        LayerSensitivity(
            *(
                {bits: moved(layer, paths, bits) for bits in widths}
                for paths, widths in zip(layer.groups, by_block(attention_bits, ffn_bits), strict=True)
            )
        )
        for layer in adapter_of(model).layers(model)
    )


@contextmanager
def _rounded(layer: LayerModules, paths: Sequence[str], bits: Bits) -> Iterator[None]:
    floats = {path: layer.get(path) for path in paths}
    for path in paths:
        round_to_nearest(layer, path, bits)
    try:
        yield
    finally:
        for path, module in floats.items():
            layer.replace(path, module)


@dataclass(frozen=True)
class _Part:
    """Weights that get the same bits: how many, and what each width costs in nats and stored bits."""

    weights: int
    nats: Mapping[Bits, float]
    stored_as: Mapping[Bits, Bits]
    memory: Callable[[Bits], float]

    def stored(self, bits: Bits) -> float:
        return self.weights * self.memory(self.stored_as.get(bits, bits))


def share_bits(
    shape: ModelShape,
    sensitivity: Sequence[LayerSensitivity],
    attention: Bits,
    ffn: Bits,
    stored_as: Mapping[Bits, Bits] = MappingProxyType({}),
    grid: WeightGrid = USUAL,
    activations: Activations = "dynamic",
) -> tuple[tuple[Bits, ...], tuple[Bits, ...], tuple[Bits, ...], tuple[Bits, ...]]:
    """Return the bits of each layer's four groups of linears, in no more bytes than equal widths take.

    Sensitivities are taken to add up. From the widest down, the part goes to fewer bits that costs the least for each
    byte that it frees, until all fit; then parts go up again, the one first that gains most, as long as they fit. That
    is the greedy solution of a knapsack with several choices, the best but for its last items; where equal widths are
    better, these are kept.

    Args:
        shape: Of the model to be rounded.
        sensitivity: Of its layers, at all widths that its groups may have.
        attention: Bits of every attention weight that bound the bytes.
        ffn: The same of every feed-forward weight.
        stored_as: Widths that the engine stores as others (``engines.STORED_AS``).
        grid: Of weights in groups.
        activations: Decide whether weights of 8 bits are.
    """

    def memory(bits: Bits) -> float:
        return bits_in_memory(bits, grid, activations)

    pairs = list(zip(shape.layers, sensitivity, strict=True))
    parts = [
        _Part(_weights(layer, shape.hidden)[group], each.groups[group], stored_as, memory)
        for group in range(4)
        for layer, each in pairs
    ]
    equal: list[Bits] = [bits for bits in by_block(attention, ffn) for _ in pairs]
    room = sum(part.stored(bits) for part, bits in zip(parts, equal, strict=True))
    chosen: list[Bits] = [max(part.nats) for part in parts]

    def free() -> float:
        return room - sum(part.stored(bits) for part, bits in zip(parts, chosen, strict=True))

    while free() < 0:
        steps = [
            (part, at, bits)
            for at, part in enumerate(parts)
            for bits in part.nats
            if part.stored(bits) < part.stored(chosen[at])
        ]
        part, at, bits = min(steps, key=lambda step: _price(step[0], chosen[step[1]], step[2]))
        chosen[at] = bits
    while True:
        ups = [
            (part.nats[chosen[at]] - part.nats[bits], -at, bits)
            for at, part in enumerate(parts)
            for bits in part.nats
            if bits > chosen[at] and part.stored(bits) - part.stored(chosen[at]) <= free()
        ]
        if not ups or max(ups)[0] <= 0:
            break
        _, at, bits = max(ups)
        chosen[-at] = bits

    def lost(widths: Sequence[Bits]) -> float:
        return sum(part.nats[bits] for part, bits in zip(parts, widths, strict=True))

    if lost(equal) < lost(chosen):
        chosen = equal  # Greedy steps of unequal size may end a little worse.
    inward, outward, widening, narrowing = (tuple(chosen[at * len(pairs) :][: len(pairs)]) for at in range(4))
    return inward, outward, widening, narrowing


def _price(part: _Part, now: Bits, bits: Bits) -> float:
    """Return the nats lost for each stored bit that is freed."""
    return (part.nats[bits] - part.nats[now]) / (part.stored(now) - part.stored(bits))


def _weights(layer: LayerShape, hidden: int) -> tuple[int, int, int, int]:
    return 3 * hidden * layer.attention, hidden * layer.attention, hidden * layer.ffn, hidden * layer.ffn
