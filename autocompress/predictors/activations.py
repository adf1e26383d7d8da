"""How much memory activations take: exactly, and as what layers add to it, which is summed over thousands of shapes."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import numpy.typing as npt

from autocompress.compiler.lowering import lower
from autocompress.compiler.machine import Machine
from autocompress.compiler.memory import activation_bytes, plan, workspace_bytes
from autocompress.shape import LayerShape, ModelShape, Order

FLOATS = 8
"""Storages of f32 values that are told apart; the last holds the bytes of any further."""
OTHERS = ("int8", "uint8", "int16", "uint16", "float16", "int32", "int64")
SLOTS = FLOATS + len(OTHERS) + 1
"""f32 storages, largest first; the bytes of each other type; the workspace of one thread."""


def planned_bytes(shape: ModelShape, tokens: int, machine: Machine) -> int:
    """Return the bytes of activations and workspace of a library of ``shape`` on one thread, as it is planned."""
    program = lower(shape, tokens=tokens, machine=machine)
    return activation_bytes(program) + workspace_bytes(program, threads=1)


def layer_slots(
    layer: LayerShape, *, hidden: int, embedding: int, tokens: int, machine: Machine, order: Order = "post"
) -> npt.NDArray[np.float64]:
    """Return the bytes (``SLOTS``,) that two such layers, one after the other, hold.

    Values of one type share storages, which grow to the largest value that they hold. So a model of several layers
    takes about the largest of each slot, summed: that is what ``features`` counts instead of a plan a shape.
    """
    twice = ModelShape("", 1, tokens, embedding, hidden, (layer, layer), 1, order=order)
    program = lower(twice, tokens=tokens, machine=machine)
    storages = plan(program)
    types = {storages.places[value.name]: value.dtype for call in program.calls for value in call.outputs}
    held: defaultdict[str, list[int]] = defaultdict(list)
    for place, size_bytes in enumerate(storages.storage_bytes):
        held[types[place]].append(size_bytes)
    floats = sorted(held.pop("float32"), reverse=True)
    floats = [*floats[: FLOATS - 1], sum(floats[FLOATS - 1 :])]
    slots = [0] * SLOTS
    slots[: len(floats)] = floats
    slots[FLOATS:] = [*(sum(held.pop(name, ())) for name in OTHERS), workspace_bytes(program, threads=1)]
    assert not held, f"values of other types: {sorted(held)}"
    return np.array(slots, np.float64)
