"""The state of a training on disk, from which a process that was killed goes on as if nothing had happened."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autocompress.training.device import device_of, random_state, set_random_state


@dataclass(frozen=True)
class Checkpoint:
    """Where trainings leave their states, and how often.

    A state is found by all that decides the training but its data and loss: settings, and weights at the start. The
    folder is for trainings that agree in data and loss wherever they agree in all that. A finished training leaves its
    end there, so that it is not repeated before what came of it is safe: who owns the folder discards it then.

    Attributes:
        folder: Made when it is needed.
        seconds: Between two writes; at 0 there is one a step.
        clock: Tells seconds.
    """

    folder: Path
    seconds: float = 120.0
    clock: Callable[[], float] = field(default=time.monotonic, compare=False)

    def discard(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)


class SavedState:
    """The state of one training: weights, buffers, moments of AdamW, random numbers and the losses so far.

    Args:
        checkpoint: Where and how often.
        model: At the start of the training, on its device; fitted in place.
        optimizer: Over parameters of the model.
        settings: What else decides the training, as JSON values.
    """

    def __init__(
        self, checkpoint: Checkpoint, model: nn.Module, optimizer: torch.optim.Optimizer, settings: object
    ) -> None:
        self._checkpoint, self._model, self._optimizer = checkpoint, model, optimizer
        self._device = device_of(model)
        self._path = checkpoint.folder / f"{_key(model, settings)}.safetensors"
        self._written_s = checkpoint.clock()
        self._tensors: dict[str, Tensor] = {}

    def resume(self, batches: Iterator[object], steps: int) -> list[float]:
        """Make all what it was when the state was written, pass over the batches that were read, and return the losses.

        Nothing happens where nothing is kept. Where all ``steps`` were taken, no batch is read.
        """
        try:
            tensors = load_file(self._path)
        except (OSError, SafetensorError):
            return []
        losses = [float(loss) for loss in tensors["losses"]]
        if len(losses) < steps:
            deque(islice(batches, len(losses)), maxlen=0)
        self._restore(tensors)  # Last: batches may draw random numbers.
        return losses

    @torch.no_grad()
    def _restore(self, tensors: dict[str, Tensor]) -> None:
        moments: dict[str, dict[str, Tensor]] = {}
        for name, tensor in tensors.items():
            if name.startswith("moment/"):
                _, moment, fitted = name.split("/")
                moments.setdefault(fitted, {})[moment] = tensor.to(self._device)
        for name, tensor in _tensors(self._model):
            tensor.copy_(tensors[f"model/{name}"])
        for name, parameter in self._model.named_parameters():
            if name in moments:
                self._optimizer.state[parameter] = moments[name]
        kinds = ("cpu", self._device.type)
        set_random_state(self._device, {kind: tensors[f"random/{kind}"] for kind in kinds})

    def write(self, losses: list[float], *, ended: bool) -> None:
        """Write the state, if it is time or training has ended; a full disk costs the checkpoint alone."""
        if not ended and self._checkpoint.clock() - self._written_s < self._checkpoint.seconds:
            return
        draft = self._path.with_name(f".{self._path.name}-{os.getpid()}")
        # Nothing is synced: what a crash of the machine, unlike one of the program, leaves in pieces is not read.
        with suppress(OSError, SafetensorError):
            draft.parent.mkdir(parents=True, exist_ok=True)
            save_file(self._state(losses, ended=ended), draft)
            draft.replace(self._path)
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        self._written_s = self._checkpoint.clock()

    def _state(self, losses: list[float], *, ended: bool) -> dict[str, Tensor]:
        state = {f"model/{name}": tensor for name, tensor in _tensors(self._model)}
        for name, parameter in () if ended else self._model.named_parameters():
            for moment, tensor in self._optimizer.state.get(parameter, {}).items():
                state[f"moment/{moment}/{name}"] = tensor
        state |= {f"random/{kind}": tensor for kind, tensor in random_state(self._device).items()}
        # Of copies none shares its memory with another, which the format refuses.
        copies = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
        return copies | {"losses": torch.tensor(losses, dtype=torch.float64)}


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield parameters and buffers by name, shared ones once."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _key(model: nn.Module, settings: object) -> str:
    digest = hashlib.sha256(json.dumps([settings, torch.__version__]).encode())
    for name, tensor in _tensors(model):
        digest.update(repr((name, tensor.dtype, tuple(tensor.shape), tensor.requires_grad)).encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:32]
