"""Fit a model to batches: AdamW, linear warm-up and decay, gradient clipping; the same seed gives the same weights."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count, islice
from math import ceil, isfinite
from typing import Literal, TypeAlias, TypeVar

import torch
from torch import Tensor, nn

from autocompress.errors import AutoCompressError, ConfigError
from autocompress.training.batches import LabelledBatch
from autocompress.training.checkpoint import Checkpoint, SavedState
from autocompress.training.device import (
    device_of,
    full_precision,
    mixed_precision,
    random_state,
    set_random_state,
    widened,
)


class TrainingDivergedError(AutoCompressError):
    """The loss or its gradient is no longer a number."""


B = TypeVar("B")
Schedule: TypeAlias = Literal["linear", "constant"]
"""What the rate does after its warm-up: fall to 0, or stay."""

HEAD = frozenset({"pooler", "pre_classifier", "classifier"})
"""Modules between the last layer and the logits, in the families' own words."""


@dataclass(frozen=True)
class TrainLog:
    """The loss of each step, in order."""

    losses: tuple[float, ...]


def head_rate(ratio: float) -> Callable[[str], float]:
    """Return the rates of a model whose head learns ``ratio`` times as fast as the rest; see ``train``."""
    return lambda name: 1.0 if HEAD.isdisjoint(name.split(".")) else ratio


def logits_of(model: nn.Module, inputs: Mapping[str, Tensor]) -> Tensor:
    """Run a classifier on its feeds; return the logits (examples x classes), on the model's device."""
    device = device_of(model)
    output = model(**{name: tensor.to(device) for name, tensor in inputs.items()})
    logits = output if isinstance(output, Tensor) else output.logits
    assert isinstance(logits, Tensor)
    return widened(logits)


@contextmanager
def reading(model: nn.Module) -> Iterator[None]:
    """Put ``model`` in eval mode, and back into the mode it was in."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


def cross_entropy(model: nn.Module, batch: LabelledBatch) -> Tensor:
    """Return the mean cross entropy between a batch's labels and the model's logits, in nats."""
    logits = logits_of(model, batch.inputs)
    return nn.functional.cross_entropy(logits, batch.labels.to(logits.device))


def repeat(epoch: Callable[[int], Sequence[B]], *, steps: int) -> Iterator[B]:
    """Yield ``steps`` batches: those of ``epoch(0)``, then of ``epoch(1)``, and so on."""
    return islice((batch for number in count() for batch in epoch(number)), steps)


def train(
    model: nn.Module,
    batches: Iterable[B],
    loss: Callable[[nn.Module, B], Tensor],
    *,
    learning_rate: float,
    steps: int,
    weight_decay: float = 0.01,
    warmup_ratio: float = 0.1,
    clip: float = 1.0,
    rate_of: Callable[[str], float] = lambda name: 1.0,
    schedule: Schedule = "linear",
    seed: int = 0,
    on_step: Callable[[int, int, float], None] | None = None,
    checkpoint: Checkpoint | None = None,
    mixed: bool = True,
) -> TrainLog:
    """Fit ``model`` in place, where it lies. Its mode and the global random state are put back, also after an error.

    Args:
        model: Parameters that require gradients are fitted.
        batches: At least ``steps`` of them.
        loss: (model, batch) -> scalar, f32.
        learning_rate: Peak, reached at the end of the warm-up.
        steps: Optimizer steps.
        weight_decay: On matrices; biases and norms have none.
        warmup_ratio: Share of the steps in which the rate rises (0 to 1).
        clip: Largest norm of the gradient.
        rate_of: Rate of a parameter, by its name, as a multiple of ``learning_rate``.
        schedule: After the warm-up.
        seed: Of dropout.
        on_step: Told (step from 1, steps, loss) after each step.
        checkpoint: Where the state is kept. If the same training was killed, it goes on there, and on a processor ends
            with the very same weights; batches that were read then are passed over.
        mixed: Whether products may be bfloat16, where the device is faster at it (``device.mixed_precision``).

    Raises:
        TrainingDivergedError: The loss or the gradient is not finite; the weights are those before that step.
        ConfigError: There are fewer batches than steps.
    """
    groups = _parameter_groups(model, learning_rate, weight_decay, rate_of)
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, fused=True)
    device, saved = device_of(model), None
    if checkpoint is not None:
        rates = {name: rate_of(name) for name, _ in model.named_parameters()}
        settings = [steps, learning_rate, weight_decay, warmup_ratio, clip, schedule, seed, rates, device.type, mixed]
        saved = SavedState(checkpoint, model, optimizer, settings)
    with _training(model, seed):
        rest = iter(batches)
        losses = [] if saved is None else saved.resume(rest, steps)
        for step, batch in enumerate(islice(rest, steps - len(losses)), start=len(losses) + 1):
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * rate(step - 1, steps, warmup_ratio, schedule)
            optimizer.zero_grad(set_to_none=True)
            with mixed_precision(device) if mixed else full_precision(device):
                value = loss(model, batch)
            value.backward()  # type: ignore[no-untyped-call]
            norm = nn.utils.clip_grad_norm_(model.parameters(), clip)
            losses.append(value.item())
            if not (isfinite(losses[-1]) and isfinite(norm.item())):
                raise _diverged(step, losses[-1], learning_rate)
            optimizer.step()
            if saved is not None:
                saved.write(losses, ended=step == steps)
            if on_step is not None:
                on_step(step, steps, losses[-1])
    if len(losses) < steps:
        raise ConfigError(
            f"Training was to take {steps} steps, but there were {len(losses)} batches.",
            right="There is a batch for each step.",
            next_step="Repeat the batches, or lower the number of steps.",
        )
    return TrainLog(tuple(losses))


def rate(step: int, steps: int, warmup_ratio: float, schedule: Schedule = "linear") -> float:
    """Return the share of the peak rate in step ``step`` (from 0): up to 1 over the warm-up, then down towards 0."""
    warmup = ceil(warmup_ratio * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 1.0 if schedule == "constant" else max(0.0, (steps - step) / max(1, steps - warmup))


def _parameter_groups(
    model: nn.Module, learning_rate: float, weight_decay: float, rate_of: Callable[[str], float]
) -> list[dict[str, object]]:
    """Part the fitted parameters by whether they decay (matrices do) and by their rate."""
    parted: dict[tuple[bool, float], list[nn.Parameter]] = defaultdict(list)
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            parted[parameter.ndim >= 2, rate_of(name)].append(parameter)
    return [
        {"params": parameters, "weight_decay": weight_decay if decays else 0.0, "peak": learning_rate * multiple}
        for (decays, multiple), parameters in parted.items()
    ]


@contextmanager
def _training(model: nn.Module, seed: int) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    device = device_of(model)
    random = random_state(device)
    torch.manual_seed(seed)
    model.train()
    try:
        yield
    finally:
        set_random_state(device, random)
        model.zero_grad(set_to_none=True)
        for module, mode in modes.items():
            module.training = mode


def _diverged(step: int, loss: float, learning_rate: float) -> TrainingDivergedError:
    return TrainingDivergedError(
        f"Training diverged in step {step}: the loss is {loss}.",
        right="The loss and its gradient stay finite.",
        next_step=f"Lower the learning rate (it is {learning_rate:g}), or look for broken weights in the model.",
    )
