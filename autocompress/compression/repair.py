"""Repair after pruning: closed-form changes of what is left, so that layers give again what the teacher's gave.

No labels, no gradients. Sublayers are repaired front to back, each on what the repaired ones before it give. The target
of a sublayer is the sum that its teacher's norm reads, less the residual that reaches it now: errors that earlier
sublayers left are made up for too. Where layers were removed, a layer's feed-forward block stands in for those after it
as well: its target, and its norm, are those of the last of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.compression.captures import OutputLinear, output_linears
from autocompress.compression.method import Context, Space
from autocompress.compression.repairs.least_squares import least_squares
from autocompress.compression.repairs.lineage import teacher_layers
from autocompress.compression.repairs.mask_tuning import unit_scales
from autocompress.compression.repairs.sublayers import Documents, Reading, Walk
from autocompress.models.load import adapter_of
from autocompress.plan import RepairKind, Suggest
from autocompress.shape import ModelShape

DAMPING = 0.01
"""Of the mean diagonal, as in ``obs``."""
OTHER_TOKENS = 0.1
"""Weight of all tokens but the first in a last layer, of which the classifier reads the first alone."""


@dataclass(frozen=True)
class RepairStep:
    """How a student is repaired.

    Attributes:
        kind: ``least_squares`` refits the output projections and second feed-forward linears; ``mask_tuning`` scales
            their units (Kwon et al. 2022); ``none`` leaves all as it is.
        batches: Calibration batches.
        seed: Which ones.
    """

    method: ClassVar[str] = "repair"
    kind: RepairKind
    batches: int
    seed: int


STEP = RepairStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> RepairStep:
    """Choose a kind."""
    kind = trial.suggest_categorical("repair", space.repair)
    return RepairStep(kind, space.repair_batches, space.seed)


def reshape(shape: ModelShape, step: RepairStep) -> ModelShape:
    """Return ``shape`` itself: repair changes no width."""
    return shape


def apply(model: nn.Module, step: RepairStep, context: Context) -> nn.Module:
    """Repair every sublayer, front to back."""
    if step.kind == "none":
        return model
    return repair(model, context.documents(step.batches, step.seed), step.kind)


def repair(model: nn.Module, documents: Documents, kind: RepairKind) -> nn.Module:
    """Repair ``model`` in place; a narrower residual stream is that of the dense model's first channels.

    Mask tuning follows Kwon: the first layer's attention is left out, the last feed-forward block is tuned on the first
    tokens alone, and it ends where scales are rejected.
    """
    origins, theirs = teacher_layers(model, documents.model), output_linears(documents.model)
    depth, hidden = len(theirs) // 2, adapter_of(model).shape(model).hidden
    linears, walk = output_linears(model), Walk(model, documents.batches)
    refits = kind == "least_squares"
    for index, (origin, following) in enumerate(zip(origins, (*origins[1:], depth), strict=True)):
        attention, ffn = linears[2 * index : 2 * index + 2]
        first = walk.first_token if following == depth else None
        reading = walk.attention(index)
        sums: Tensor | None = reading.sums
        if refits or origin > 0:
            sums = _mend(attention, reading, documents.sums[2 * origin][:, :hidden], kind, first if refits else None)
        if sums is None:
            return model
        if following - 1 != origin:
            _take_over(ffn.norm, theirs[2 * following - 1].norm)
        reading = walk.feed_forward(index, sums)
        sums = _mend(ffn, reading, documents.sums[2 * following - 1][:, :hidden], kind, first)
        if sums is None:
            return model
        walk.advance(index, sums)
    return model


@torch.no_grad()
def _mend(
    linear: OutputLinear, reading: Reading, dense: Tensor, kind: RepairKind, first: Tensor | None
) -> Tensor | None:
    """Change ``linear`` so that the sums it adds to come near to ``dense``; return them, ``None`` where it is rejected.

    Args:
        linear: To change.
        reading: What it reads, and the sums so far.
        dense: The dense model's sums (real tokens x hidden).
        kind: How.
        first: The tokens that matter most, where not all matter the same.
    """
    module, errors = linear.module, dense - reading.sums
    if kind == "least_squares":
        weights = None if first is None else torch.where(first, 1.0, OTHER_TOKENS)
        weight, bias = least_squares(reading.inputs, errors, damping=DAMPING, weights=weights)
    else:
        rows = slice(None) if first is None else first
        scales = unit_scales(reading.inputs[rows], errors[rows], module.weight, width=linear.width)
        if scales is None:
            return None
        weight = module.weight * (scales - 1.0).float().repeat_interleave(linear.width)
        bias = torch.zeros_like(module.bias)
    module.weight.add_(weight)
    module.bias.add_(bias)
    return reading.sums + functional.linear(reading.inputs, weight, bias)


@torch.no_grad()
def _take_over(norm: nn.Module, dense: nn.Module) -> None:
    for parameter, theirs in zip(norm.parameters(), dense.parameters(), strict=True):
        parameter.copy_(theirs[: len(parameter)])
