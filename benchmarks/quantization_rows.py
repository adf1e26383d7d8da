"""What ``benchmarks.quantization`` measures: one teacher, rounded in one way, scored."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep, apply
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.compression.rounding.aespa import attention
from autocompress.compression.rounding.layer_inputs import LayerInputs
from autocompress.compression.rounding.levels import round_layers
from autocompress.evaluation.text_classification import Batch
from autocompress.models.adapter import LayerModules
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import Rounding
from autocompress.shape import by_block
from benchmarks.teachers import Tutored, logits

BATCH = 32
TABLE_BITS = {32: 32, 8: 8, 4: 4, 3: 4, 2: 4}
"""Of the token table, which is always rounded to nearest, by the bits of all linear weights."""
NO_DATA = Context(batches=lambda steps, seed: [], teacher=TeacherOutputs(nn.Module()))


@dataclass(frozen=True)
class Setting:
    """One way to round one teacher: to how many bits, how, on which draw of calibration documents, and how many."""

    task: str
    bits: int
    rounding: Rounding
    draw: int
    batches: int
    iterations: int


@dataclass(frozen=True)
class Scored:
    """What came of it.

    Attributes:
        setting: How the teacher was rounded.
        accuracy: On the test split.
        error: Of the attention outputs of test documents, see ``attention_error``.
        cpu_s: Processor time that rounding took, on one thread.
    """

    setting: Setting
    accuracy: float
    error: float
    cpu_s: float


def score(tutored: Tutored, setting: Setting, *, documents: int) -> Scored:
    """Round and score; attention is compared on so many test documents."""
    start_s = time.process_time()
    student = rounded(tutored, setting)
    cpu_s = time.process_time() - start_s
    found, labels = logits(student, tutored.task, "test")
    held_out = tutored.task.batches("test", batch_size=BATCH, limit=documents)
    error = attention_error(student, tutored.model, held_out)
    return Scored(setting, float((found.argmax(1) == labels).float().mean()), error, round(cpu_s, 1))


def rounded(tutored: Tutored, setting: Setting) -> nn.Module:
    """Return the student."""
    depth, bits = len(adapter_of(tutored.model).layers(tutored.model)), setting.bits
    linears = (bits if setting.rounding == "nearest" else 32,) * depth
    step = QuantizeStep(*by_block(linears, linears), TABLE_BITS[bits])
    student = apply(copy.deepcopy(tutored.model), step, NO_DATA).eval()
    if setting.rounding != "nearest":
        batches = list(training_batches(tutored.task, setting.batches, batch_size=BATCH, seed=setting.draw))
        pairs = (by_block(bits, bits),) * depth
        round_layers(student, pairs, setting.rounding, batches, iterations=setting.iterations)
    return student


@torch.no_grad()
def attention_error(student: nn.Module, teacher: nn.Module, batches: Sequence[Batch]) -> float:
    """Return how far rounded queries, keys and values move what attention gives: root of |SA' - SA|^2 / |SA|^2.

    In the mean over layers. Both see what reaches the layer in the student, so that errors of layers do not add up.
    """
    errors, inputs = [], LayerInputs(student, batches)
    layers = (adapter_of(model).layers(model) for model in (student, teacher))
    for ours, theirs in zip(*layers, strict=True):
        moved = whole = 0.0
        for x, real in inputs.of(ours.query):
            expected = _attended(theirs, x, real)
            moved += float((_attended(ours, x, real) - expected).square().sum())
            whole += float(expected.square().sum())
        errors.append((moved / whole) ** 0.5)
        inputs.advance()
    return sum(errors) / len(errors)


def _attended(layer: LayerModules, x: Tensor, real: Tensor) -> Tensor:
    """Return A V of the real tokens (heads x tokens x head width)."""
    shares = attention(x, real, layer.get(layer.query), layer.get(layer.key), head_width=layer.head_width)
    values = layer.get(layer.value)(x).reshape(*x.shape[:2], -1, layer.head_width).permute(2, 0, 1, 3)
    return (shares @ values)[:, real]
