"""Draw examples so that each class keeps its share, the same ones for the same seed."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Hashable, Sequence


def stratified_order(labels: Sequence[Hashable], *, seed: int) -> list[int]:
    """Return a permutation of the indices, every prefix of which holds each class about in its share.

    Member ``k`` of a class of ``n`` (in random order) gets the rank (k + 1/2) / n; ranks are sorted. So samples
    nest: the smaller one is part of the larger.
    """
    members: dict[Hashable, list[int]] = defaultdict(list)
    for index, label in enumerate(labels):
        members[label].append(index)
    rng = random.Random(seed)
    ranked: list[tuple[float, float, int]] = []
    for group in members.values():
        rng.shuffle(group)
        ranked += [((k + 0.5) / len(group), rng.random(), index) for k, index in enumerate(group)]
    return [index for _, _, index in sorted(ranked)]


def hold_out(
    examples: Sequence[Hashable], labels: Sequence[Hashable], *, fraction: float, seed: int
) -> tuple[list[int], list[int]]:
    """Cut ``fraction`` (0 to 1) of the examples off, stratified; equal ones stay on one side.

    Returns:
        Indices of the rest and of the held-out examples, both in ascending order.
    """
    copies: dict[Hashable, list[int]] = defaultdict(list)
    for index, example in enumerate(examples):
        copies[example].append(index)
    groups = list(copies.values())
    held: list[int] = []
    for position in stratified_order([labels[group[0]] for group in groups], seed=seed):
        if len(held) >= round(fraction * len(examples)):
            break
        held += groups[position]
    rest = sorted(set(range(len(examples))) - set(held))
    return rest, sorted(held)
