"""What does training with rounded weights recover? ``python -m benchmarks.quantization_aware TEACHERS DATA [--quick]``.

The MiniLM-L6 teacher of TREC-6 with all linear weights at 2 and 4 bits, activations at 8 as the model runs, the token
table at 4: rounded alone; distilled as floats and rounded then; rounded and trained on, from the levels or from the
floats behind them. All are trained by the same loss on the same batches, so many steps. A seed decides their order,
dropout, and calibration documents. Points are lost on the test split beside the teacher on the same documents.
``--minutes`` ends it between two runs, and the table says how many seeds a row has.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from autocompress.compression import distillation, quantization, quantization_aware
from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.quantization_aware import QuantizationAwareStep
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.models.load import adapter_of
from autocompress.models.quantized import QuantizedLinear
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import Rounding
from autocompress.shape import Bits, by_block
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table
from benchmarks.recovery import score
from benchmarks.teachers import Tutored, load

TASK = "trec6"
CELLS: tuple[tuple[Bits, Rounding], ...] = ((2, "nearest"), (2, "optq"), (4, "optq"), (4, "nearest"))
ALONE, BEFORE, LEVELS, FLOATS = "rounded alone", "distilled, then rounded", "aware, from levels", "aware, from floats"
WAYS = (ALONE, FLOATS, BEFORE, LEVELS)
SEEDS = (0, 1, 2)
STEPS, RATE = 150, 1e-4
"""Of training; the rate is the default of a search, before rounding and after it."""
BATCHES, BATCH = 8, 32
"""Calibration batches of OPTQ, and documents in a batch."""


@dataclass(frozen=True)
class Setting:
    """One student: how it is rounded, and how it is trained (``WAYS``)."""

    bits: Bits
    rounding: Rounding
    way: str
    seed: int
    steps: int


@dataclass(frozen=True)
class Trained:
    """What came of it.

    Attributes:
        setting: Which.
        hits: 1 or 0 for every test document: whether its class is right.
        nll: The mean negative log likelihood of the test labels, in nats.
        moved: Share of the linear weights that have another level than before they were trained on.
        cpu_s: Processor time of rounding and training, on one thread.
    """

    setting: Setting
    hits: str
    nll: float
    moved: float
    cpu_s: float

    @property
    def right(self) -> np.ndarray:
        """(documents,) 100 where the class is right, else 0."""
        return 100.0 * (np.frombuffer(self.hits.encode(), np.uint8) == ord("1"))


class Trainer:
    """Makes the students of one teacher; floats of one seed are distilled once."""

    def __init__(self, tutored: Tutored) -> None:
        self.tutored, self.depth = tutored, len(adapter_of(tutored.model).layers(tutored.model))
        self.context = Context(
            lambda steps, seed: training_batches(tutored.task, steps, batch_size=BATCH, seed=seed),
            TeacherOutputs(tutored.model),
        )
        self._distilled = cache(self._distil)

    def __call__(self, setting: Setting) -> Trained:
        """Make and score a student."""
        start_s = time.process_time()
        floats = self._distilled(setting.seed, setting.steps) if setting.way == BEFORE else self.tutored.model
        widths = (setting.bits,) * self.depth
        step = QuantizeStep(*by_block(widths, widths), 4, setting.rounding, BATCHES, setting.seed)
        student = quantization.apply(copy.deepcopy(floats), step, self.context).eval()
        moved = 0.0
        if setting.way in (FLOATS, LEVELS):
            before = _levels(student)
            aware = QuantizationAwareStep(setting.steps, RATE, setting.seed)
            context = replace(self.context, unrounded=floats if setting.way == FLOATS else None)
            quantization_aware.apply(student, aware, context)
            moved = float((_levels(student) != before).float().mean())
        cpu_s = time.process_time() - start_s
        return Trained(setting, *score(student, self.tutored), round(moved, 4), round(cpu_s, 1))

    def _distil(self, seed: int, steps: int) -> nn.Module:
        model = copy.deepcopy(self.tutored.model)
        return distillation.apply(model, DistillStep(steps, RATE, seed), self.context).eval()


def _levels(model: nn.Module) -> torch.Tensor:
    return torch.cat([module.weight.flatten() for module in model.modules() if isinstance(module, QuantizedLinear)])


def settings(*, quick: bool, steps: int) -> list[Setting]:
    """Return what is measured: all of one seed before the next."""
    if quick:
        return [Setting(2, "nearest", way, 0, 20) for way in WAYS[:3]]
    return [Setting(bits, rounding, way, seed, steps) for seed, way, (bits, rounding) in product(SEEDS, WAYS, CELLS)]


def report(found: Sequence[Trained], teacher: np.ndarray) -> list[dict[str, Any]]:
    """Print and return a row for each way to make a student: means and standard errors over seeds.

    The second error of points lost is over test documents, of each one's mean over seeds.

    Args:
        found: Students of equal steps.
        teacher: (documents,) 100 where the teacher is right, else 0.
    """
    rows: list[dict[str, Any]] = []
    for key in dict.fromkeys((run.setting.bits, run.setting.rounding, run.setting.way) for run in found):
        cell = [run for run in found if (run.setting.bits, run.setting.rounding, run.setting.way) == key]
        lost = np.array([teacher - run.right for run in cell])
        rows.append(
            {
                **dict(zip(("bits", "rounding", "way"), key, strict=True)),
                "seeds": len(cell),
                "lost": spread([float(row.mean()) for row in lost]),
                "over_documents": round(float(lost.mean(0).std(ddof=1)) / lost.shape[1] ** 0.5, 3),
                "nll": spread([run.nll for run in cell]),
                "moved": round(float(np.mean([run.moved for run in cell])), 4),
                "cpu_s": round(float(np.mean([run.cpu_s for run in cell])), 1),
            }
        )
    print_table(
        ["weights", "way", "seeds", "points lost (over seeds, documents)", "nll", "levels moved", "CPU seconds"],
        [
            [
                f"W{row['bits']} {row['rounding']}",
                row["way"],
                str(row["seeds"]),
                f"{row['lost'][0]:.2f} ± {row['lost'][1]:.2f} ({row['over_documents']:.2f})",
                f"{row['nll'][0]:.3f} ± {row['nll'][1]:.3f}",
                f"{100 * row['moved']:.1f} %",
                f"{row['cpu_s']:.0f}",
            ]
            for row in rows
        ],
    )
    return rows


def main() -> None:
    """Train what is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="2 bits from nearest alone, one seed, 20 steps")
    parser.add_argument("--steps", type=int, default=STEPS, help="of training")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Trained, Setting), lambda run: run.setting)
    with tempfile.TemporaryDirectory() as cache_folder:
        tutored = load(TASK, teachers=arguments.teachers, data=arguments.data, cache=Path(cache_folder))
    hits, nll = score(tutored.model, tutored)
    teacher = 100.0 * (np.frombuffer(hits.encode(), np.uint8) == ord("1"))
    print(f"the teacher: {teacher.mean():.2f} % right, nll {nll:.3f}", flush=True)
    wanted = settings(quick=arguments.quick, steps=arguments.steps)
    found = kept.made(wanted, Trainer(tutored))
    figures = {"teacher": round(float(teacher.mean()), 2), "teacher_nll": nll, "rows": report(found, teacher)}
    details = {
        "runs": [{**asdict(run), "hits": None, "accuracy": round(float(run.right.mean()), 3)} for run in found],
        "rate": RATE,
    }
    finish("quantization_aware", figures, quick=arguments.quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
