"""Which of its teacher's layers a student still has; layers carry their number along when they are kept or copied."""

from __future__ import annotations

from torch import nn

from autocompress.errors import UnsupportedError
from autocompress.models.load import adapter_of

_NUMBER = "teacher_layer"


def number_layers(model: nn.Module) -> nn.Module:
    """Let each layer know its place (0-based), unless it does; weights and outputs stay as they are."""
    for index, layer in enumerate(adapter_of(model).layers(model)):
        if not hasattr(layer.layer, _NUMBER):
            setattr(layer.layer, _NUMBER, index)
    return model


def teacher_layers(model: nn.Module, teacher: nn.Module) -> tuple[int, ...]:
    """Return, for each layer of ``model``, the layer of ``teacher`` that it was.

    Raises:
        UnsupportedError: The model has other layers or another hidden width, so that there is nothing to compare.
    """
    layers, adapter = adapter_of(model).layers(model), adapter_of(teacher)
    found = tuple(getattr(layer.layer, _NUMBER, index) for index, layer in enumerate(layers))
    count = len(adapter.layers(teacher))
    numbered = all(hasattr(layer.layer, _NUMBER) for layer in layers)
    if found and max(found) < count and (numbered or len(found) == count):
        return found
    raise UnsupportedError(
        f"A student of {len(found)} layers does not know which of its teacher's {count} they were.",
        right="apply_plan numbers the layers before the first step.",
        next_step="Make the student by apply_plan, or number_layers before layers are removed.",
    )
