"""Whose 8 and 4 bits lose least? ``python -m benchmarks.peer_accuracy TEACHERS DATA [--quick]``.

Fine-tuned MiniLM-L6 teachers, rounded by AutoCompress and built for ONNX Runtime, and rounded by the tools of ONNX
Runtime and OpenVINO (NNCF) on the same model and the same calibration documents. All score on the test split, one
document at a time, without padding. Points are lost against the teacher in f32; ± is the standard error over documents.
OpenVINO keeps the token table at 8 bits where weights have 4, and computes them in floats.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
from collections.abc import Iterator, Sequence
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

from autocompress.compression.method import Context
from autocompress.compression.quantization import QuantizeStep, apply
from autocompress.cost import Artifact
from autocompress.engines import ENGINES
from autocompress.evaluation.text_classification import TextClassification
from autocompress.feeds import Run
from autocompress.models.load import adapter_of
from autocompress.pipeline.finalists import export
from autocompress.pipeline.teacher import training_batches
from autocompress.plan import Rounding
from autocompress.shape import Bits, by_block
from autocompress.training.batches import arrays_of
from benchmarks.peer_worker import PEER_ENGINES
from benchmarks.peers import (
    NAMES,
    PRODUCTS,
    Contestant,
    Subject,
    convert,
    round_blocks,
    round_dynamic,
    round_static,
    silenced,
)
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load

TASKS = ("sst2", "trec6")
BATCHES, BATCH = 8, 32
"""Calibration: training documents, without labels."""


def ours(bits: Bits, rounding: Rounding, tutored: Tutored, batches: int, subject: Subject) -> Artifact:
    """Round as a search would, and build for ONNX Runtime."""
    depth = len(adapter_of(tutored.model).layers(tutored.model))
    step = QuantizeStep(*by_block((bits,) * depth, (bits,) * depth), bits, rounding, batches)
    context = Context(
        lambda count, seed: training_batches(tutored.task, count, batch_size=BATCH, seed=seed), lambda batch: batch
    )
    student = apply(copy.deepcopy(tutored.model), step, context).eval()
    return export(student, subject.folder / f"ours-{bits}-{rounding}", "onnxruntime", subject.tokens)


def contestants(tutored: Tutored, batches: int) -> list[Contestant]:
    """Return all rows but the teacher's."""

    def own(bits: Bits, rounding: Rounding) -> Contestant:
        build = partial(ours, bits, rounding, tutored, batches)
        return Contestant(f"autocompress {NAMES[bits]}, {rounding}", bits, build, quick=True, peer=False)

    def static(ranges: str, operators: tuple[str, ...] | None) -> Contestant:
        name = f"onnxruntime int8 static{'' if operators is None else ' products'}, {ranges}"
        return Contestant(name, 8, partial(round_static, operators=operators, ranges=ranges))

    openvino, blocks = partial(convert, source="onnx"), ("onnx_ir",)
    nncf = ("openvino", "nncf")
    return [
        own(8, "nearest"),
        own(8, "optq"),
        Contestant("onnxruntime int8 dynamic", 8, round_dynamic, quick=True),
        *(static(ranges, operators) for ranges in ("MinMax", "Percentile") for operators in (None, PRODUCTS)),
        Contestant("nncf int8", 8, partial(openvino, bits=8), needs=nncf),
        *(own(4, rounding) for rounding in ("nearest", "optq", "descent")),
        Contestant("onnxruntime int4", 4, round_blocks, quick=True, needs=blocks),
        Contestant("onnxruntime int4, zero points", 4, partial(round_blocks, symmetric=False), needs=blocks),
        Contestant("nncf int4", 4, partial(openvino, bits=4), needs=nncf),
        *(
            Contestant(f"nncf int4, {fitted}", 4, partial(openvino, bits=4, fitted=fitted), needs=nncf)
            for fitted in ("awq", "scale_estimation")
        ),
    ]


def hits(run: Run, task: TextClassification) -> np.ndarray:
    """Return (documents,) 1 where the class is right, in the order of the split."""
    found = np.zeros(len(task.dataset.test))
    for batch in task.batches("test", batch_size=1):
        logits = run(arrays_of(batch))
        found[batch.indices.numpy()] = logits.argmax(1) == batch.labels.numpy()
    return found


def rows(tutored: Tutored, folder: Path, *, batches: int, quick: bool) -> Iterator[dict]:
    """Yield what each contestant loses; one that fails says why."""
    split = training_batches(tutored.task, batches, batch_size=BATCH, seed=0)
    documents = [
        (ids[mask == 1][None].numpy(), mask[mask == 1][None].numpy())
        for batch in split
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]
    subject = Subject(tutored.model, tutored.task.max_tokens, folder, documents)
    opens = {**ENGINES, **PEER_ENGINES}
    floats = Artifact(subject.exported, "onnxruntime", subject.tokens)
    teacher = hits(opens[floats.engine](floats, threads=1), tutored.task)
    yield described(tutored.name, "teacher f32", 32, teacher, teacher, floats)
    for row in contestants(tutored, batches):
        if row.missing or (quick and not row.quick):
            print(f"left out: {row.name} ({', '.join(row.missing) or 'quick'})", flush=True)
            continue
        try:
            with silenced():
                artifact = row.build(subject)
                right = hits(opens[artifact.engine](artifact, threads=1), tutored.task)
        except Exception as error:  # noqa: BLE001 - a peer's tool may fail in any way; its row says how
            print(f"failed: {row.name}: {type(error).__name__}: {error}", flush=True)
            continue
        yield described(tutored.name, row.name, row.bits, teacher, right, artifact)


def described(
    task: str, name: str, bits: Bits, teacher: np.ndarray, right: np.ndarray, artifact: Artifact
) -> dict[str, object]:
    """Return a row."""
    lost = 100 * (teacher - right)
    return {
        "task": task,
        "name": name,
        "bits": bits,
        "accuracy": round(float(100 * right.mean()), 3),
        "loss": round(float(lost.mean()), 3),
        "error": round(float(lost.std(ddof=1)) / len(lost) ** 0.5, 3),
        "megabytes": round(artifact.path.stat().st_size / 1e6, 2),
    }


def best(found: Sequence[dict], bits: Bits) -> dict[str, dict[str, float]]:
    """Return, by task, the least that one of ours and one of the peers lose at so many bits."""
    losses: dict[str, dict[str, float]] = {}
    for row in found:
        if row["bits"] == bits:
            whose = "ours" if row["name"].startswith("autocompress") else "peers"
            task = losses.setdefault(row["task"], {})
            task[whose] = min(task.get(whose, np.inf), row["loss"])
    return losses


def main() -> None:
    """Round, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 alone, few rows, few documents for calibration")
    arguments = parser.parse_args()
    tasks, batches = (TASKS[1:], 2) if arguments.quick else (TASKS, BATCHES)
    found: list[dict] = []
    for name in tasks:
        with tempfile.TemporaryDirectory() as cache, tempfile.TemporaryDirectory() as folder:
            tutored = load(name, teachers=arguments.teachers, data=arguments.data, cache=Path(cache))
            for row in rows(tutored, Path(folder), batches=batches, quick=arguments.quick):
                found.append(row)
                print(row, flush=True)
    print_table(
        ["task", "recipe", "accuracy", "points lost", "MB"],
        [
            [
                row["task"],
                row["name"],
                f"{row['accuracy']:.2f}",
                f"{row['loss']:.2f} ± {row['error']:.2f}",
                f"{row['megabytes']:.1f}",
            ]
            for row in found
        ],
    )
    figures = {"rows": found, "least_lost": {str(bits): best(found, bits) for bits in (8, 4)}}
    peers = {name: version(name) for name in ("openvino", "nncf", "onnx-ir") if find_spec(name.replace("-", "_"))}
    details = {"calibration_batches": batches, "batch_size": BATCH, "versions_of_peers": peers}
    finish("peer_accuracy", figures, quick=arguments.quick, details=details)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
