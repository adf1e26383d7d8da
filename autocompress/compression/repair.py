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

from autocompress.compression.captures import OutputLinear, output_linears
from autocompress.compression.least_squares import least_squares
from autocompress.compression.lineage import teacher_layers
from autocompress.compression.mask_tuning import unit_scales
from autocompress.compression.method import Context, Space
from autocompress.compression.sublayers import Documents, Walk
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
    depth = len(theirs) // 2
    linears, walk = output_linears(model), Walk(model, documents.batches)
    for index, (origin, following) in enumerate(zip(origins, (*origins[1:], depth), strict=True)):
        for linear, reference in ((linears[2 * index], 2 * origin), (linears[2 * index + 1], 2 * following - 1)):
            is_ffn, in_last = linear.width == 1, following == depth
            if is_ffn and following - 1 != origin:
                _take_over(linear.norm, theirs[reference].norm)
            inputs, residual = walk.reads(index, linear)
            targets = documents.target(reference, residual)
            if kind == "least_squares":
                _refit(linear.module, inputs, targets, _weights(walk.first_token) if in_last else None)
            elif is_ffn or origin > 0:
                rows = walk.first_token if is_ffn and in_last else slice(None)
                if not _tune(linear, inputs[rows], targets[rows]):
                    return model
        walk.advance(linear, inputs, residual)
    return model


def _weights(first_token: Tensor) -> Tensor:
    return torch.where(first_token, 1.0, OTHER_TOKENS)


@torch.no_grad()
def _take_over(norm: nn.Module, dense: nn.Module) -> None:
    for parameter, theirs in zip(norm.parameters(), dense.parameters(), strict=True):
        parameter.copy_(theirs[: len(parameter)])


@torch.no_grad()
def _refit(module: nn.Linear, inputs: Tensor, targets: Tensor, weights: Tensor | None) -> None:
    weight, bias = least_squares(inputs, targets, module, damping=DAMPING, weights=weights)
    module.weight.copy_(weight)
    module.bias.copy_(bias)


@torch.no_grad()
def _tune(linear: OutputLinear, inputs: Tensor, targets: Tensor) -> bool:
    """Scale the units of ``linear``, unless that is rejected; return whether it was done."""
    scales = unit_scales(inputs, targets, linear.module.weight, linear.module.bias, width=linear.width)
    if scales is None:
        return False
    linear.module.weight.mul_(scales.repeat_interleave(linear.width).float())
    return True
