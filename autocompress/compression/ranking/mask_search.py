"""Which units of all layers stay, for a number of multiply-accumulates: Kwon's mask search, and its rearrangement."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import torch
from torch import Tensor

from autocompress.compression.ranking.fisher import MaskGradients
from autocompress.compression.ranking.importance import LayerRanking, Ranking
from autocompress.errors import ConfigError
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class Keep:
    """How many heads and neurons each layer keeps."""

    heads: tuple[int, ...]
    neurons: tuple[int, ...]


def encoder_macs(shape: ModelShape, tokens: int, keep: Keep | None = None) -> int:
    """Return the multiply-accumulates of all layers for one document: linear maps, and attention's two products.

    Args:
        shape: Of the model.
        tokens: Length of the document.
        keep: Units that are left; ``None`` is all of them.
    """
    heads = keep.heads if keep else tuple(layer.heads for layer in shape.layers)
    neurons = keep.neurons if keep else tuple(layer.ffn for layer in shape.layers)
    widths = [layer.head_width for layer in shape.layers]
    of_heads = sum(count * _head_macs(shape, width, tokens) for count, width in zip(heads, widths, strict=True))
    return of_heads + sum(neurons) * _neuron_macs(shape, tokens)


def mask_search(
    rankings: Sequence[LayerRanking], shape: ModelShape, *, macs: float, tokens: int, align: int = 1
) -> Keep:
    """Return the units of most importance in total within a budget (Kwon et al. 2022, algorithm 1).

    For every number of heads, the most important heads of all layers are taken, and the rest of the budget is spent on
    the most important neurons. Here every layer keeps at least one head and ``align`` neurons, since none may vanish.

    Args:
        rankings: Of each layer; heads and neurons must be in one measure, as those of a single criterion are.
        shape: Of the model with all units.
        macs: Budget, as ``encoder_macs`` counts.
        tokens: Length of the document.
        align: Neurons are kept in multiples of this many.

    Raises:
        ConfigError: The budget is below that.
    """
    head_macs, neuron_macs = _head_macs(shape, shape.layers[0].head_width, tokens), _neuron_macs(shape, tokens)
    heads = [ranking.heads.importance for ranking in rankings]
    neurons = [ranking.neurons.importance for ranking in rankings]
    head_gains, neuron_gains = _gains(heads, 1), _gains(neurons, align)
    best: tuple[float, int, int] | None = None
    for count in range(len(heads), sum(map(len, heads)) + 1):
        steps = min(int((macs - count * head_macs) // (neuron_macs * align)), len(neuron_gains) - 1)
        if steps < len(neurons):
            break
        total = head_gains[count] + neuron_gains[steps]
        if best is None or total > best[0]:
            best = (total, count, steps * align)
    if best is None:
        least = len(heads) * head_macs + len(neurons) * align * neuron_macs
        raise ConfigError(
            f"A budget of {macs:.0f} multiply-accumulates is asked for.",
            right=f"One head and {align} neurons a layer take {least}, all units {encoder_macs(shape, tokens)}.",
            next_step="Allow more, remove layers first, or lower align.",
        )
    return Keep(share_out(heads, best[1]), share_out(neurons, best[2], unit=align))


def share_out(importance: Sequence[Sequence[float]], total: int, *, unit: int = 1) -> tuple[int, ...]:
    """Return how many units each layer keeps if the ``total`` most important of all layers do.

    Args:
        importance: Of each layer's units, the most important first.
        total: Units to keep, at least ``unit`` a layer.
        unit: Units are kept in multiples of this many (a layer's last multiple may be cut short).

    Raises:
        ConfigError: ``total`` is below one multiple a layer.
    """
    if total < sum(min(unit, len(layer)) for layer in importance):
        raise ConfigError(
            f"{total} units are to be kept in {len(importance)} layers.",
            right=f"Each layer keeps at least {unit}.",
            next_step="Keep more, or remove layers first.",
        )
    keep = [min(unit, len(layer)) for layer in importance]
    for layer in _by_importance(importance, unit):
        more = min(unit, len(importance[layer]) - keep[layer])
        if sum(keep) + more > total:
            break
        keep[layer] += more
    return tuple(keep)


def check_keep(units: str, keep: Sequence[int], present: Sequence[int]) -> None:
    """Refuse numbers of kept units that layers with ``present`` units cannot have.

    Raises:
        ConfigError: There is not one number a layer, or one is below 1 or above what the layer has.
    """
    if len(keep) != len(present) or any(not 1 <= kept <= most for kept, most in zip(keep, present, strict=True)):
        raise ConfigError(
            f"A plan keeps {list(keep)} {units}.",
            right=f"The model's layers have {list(present)}, of which each keeps at least 1.",
            next_step="Correct the plan, or choose the model that it was made for.",
        )


def rearranged(gradients: Tensor, pruned: Sequence[int]) -> tuple[int, ...]:
    """Return as many pruned units of one layer, swapped so that |sum of their gradients|^2 is no larger.

    Greedily, from a warm mask: each pruned unit in turn gives its place to the unit with which the sum is least, until
    a round changes nothing (Kwon et al. 2022, section 4.2: the block of the Fisher matrix, cross terms included).

    Args:
        gradients: dL/dm (samples x units), see ``fisher.mask_gradients``.
        pruned: Units that the mask search prunes.
    """
    gradients, chosen = gradients.double(), list(pruned)
    gram = gradients.T @ gradients
    squares, left = gram.diagonal(), torch.ones(len(gram), dtype=torch.bool)
    left[chosen] = False
    cross = gram[chosen].sum(0)
    swapped = bool(chosen)
    while swapped:
        swapped = False
        for place, unit in enumerate(chosen):
            rest = cross - gram[unit]
            change = torch.where(left, 2.0 * rest + squares, torch.inf)
            best = int(change.argmin())
            if change[best] < (2.0 * rest[unit] + squares[unit]) - 1e-12 * squares.max():
                left[unit], left[best] = True, False
                chosen[place], cross, swapped = best, rest + gram[best], True
    return tuple(sorted(chosen))


def rearrange(
    rankings: Sequence[LayerRanking], gradients: Sequence[MaskGradients], keep: Keep
) -> tuple[LayerRanking, ...]:
    """Return rankings whose first ``keep`` units are those that ``rearranged`` leaves in each layer.

    Only orders change, and they are good for this ``keep`` alone; what is kept, and what is pruned, stay in the order
    that they had.
    """

    def better(ranking: Ranking, kept: int, samples: Tensor) -> Ranking:
        pruned = set(rearranged(samples, ranking.order[kept:]))
        return replace(ranking, order=tuple(sorted(ranking.order, key=pruned.__contains__)))

    return tuple(
        LayerRanking(better(layer.heads, heads, slopes.heads), better(layer.neurons, neurons, slopes.neurons))
        for layer, slopes, heads, neurons in zip(rankings, gradients, keep.heads, keep.neurons, strict=True)
    )


def pruned_objective(gradients: Tensor, pruned: Sequence[int]) -> float:
    """Return |sum of the pruned units' gradients|^2 over samples: what ``rearranged`` lowers."""
    return float(gradients.double()[:, list(pruned)].sum(1).square().sum())


def _by_importance(importance: Sequence[Sequence[float]], unit: int) -> list[int]:
    """Return the layer of each multiple beyond the first ones, the most important multiple first."""
    chunks = [
        (-float(np.sum(layer[start : start + unit])) / len(layer[start : start + unit]), index, start)
        for index, layer in enumerate(importance)
        for start in range(unit, len(layer), unit)
    ]
    return [index for _, index, _ in sorted(chunks)]


def _gains(importance: Sequence[Sequence[float]], unit: int) -> list[float]:
    """Return the importance that ``share_out`` keeps with 0, 1, 2, ... multiples; below one a layer it is 0."""
    first = [float(np.sum(layer[:unit])) for layer in importance]
    places = [unit] * len(importance)
    more = []
    for index in _by_importance(importance, unit):
        more.append(float(np.sum(importance[index][places[index] : places[index] + unit])))
        places[index] += unit
    return [0.0] * len(importance) + list(accumulate(more, initial=sum(first)))


def _head_macs(shape: ModelShape, width: int, tokens: int) -> int:
    return tokens * width * (4 * shape.hidden + 2 * tokens)


def _neuron_macs(shape: ModelShape, tokens: int) -> int:
    return 2 * tokens * shape.hidden
