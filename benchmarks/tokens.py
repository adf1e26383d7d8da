"""What does it cost and gain to let fewer tokens go on? ``python -m benchmarks.tokens TEACHERS DATA [--quick]``.

Fine-tuned MiniLM-L6 teachers select tokens by schedules that fall from 32 to a share of them (PoWER-BERT's selection,
without its learnt counts): first as they are, then after a short distillation from themselves. Losses are on the test
split, beside the teacher on the same documents; ± is the standard error over documents or, after training, over seeds.
Times are medians of one sentence of 32 and of 128 tokens, random weights, one thread, the schedules taking turns.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import nn

from autocompress.compiler.build import BUILDERS, build
from autocompress.compiler.graph import random_weights
from autocompress.compression import distillation
from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.quantization import reshape as quantized
from autocompress.compression.recipes.teacher import TeacherOutputs
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of, load_shape
from autocompress.pipeline.teacher import training_batches
from autocompress.shape import Bits, ModelShape, TokenShare, by_block
from benchmarks.l2p import spread
from benchmarks.pruning import TASKS, Judge
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load

TOKENS = 32
"""From which schedules fall; sentences of SST-2 have up to 64 tokens, in the median 24; of TREC-6 up to 24."""
SHARES: tuple[TokenShare, ...] = (1.0, 0.75, 0.5, 0.25, 0.125)
TRAINED: tuple[TokenShare, ...] = (0.25, 0.125)
SEEDS = (0, 1, 2)
STEPS, RATE, BATCH = 100, 5e-5, 32
LENGTHS, BITS, ROUNDS = (32, 128), (32, 8), 40


def selecting(model: nn.Module, share: TokenShare) -> nn.Module:
    """Return a copy of ``model`` whose tokens fall to ``share`` of ``TOKENS``."""
    student = copy.deepcopy(model)
    adapter = adapter_of(student)
    scheduled = adapter.shape(student).with_schedule(share, TOKENS)
    adapter.select_tokens(student, [layer.most_tokens for layer in scheduled.layers])
    return student


def losses(tutored: Tutored, *, shares: Sequence[TokenShare], seeds: Sequence[int], steps: int) -> Iterator[dict]:
    """Yield the points that each share loses, untrained and, for those of ``TRAINED``, after ``steps``."""
    judge, task = Judge(tutored), tutored.task
    context = Context(
        lambda count, seed: training_batches(task, count, batch_size=BATCH, seed=seed),
        TeacherOutputs(tutored.model),
    )
    for share in shares:
        loss, error = judge.loss(selecting(tutored.model, share))
        yield {"task": tutored.name, "share": share, "loss": loss, "error": error}
        for seed in seeds if share in TRAINED else ():
            step = DistillStep(steps, RATE, seed, "self_distillation")
            loss, error = judge.loss(distillation.apply(selecting(tutored.model, share), step, context))
            yield {"task": tutored.name, "share": share, "seed": seed, "loss": loss, "error": error}


def times(shape: ModelShape, *, tokens: int, bits: Bits, rounds: int) -> list[dict]:
    """Return for each engine and share the median latency in milliseconds, and its ratio to that of all tokens."""
    depth = len(shape.layers)
    whole = quantized(shape, QuantizeStep(*by_block((bits,) * depth, (bits,) * depth), bits))
    rows = []
    given = of_text(np.random.default_rng(0).integers(0, shape.vocabulary, (1, tokens)))
    with tempfile.TemporaryDirectory() as folder:
        for engine in BUILDERS:
            runs = {}
            for share in ("all", *SHARES):
                student = whole.with_schedule(share, tokens)
                stem = Path(folder, f"{engine}-{share}")
                artifact = build(student, random_weights(student), stem, engine=engine, tokens=tokens)
                runs[share] = open_artifact(artifact, threads=1)
            spent: dict[TokenShare, list[float]] = {share: [] for share in runs}
            for _ in range(rounds):
                for share, run in runs.items():
                    start_s = time.perf_counter()
                    run(given)
                    spent[share].append(1e3 * (time.perf_counter() - start_s))
            dense = median(spent["all"])
            rows += [
                {"engine": engine, "tokens": tokens, "bits": bits, "share": share,
                 "ms": round(median(each), 3), "ratio": round(median(each) / dense, 3)}
                for share, each in spent.items()
            ]  # fmt: skip
    return rows


def main() -> None:
    """Select, train, time and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, nothing trained, 32 tokens, few rounds")
    arguments = parser.parse_args()
    tasks, seeds, lengths, rounds = (
        (TASKS[1:], (), LENGTHS[:1], 10) if arguments.quick else (TASKS, SEEDS, LENGTHS, ROUNDS)
    )
    shape = load_shape(arguments.teachers / f"minilm-l6-{TASKS[0]}")
    timed = [
        row for bits in BITS for tokens in lengths for row in times(shape, tokens=tokens, bits=bits, rounds=rounds)
    ]
    print_times(timed)
    lost: list[dict] = []
    with tempfile.TemporaryDirectory() as cache:
        for name in tasks:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            lost += losses(tutored, shares=SHARES, seeds=seeds, steps=STEPS)
    figures = {"losses": summed(lost), "times": timed}
    finish("tokens", figures, quick=arguments.quick, details={"losses": lost})


def print_times(rows: Sequence[dict]) -> None:
    """Print medians, and their ratios to all tokens."""
    cells: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        place = (row["engine"], str(row["bits"]), str(row["tokens"]))
        cells.setdefault(place, []).append(f"{row['ms']:.2f} ({row['ratio']:.2f})")
    header = ["engine", "bits", "tokens", *map(str, ("all", *SHARES))]
    print_table(header, [[*place, *found] for place, found in cells.items()])


def summed(lost: Sequence[dict]) -> list[dict]:
    """Print and return the losses of each task and share, trained ones in the mean over seeds."""
    found, table = [], []
    for task, share in dict.fromkeys((row["task"], row["share"]) for row in lost):
        first, *rest = (row for row in lost if (row["task"], row["share"]) == (task, share))
        trained = spread([row["loss"] for row in rest]) if rest else None
        found.append({"task": task, "share": share, "untrained": first["loss"], "trained": trained})
        after = "{:.2f} ± {:.2f}".format(*trained) if trained else ""
        table.append([task, f"{share:.1%}", f"{first['loss']:.2f} ± {first['error']:.2f}", after])
    print_table(["task", f"of {TOKENS} tokens", "points lost, untrained", f"after {STEPS} steps"], table)
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
