"""Where models are trained, in which precision, and by which random numbers.

On a GPU, products of matrices inside a model are computed in bfloat16; weights, what a model hands to a loss, and
losses stay float32. The logic is tested with the processor's own bfloat16. On CUDA and MPS themselves it was never run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from autocompress.errors import ConfigError

DeviceName: TypeAlias = Literal["auto", "cpu", "cuda", "mps"]
MIXED = frozenset({"cuda", "mps"})
"""Kinds of devices that are faster in bfloat16; most processors only emulate it."""


def best_device(asked: DeviceName = "auto") -> torch.device:
    """Return the device to train on; ``auto`` is a GPU where there is one.

    Raises:
        ConfigError: There is no such device.
    """
    found = {"cuda": torch.cuda.is_available(), "mps": torch.mps.is_available(), "cpu": True}
    there = [name for name, here in found.items() if here]
    if asked == "auto":
        return torch.device(there[0])
    if asked in there:
        return torch.device(asked)
    raise ConfigError(
        f"search.training_device is {asked}, which torch {torch.__version__} does not find on this machine.",
        right=f"It finds {' and '.join(there)}.",
        next_step=f"Set search.training_device to {there[0]} or auto, or install a torch that was built for {asked}.",
    )


def device_of(model: nn.Module) -> torch.device:
    """Return where the parameters of ``model`` are."""
    return next(model.parameters()).device


@contextmanager
def placed(device: torch.device, *models: nn.Module) -> Iterator[None]:
    """Move models there, in place, and afterwards back to where they were."""
    before = [device_of(model) for model in models]
    for model in models:
        model.to(device)
    try:
        yield
    finally:
        for model, home in zip(models, before, strict=True):
            model.to(home)


def mixed_precision(device: torch.device) -> torch.autocast:
    """Return the context in which a model's products are bfloat16, where the device is one of ``MIXED``."""
    return torch.autocast(device.type, torch.bfloat16, enabled=device.type in MIXED)


def full_precision(device: torch.device) -> torch.autocast:
    """Return the context in which all is computed in the precision of its operands."""
    return torch.autocast(device.type, enabled=False)


def widened(tensor: Tensor) -> Tensor:
    """Return what a model computed as losses read it: f32 where it was bfloat16."""
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def random_state(device: torch.device) -> dict[str, Tensor]:
    """Return the states of the generators that a training there draws from, by kind of device."""
    states = {"cpu": torch.get_rng_state()}
    return states if device.type == "cpu" else states | {device.type: _generators(device).get_rng_state()}


def set_random_state(device: torch.device, states: dict[str, Tensor]) -> None:
    """Put back what ``random_state`` returned."""
    torch.set_rng_state(states["cpu"])
    if device.type != "cpu":
        _generators(device).set_rng_state(states[device.type])


def _generators(device: torch.device) -> Any:
    return torch.get_device_module(device)
