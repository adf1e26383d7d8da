"""The table of methods, and how a plan made of them is drawn, foreseen and applied."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from torch import nn

from autocompress.compression import (
    depth,
    distillation,
    factorize,
    ffn,
    heads,
    hidden,
    order,
    positions,
    quantization,
    quantization_aware,
    repair,
    tokens,
    vocabulary,
)
from autocompress.compression.depth import DepthStep
from autocompress.compression.method import Context, Method, Space
from autocompress.compression.order import OrderStep
from autocompress.compression.repairs.lineage import number_layers
from autocompress.plan import CompressionPlan, Step, Suggest
from autocompress.shape import ModelShape

METHODS: dict[str, Method] = {
    module.STEP.method: cast(Method, module)
    for module in (
        *(vocabulary, positions, order, depth, hidden, heads, ffn, factorize),
        *(repair, tokens, distillation, quantization, quantization_aware),
    )
}
"""Method name -> method, in the order that composes: vocabulary, positions, depth, widths, repair, tokens, training,
rounding, training with rounded weights.
"""


def draw(trial: Suggest, shape: ModelShape, space: Space) -> CompressionPlan:
    """Ask every method for a step, each for the shape that the steps before it leave."""
    steps: list[Step] = []
    for method in METHODS.values():
        step = method.suggest(trial, shape, space)
        shape = method.reshape(shape, step)
        space = after(space, step)
        steps.append(step)
    return CompressionPlan(tuple(steps))


def after(space: Space, step: Step) -> Space:
    """Return what the methods after ``step`` may know of the importance of units and the sensitivity of layers."""
    if isinstance(step, OrderStep) and {step.heads, step.neurons} <= set(space.importance):
        pairs = zip(space.importance[step.heads], space.importance[step.neurons], strict=True)
        return replace(space, layers=tuple(replace(one, neurons=other.neurons) for one, other in pairs))
    if isinstance(step, DepthStep):
        layers = tuple(space.layers[index] for index in step.kept if space.layers)
        sensitivity = tuple(space.sensitivity[index] for index in step.kept if space.sensitivity)
        own_layers = tuple(space.own_layers[index] for index in step.kept if space.own_layers)
        return replace(space, layers=layers, sensitivity=sensitivity, own_layers=own_layers)
    return space


def reshape_plan(shape: ModelShape, plan: CompressionPlan) -> ModelShape:
    """Return the shape of the student that ``apply_plan`` would make."""
    for step in plan.steps:
        shape = METHODS[step.method].reshape(shape, step)
    return shape


def apply_plan(teacher: nn.Module, plan: CompressionPlan, context: Context) -> nn.Module:
    """Return a student made from a copy of ``teacher``."""
    student = number_layers(copy.deepcopy(teacher))
    for step in plan.steps:
        student = METHODS[step.method].apply(student, step, context)
    return student.eval()


def read_plan(data: Sequence[Mapping[str, object]]) -> CompressionPlan:
    """Read a plan from JSON values."""
    return CompressionPlan.from_json(data, {name: method.STEP for name, method in METHODS.items()})
