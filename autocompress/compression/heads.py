"""Head pruning: attention heads are removed, rows of Q, K, V and columns of the output projection with them.

Which heads go was decided by ``order``: the first are the most important.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from autocompress.compression.method import Context, Space, ask_each
from autocompress.compression.ranking.mask_search import check_keep, share_out
from autocompress.models.load import adapter_of
from autocompress.plan import Suggest
from autocompress.shape import ModelShape


@dataclass(frozen=True)
class HeadStep:
    """Keep the first ``keep[i]`` heads of layer i."""

    method: ClassVar[str] = "heads"
    keep: tuple[int, ...]


STEP = HeadStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> HeadStep:
    """Choose the share of heads that is kept, of each layer or of all, at least one head a layer.

    With the allocation ``global`` as many heads stay, those of most importance in all layers (Kwon et al. 2022).
    """
    shares = ask_each(trial, "heads_keep", space.heads_keep, space, len(shape.layers))
    keep = tuple(max(1, round(layer.heads * share)) for layer, share in zip(shape.layers, shares, strict=True))
    if space.own_layers:
        return HeadStep(keep)
    if trial.suggest_categorical("allocation", space.allocation) == "global" and space.layers:
        keep = share_out([layer.heads for layer in space.layers], sum(keep))
    return HeadStep(keep)


def reshape(shape: ModelShape, step: HeadStep) -> ModelShape:
    """Return ``shape`` with the kept heads.

    Raises:
        ConfigError: A layer would keep none, or more than it has.
    """
    check_keep("heads", step.keep, [layer.heads for layer in shape.layers])
    pairs = zip(shape.layers, step.keep, strict=True)
    return replace(shape, layers=tuple(replace(layer, heads=keep) for layer, keep in pairs))


def apply(model: nn.Module, step: HeadStep, context: Context) -> nn.Module:
    """Remove the heads after the kept ones.

    Raises:
        ConfigError: As ``reshape``.
    """
    adapter = adapter_of(model)
    reshape(adapter.shape(model), step)
    for index, keep in enumerate(step.keep):
        adapter.keep_heads(model, index, range(keep))
    return model
