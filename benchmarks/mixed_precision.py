"""What do shared bits gain? ``python -m benchmarks.mixed_precision TEACHERS DATA [--quick]``.

Linear maps of fine-tuned MiniLM-L6 teachers at 2 to 8 bits: equal bits in all layers, and the bits that a search shares
among attention and feed-forward parts by how far rounding each moves the logits, in no more bytes. Weights are rounded
to nearest and by OPTQ, the token table at 4 bits; nothing is trained, labels are not read. Points are lost on the test
split beside the teacher on the same documents; ± is the standard error over these.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch

from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep, apply
from autocompress.compression.rounding.sensitivity import bits_in_memory, sensitivities, share_bits
from autocompress.models.load import adapter_of
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import Rounding
from autocompress.shape import Bits, ModelShape, by_block
from benchmarks.pruning import TASKS, Judge
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load

WIDTHS: tuple[Bits, ...] = (8, 4, 2)
EQUAL: tuple[tuple[Bits, Bits], ...] = ((8, 4), (4, 4), (4, 2), (2, 4))
"""Bits of all attention and of all feed-forward weights, which bound the bytes of the shared ones."""
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "optq")
BATCHES, BATCH = 8, 32


def megabytes(shape: ModelShape, *groups: Sequence[Bits]) -> float:
    """Return what the linear maps of all layers take, scales included, where each of four groups has these bits."""
    bits = 0.0
    for layer, *widths in zip(shape.layers, *groups, strict=True):
        outer = shape.hidden * layer.attention, shape.hidden * layer.ffn
        weights = 3 * outer[0], outer[0], outer[1], outer[1]
        bits += sum(count * bits_in_memory(width) for count, width in zip(weights, widths, strict=True))
    return round(bits / 8e6, 3)


def rows(
    tutored: Tutored, *, equal: Sequence[tuple[Bits, Bits]], roundings: Sequence[Rounding], batches: int
) -> Iterator[dict]:
    """Yield what each choice of bits loses."""
    judge, shape = Judge(tutored), adapter_of(tutored.model).shape(tutored.model)
    context = Context(
        lambda count, seed: training_batches(tutored.task, count, batch_size=BATCH, seed=seed), lambda batch: batch
    )
    start_s = time.process_time()
    documents = list(context.batches(batches, 0))
    found = sensitivities(tutored.model, documents, attention_bits=WIDTHS, ffn_bits=WIDTHS)
    print(f"{tutored.name}: sensitivities took {time.process_time() - start_s:.0f} s of one thread", flush=True)
    depth = len(shape.layers)
    for attention, ffn in equal:
        equally = by_block((attention,) * depth, (ffn,) * depth)
        ways = {"equal": equally, "shared": share_bits(shape, found, attention, ffn)}
        for rounding in roundings:
            for name, bits in ways.items():
                step = QuantizeStep(*bits, 4, rounding, batches)
                loss, error = judge.loss(apply(copy.deepcopy(tutored.model), step, context).eval())
                yield {
                    "task": tutored.name, "bound": [attention, ffn], "rounding": rounding, "way": name, "bits": bits,
                    "megabytes": megabytes(shape, *bits), "loss": loss, "error": error,
                }  # fmt: skip


def main() -> None:
    """Share, round, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, one bound, to nearest, few documents")
    arguments = parser.parse_args()
    tasks, equal, roundings, batches = TASKS, EQUAL, ROUNDINGS, BATCHES
    if arguments.quick:
        tasks, equal, roundings, batches = TASKS[1:], EQUAL[-1:], ROUNDINGS[:1], 2
    found: list[dict] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in tasks:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            found += rows(tutored, equal=equal, roundings=roundings, batches=batches)
    print_table(
        ["task, bound, rounding", "way", "MB", "points lost", "attention in", "out", "feed-forward in", "out"],
        [
            [
                f"{row['task']} {'/'.join(map(str, row['bound']))} {row['rounding']}",
                row["way"],
                f"{row['megabytes']:.2f}",
                f"{row['loss']:.2f} ± {row['error']:.2f}",
                *("".join(map(str, bits)) for bits in row["bits"]),
            ]
            for row in found
        ],
    )
    details = {"calibration_batches": batches, "batch_size": BATCH}
    finish("mixed_precision", {"rows": found}, quick=arguments.quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
