"""Quantization-aware training: a student learns on with its weights and activations already rounded.

Forwards, everything computes what is delivered. Backwards, gradients go straight through roundings (Bengio et al. 2013)
to floats behind the levels, and to the step sizes (LSQ, Esser et al. 2020, equations 1 to 3 and 5). The loss is that of
``distillation``.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.func import functional_call

from autocompress.compression import distillation
from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Context, Space
from autocompress.compression.rounding.grids import ends_of
from autocompress.models.quantized import QuantizedEmbedding, QuantizedLinear, quantizer_of, straight_through
from autocompress.plan import RecipeName, Suggest
from autocompress.shape import WEIGHT_GROUP, ModelShape, WeightGrid

WITHIN = 0.499
"""How far from its level a float may start, in steps: nearer than half, so that it is surely rounded to that level."""
LEAST = 1e-15
"""Of a step size. Weights of nothing but zeros have a smaller one, by which gradients cannot be divided twice."""


@dataclass(frozen=True)
class QuantizationAwareStep:
    """How a student is trained once its weights are rounded; the fields are those of ``DistillStep``."""

    method: ClassVar[str] = "quantization_aware"
    steps: int
    learning_rate: float
    seed: int
    recipe: RecipeName = "steady"


STEP = QuantizationAwareStep


def suggest(trial: Suggest, shape: ModelShape, space: Space) -> QuantizationAwareStep:
    """Return the space's training, the same for every candidate; a search has none, and leaves it to finalists."""
    return QuantizationAwareStep(space.quantization_aware_steps, space.learning_rate, space.seed)


def reshape(shape: ModelShape, step: QuantizationAwareStep) -> ModelShape:
    """Return ``shape`` itself: weights have the bits that they had."""
    return shape


def apply(model: nn.Module, step: QuantizationAwareStep, context: Context) -> nn.Module:
    """Train weights, step sizes, biases and all that is not rounded, in the precision in which it is delivered."""
    if step.steps:
        with learning(model, context.unrounded):
            distillation.apply(model, DistillStep(**asdict(step)), replace(context, mixed_precision=False))
    return model


@contextmanager
def learning(model: nn.Module, unrounded: nn.Module | None = None) -> Iterator[None]:
    """Let the rounded weights of ``model`` be fitted; afterwards they are levels and scales again, in place.

    Args:
        model: With quantized modules, whose outputs stay what they are, bit by bit, until something is fitted.
        unrounded: The same model before it was rounded: see ``LearnedRounding``.
    """
    kinds = (QuantizedLinear, QuantizedEmbedding)
    rounded = {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
    for name, module in rounded.items():
        floats = None if unrounded is None else getattr(unrounded.get_submodule(name), "weight", None)
        if floats is not None and (quantizer := quantizer_of(module)):
            floats = quantizer.readers(floats)
        model.set_submodule(name, LearnedModule(module, floats).train(module.training))
    try:
        yield
    finally:
        for name in rounded:
            learned = model.get_submodule(name)
            assert isinstance(learned, LearnedModule)
            model.set_submodule(name, learned.delivered())


class LearnedRounding(nn.Module):
    """Floats v behind weights of few bits, and the step sizes s of their grid: levels are round(clip(v / s + z)).

    Zero points z stay what they are.

    At the start s is what it was. v is the level itself; where floats are given and were rounded to nearest, v is the
    float: weights that were nearly rounded the other way are then the first to go there. Where OPTQ, say, chose another
    level, that choice stands in the middle of its step: at the edge, the first noise of training would undo it.

    Gradients are those of LSQ: to v where it is inside the grid; to s, level - v / s inside and the end outside. The
    paper scales the latter by 1 / sqrt(weights of a step * highest level), for relative changes of s and v to be alike
    under SGD. AdamW is blind to such a scale. What it needs for the same is a logarithm: s = s_0 * exp(t / rms(v)),
    with which a rate that moves v by x % of its size moves s by x %. No step size changes its sign, or becomes 0.

    Args:
        weight: (rows x channels), levels or bfloat16.
        scale: (rows,), (rows x 1) or (rows x groups) f32; none at 16 bits, where v is cast.
        bits: Of the levels.
        floats: (rows x channels) f32.
        grid: Groups of a linear's weights, if they are in groups.
        zero_points: (rows x groups), where there are any.
    """

    def __init__(
        self,
        weight: Tensor,
        scale: Tensor | None,
        bits: int,
        floats: Tensor | None,
        grid: WeightGrid | None = None,
        zero_points: Tensor | None = None,
    ) -> None:
        super().__init__()
        start = weight.float()
        self._first_scale: Tensor | None
        self._zeros: Tensor
        first = None if scale is None else torch.where(scale.abs() < LEAST, LEAST, scale)
        self.register_buffer("_first_scale", first, persistent=False)
        self._group = grid.group if grid else WEIGHT_GROUP
        if first is not None:
            self._ends = ends_of(bits, grouped=grid is not None)
            zeros = torch.zeros(()) if zero_points is None else self._spread(zero_points.float(), weight.shape[1])
            self.register_buffer("_zeros", zeros, persistent=False)
            steps = self._spread(first, weight.shape[1])
            if floats is not None:
                start += _inside(floats.detach() / steps + self._zeros, start, *self._ends)
            start = (start - self._zeros) * steps
            self.log_step = nn.Parameter(torch.zeros_like(first))
        elif floats is not None:
            start = floats.detach().clone()
        self.weight = nn.Parameter(start)
        self._rms = float(start.square().mean().sqrt()) or 1.0

    def forward(self, rows: Tensor | None = None) -> dict[str, Tensor]:
        """Return ``weight`` and ``scale`` as a quantized module holds them, of some rows or of all."""
        weight: Tensor = self.weight if rows is None else self.weight[rows]
        if self._first_scale is None:
            return {"weight": weight.bfloat16()}
        scale = self._first_scale * torch.exp(self.log_step / self._rms)
        scale = scale if rows is None else scale[rows]
        # Rounded before the zero point is added, as weights were: halves go to even either way, but not to the same.
        ratio = weight / self._spread(scale, weight.shape[1])
        clipped = (ratio + self._zeros).clamp(*self._ends)
        rounded = (torch.round(ratio) + self._zeros).clamp(*self._ends)
        return {"weight": straight_through(clipped, rounded), "scale": scale}

    def _spread(self, each: Tensor, channels: int) -> Tensor:
        """Return what each weight has of a row or group, (rows x 1) or (rows x channels)."""
        each = each.reshape(len(each), -1)
        return each if each.shape[1] == 1 else each.repeat_interleave(self._group, dim=1)[:, :channels]


class LearnedModule(nn.Module):
    """A quantized module that is run as it is, with weights, step sizes and bias that can be fitted."""

    def __init__(self, module: QuantizedLinear | QuantizedEmbedding, floats: Tensor | None) -> None:
        super().__init__()
        self.module = module
        grid = module.grid if isinstance(module, QuantizedLinear) else None
        zeros = module.zero_points if isinstance(module, QuantizedLinear) else None
        self.rounding = LearnedRounding(module.weight, module.scale, module.bits, floats, grid, zeros)
        self.bias = nn.Parameter(module.bias.clone()) if isinstance(module, QuantizedLinear) else None
        # Adapters read widths of a model also while it is trained.
        for width in ("in_features", "out_features", "num_embeddings", "embedding_dim"):
            if hasattr(module, width):
                setattr(self, width, getattr(module, width))

    def forward(self, x: Tensor) -> Tensor:
        """Return what the module returns; of a table, only the rows that are looked up are rounded."""
        if self.bias is None:
            rows, x = torch.unique(x, return_inverse=True)
            tensors = self.rounding(rows)
        else:
            tensors = {**self.rounding(), "bias": self.bias}
        returned: Tensor = functional_call(self.module, tensors, (x,))
        return returned

    @torch.no_grad()
    def delivered(self) -> nn.Module:
        """Return the module with what was learnt."""
        learnt = self.rounding() if self.bias is None else {**self.rounding(), "bias": self.bias}
        for name, tensor in learnt.items():
            self.module.get_buffer(name).copy_(tensor)
        return self.module


def _inside(ratio: Tensor, levels: Tensor, low: int, high: int) -> Tensor:
    """Return how far v / s starts from the level: where the float is, if it is rounded to it and inside the grid."""
    apart = ratio.clamp(low, high) - levels
    return torch.where(apart.abs() <= 0.5, apart, 0.0).clamp(-WITHIN, WITHIN)
