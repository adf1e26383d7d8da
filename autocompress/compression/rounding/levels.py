"""Weights of a model rounded for what they do to calibration documents: front to back, behind what is rounded already.

What a linear reads are the floats that reach it through the layers, and the linears of its own layer, that are rounded
before it. Those round their own activations as the model runs; the linear at hand is fitted to its inputs before they
are rounded for it, and so is the range of its inputs where that is fixed. No labels, no gradients of the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Literal, TypeAlias, cast

import torch
from torch import Tensor, nn

from autocompress.compression.activations.ranges import FixedRange, Fixing, fix_range
from autocompress.compression.rounding.adaround import ITERATIONS, adaround
from autocompress.compression.rounding.aespa import attention_objectives
from autocompress.compression.rounding.descent import descend
from autocompress.compression.rounding.grids import Grid, GridBits, grid_of
from autocompress.compression.rounding.layer_inputs import LayerInputs, head_inputs
from autocompress.compression.rounding.objective import Objective, second_moment
from autocompress.compression.rounding.optq import compensated
from autocompress.models.adapter import LayerModules, ModelModules, Modules
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedLinear
from autocompress.plan import Rounding
from autocompress.shape import Bits, LayerBits, WeightGrid, usual_grid
from autocompress.training.batches import LabelledBatch

Calibrated: TypeAlias = Literal["optq", "aespa", "descent"]
"""The ways of ``plan.Rounding`` that read documents. ``optq``: each linear for its own outputs. ``aespa``: queries,
keys and values for what attention gives; levels are learned. ``descent``: the same objectives by coordinate descent.
"""
GridAt: TypeAlias = Callable[[Bits], WeightGrid | None]
"""How weights of so many bits are stored in groups; ``None``: in none."""


@torch.no_grad()
def round_layers(
    model: nn.Module,
    bits: Sequence[LayerBits],
    rounding: Rounding,
    batches: Sequence[LabelledBatch],
    *,
    fixing: Fixing | None = None,
    grid_at: GridAt = usual_grid,
    iterations: int = ITERATIONS,
) -> None:
    """Round the linears of every layer, in place.

    Args:
        model: In eval mode.
        bits: Of each layer's weights (``LayerShape.bits``). 32 leaves floats; 16 rounds to nearest.
        rounding: How.
        batches: Calibration documents.
        fixing: How ranges of activations are fixed at 8 bits; ``None`` leaves them to be found as the model runs.
        grid_at: How they are stored in groups.
        iterations: Of AdaRound, a linear.
    """
    inputs = LayerInputs(model, batches)
    for layer, widths in zip(adapter_of(model).layers(model), bits, strict=True):
        inward = layer.query, layer.key, layer.value
        for paths, width in zip(layer.groups, widths, strict=True):
            fixed = _fixed(layer, paths, inputs, fixing) if fixing and width == 8 else None
            if rounding == "nearest" or width > 8:
                for path in paths:
                    round_to_nearest(layer, path, width, fixed, grid_at)
                continue
            found = _inward(layer, inputs, rounding) if paths == inward else {paths[0]: _outward(inputs, paths[0])}
            for path, objective in found.items():
                _round(layer, path, width, objective, rounding, iterations, fixed, grid_at)
        inputs.advance()


@torch.no_grad()
def round_head(
    model: nn.Module,
    bits: Bits,
    rounding: Rounding = "nearest",
    batches: Sequence[LabelledBatch] = (),
    *,
    iterations: int = ITERATIONS,
) -> None:
    """Round the head's two linears, in place: each for its own outputs, behind what is rounded already.

    Args:
        model: In eval mode.
        bits: Of both. 32 leaves floats; 16 rounds to nearest.
        rounding: How.
        batches: Calibration documents; ``nearest`` reads none.
        iterations: Of AdaRound, a linear.
    """
    whole = ModelModules(model)
    for path in adapter_of(model).head_linears(model):
        if rounding == "nearest" or bits > 8:
            round_to_nearest(whole, path, bits)
            continue
        objective = Objective(second_moment(head_inputs(model, path, batches))[None])
        _round(whole, path, bits, objective, rounding, iterations, None, usual_grid)


def round_to_nearest(
    layer: Modules, path: str, bits: Bits, fixed: FixedRange | None = None, grid_at: GridAt = usual_grid
) -> None:
    """Put the nearest levels in the place of the linear at ``path``; 32 bits leave it."""
    if bits == 32:
        return
    linear = _linear(layer, path)
    weight = linear.weight.detach()
    if bits == 16:
        layer.replace(path, QuantizedLinear(weight.to(torch.bfloat16), None, linear.bias.detach().clone(), 16))
        return
    weight = fixed.readers(weight) if fixed else weight
    grid = grid_of(weight, bits, stored=grid_at(bits))
    layer.replace(path, _quantized(grid.levels(weight), grid, linear, bits, fixed, grid_at))


def levels_of(
    weight: Tensor, grid: Grid, objective: Objective, rounding: Calibrated, *, iterations: int = ITERATIONS
) -> Tensor:
    """Return the levels (rows x inputs) of a weight, int8; those of inputs that are always 0 stand for 0.

    Args:
        weight: (rows x inputs).
        grid: Where it may go.
        objective: What changes of it cost, as measured; it is damped here.
        rounding: ``optq`` reads no more than the inputs' side of the objective.
        iterations: Of AdaRound.
    """
    weight, steady = weight * objective.alive, objective.damped()
    blocks = len(steady.inputs)
    triples = zip(weight.chunk(blocks), steady.inputs, grid.chunks(blocks), strict=True)
    start = torch.cat([compensated(rows, hessian, own) for rows, hessian, own in triples])
    if rounding == "optq":
        return grid.levels(start)
    if rounding == "descent":
        return descend(weight, grid.levels(start), grid, steady)
    return adaround(weight, start, grid, steady, iterations=iterations)


def _fixed(layer: LayerModules, paths: Sequence[str], inputs: LayerInputs, fixing: Fixing) -> FixedRange:
    return fix_range(inputs, paths[0], [_linear(layer, path).weight.detach() for path in paths], fixing)


def _inward(layer: LayerModules, inputs: LayerInputs, rounding: Calibrated) -> Mapping[str, Objective]:
    """Return the objectives of query, key and value, by their paths; the three read the same."""
    if rounding == "optq":
        return dict.fromkeys((layer.query, layer.key, layer.value), _outward(inputs, layer.query))
    query, key = layer.get(layer.query), layer.get(layer.key)
    found = attention_objectives(list(inputs.of(layer.query)), query, key, head_width=layer.head_width)
    return {layer.query: found.query, layer.key: found.key, layer.value: found.value}


def _outward(inputs: LayerInputs, path: str) -> Objective:
    """Return the error of the outputs of the linear at ``path``."""
    return Objective(second_moment(x[real] for x, real in inputs.of(path))[None])


def _round(
    layer: Modules,
    path: str,
    bits: Bits,
    objective: Objective,
    rounding: Calibrated,
    iterations: int,
    fixed: FixedRange | None,
    grid_at: GridAt,
) -> None:
    linear = _linear(layer, path)
    weight = linear.weight.detach()
    if fixed and fixed.scales is not None:
        weight, objective = fixed.readers(weight), objective.of_scaled(fixed.scales)
    grid = grid_of(weight, cast(GridBits, bits), stored=grid_at(bits))
    levels = levels_of(weight, grid, objective, rounding, iterations=iterations)
    layer.replace(path, _quantized(levels, grid, linear, bits, fixed, grid_at))


def _quantized(
    levels: Tensor, grid: Grid, linear: nn.Linear, bits: Bits, fixed: FixedRange | None, grid_at: GridAt
) -> QuantizedLinear:
    # A quantizer each: what is saved holds no tensor twice.
    bias, quantizer, stored = linear.bias.detach().clone(), fixed.quantizer() if fixed else None, grid_at(bits)
    group = stored.group if stored else None
    return QuantizedLinear(levels, grid.scale, bias, bits, quantizer, group, grid.zero_points)


def _linear(layer: Modules, path: str) -> nn.Linear:
    linear = layer.get(path)
    assert isinstance(linear, nn.Linear)
    return linear
