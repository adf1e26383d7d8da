"""How small may a student be? ``python -m benchmarks.distillation_sizes TEACHERS DATA [--quick] [--records FILE]``.

Students of ``benchmarks.distillation``, trained longer, then cut to a size and run as they are delivered: the ONNX
model and the tokenizer on disk, in ONNX Runtime, one document at a time.

* half: three layers of the teacher's, floats (DistilBERT keeps 97 % of its teacher's score at half the layers).
* a seventh: cut from the teacher: four layers, of whose heads a third and of whose neurons a seventh are left, those
  whose removal moves the logits least, made up for by least squares; fewer tokens in a table of rank 128; floats: 7.5
  times fewer parameters than the teacher at least (TinyBERT keeps 96.8 %).
* 1.91 MB: EI-BERT's whole pipeline. 2 layers x 128 with fewer tokens, by the attention that the teacher gives these;
  trained; then int8 in all linears of the layers and 4 bits in the token table.
* 1.91 MB, cut: the seventh with fewer tokens, a narrower table, and positions that documents reach alone, at 4 bits.

Three seeds of the order of documents, dropout and the new classifier; ± is the standard error over these.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from torch import nn

from autocompress.compiler.build import build
from autocompress.compression import quantization
from autocompress.compression.method import Space
from autocompress.compression.methods import apply_plan, draw
from autocompress.compression.quantization import QuantizeStep
from autocompress.compression.recipes.fit import fit
from autocompress.compression.recipes.table import RECIPES
from autocompress.compression.vocabulary import VocabularyStep
from autocompress.engines import open_artifact
from autocompress.evaluation.task import predict_with
from autocompress.evaluation.text_classification import TextClassification
from autocompress.models.load import adapter_of
from autocompress.pipeline.candidates import Students
from autocompress.pipeline.teacher import Teacher
from autocompress.pipeline.vocabulary import Vocabularies
from autocompress.plan import Chosen, CompressionPlan, Positions, RecipeName, Rounding
from autocompress.shape import WEIGHT_GROUP, Bits, EmbeddingBits, WeightGroup, by_block
from benchmarks.distillation_rows import BATCH, Pupils, Start
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("trec6", "sst2")
SEEDS = (0, 1, 2)
ALIGN = 16
"""Neurons are kept in multiples of this."""
CALIBRATION_BATCHES = 8
"""Where rounding reads documents."""


@dataclass(frozen=True)
class Cut:
    """Of the teacher: so many layers, shares of heads and neurons (0 to 1), and channels of the token table."""

    depth: int
    heads_keep: float
    ffn_keep: float
    rank: int


@dataclass(frozen=True)
class Size:
    """What is made of a start.

    Attributes:
        start: What is trained.
        recipe: How.
        steps: Of training.
        rate: Its peak.
        tokens: That are kept; 0: all.
        bits: Of linear weights in layers.
        table_bits: Of the token table.
        goal: Least share of the teacher's accuracy (0 to 1).
        limit_bytes: Of model and tokenizer together; 0: none.
        fewer: Times that the teacher has more parameters, at least.
        rounding: Of weights in layers.
        group: Of these, below 8 bits.
        head_bits: Of the head.
        positions: Which are left.
    """

    start: Start | Cut
    recipe: RecipeName
    steps: int
    rate: float
    tokens: int
    bits: Bits
    table_bits: EmbeddingBits
    goal: float
    limit_bytes: int = 0
    fewer: float = 1.0
    rounding: Rounding = "nearest"
    group: WeightGroup = WEIGHT_GROUP
    head_bits: Bits = 32
    positions: Positions = "all"


SIZES: dict[str, Size] = {
    "half": Size("half", "steady_hidden", 1000, 2e-4, 0, 32, 32, 0.98),
    "a seventh": Size(Cut(4, 0.34, 0.15, 128), "steady", 1500, 2e-4, 8850, 32, 32, 0.97, fewer=7.5),
    "1.91 MB": Size("tiny", "steady", 3000, 3e-4, 9000, 8, 4, 0.92, limit_bytes=1_910_000),
    "1.91 MB, cut": Size(
        Cut(4, 0.34, 0.15, 96),
        *("steady", 1500, 2e-4, 7300, 4, 4, 0.92),
        limit_bytes=1_910_000,
        rounding="optq",
        group=128,
        head_bits=4,
        positions="task",
    ),
}


@dataclass(frozen=True)
class Setting:
    """One student: of a task, of a key of ``SIZES``, with a seed, and the share of its full training."""

    task: str
    size: str
    seed: int
    share: float = 1.0


@dataclass(frozen=True)
class Delivered:
    """What came of it, on the test split.

    Attributes:
        setting: Which.
        accuracy: Of the delivered model (0 to 1).
        trained: Of the student before it was rounded.
        model_bytes: Of the ONNX file.
        tokenizer_bytes: Of the tokenizer's file.
        parameters: In the student.
        cpu_s: Of training, on one thread.
    """

    setting: Setting
    accuracy: float
    trained: float
    model_bytes: int
    tokenizer_bytes: int
    parameters: int
    cpu_s: float


def deliver(pupils: Pupils, vocabularies: Vocabularies, setting: Setting) -> Delivered:
    """Make one student, write it down, and run what was written."""
    size = SIZES[setting.size]
    plan = CompressionPlan((VocabularyStep(size.tokens),) if size.tokens else ())
    task = vocabularies.task(plan)
    context = replace(pupils.context(task, vocabularies.translation(plan)), token_order=vocabularies.order)
    if isinstance(size.start, Cut):
        student = cut(pupils.teacher, size)
    else:
        student = apply_plan(pupils.start(size.start, setting.seed), plan, context)
    begun = time.process_time()
    steps = max(1, round(size.steps * setting.share))
    fit(student, RECIPES[size.recipe], context, steps=steps, learning_rate=size.rate, seed=setting.seed)
    cpu_s = time.process_time() - begun
    trained = task.evaluate(predict_with(student.eval()), "test").value
    parameters = sum(parameter.numel() for parameter in student.parameters())
    if size.bits != 32:
        student = quantization.apply(student, _rounding(size, len(adapter_of(student).layers(student))), context)
    with tempfile.TemporaryDirectory() as folder:
        model_bytes, accuracy = _written(student, task, Path(folder))
        task.tokenizer.save_pretrained(folder)
        tokenizer_bytes = (Path(folder) / "tokenizer.json").stat().st_size
    return Delivered(setting, accuracy, trained, model_bytes, tokenizer_bytes, parameters, round(cpu_s, 1))


def _rounding(size: Size, layers: int) -> QuantizeStep:
    each = (size.bits,) * layers
    return QuantizeStep(
        *by_block(each, each),
        size.table_bits,
        size.rounding,
        CALIBRATION_BATCHES,
        seed=0,
        weight_group=size.group,
        head_bits=size.head_bits,
    )


def cut(teacher: Teacher, size: Size) -> nn.Module:
    """Return what is left of a teacher, repaired and not trained."""
    how = size.start
    assert isinstance(how, Cut)
    students = Students(teacher, batch_size=BATCH, seed=0, coverage=0.0)
    space = Space(
        depth=(how.depth,),
        heads_keep=(how.heads_keep,),
        ffn_keep=(how.ffn_keep,),
        heads_order=("kron_obs",),
        neurons_order=("kron_obs",),
        allocation=("global",),
        align=ALIGN,
        repair=("least_squares",),
        vocabulary_keep=(size.tokens / teacher.shape.vocabulary,),
        positions=size.positions,
        max_tokens=teacher.task.max_tokens,
        tokens_keep=("all",),
        embedding_rank=(how.rank,),
        attention_bits=(32,),
        ffn_bits=(32,),
        embedding_bits=(32,),
    )
    return students.make(draw(Chosen({}), teacher.shape, students.informed(space)))


def _written(student: nn.Module, task: TextClassification, folder: Path) -> tuple[int, float]:
    """Return the bytes of the ONNX model, and its accuracy in ONNX Runtime."""
    adapter = adapter_of(student)
    artifact = build(
        adapter.shape(student), adapter.weights(student), folder / "model", engine="onnxruntime", tokens=task.max_tokens
    )
    run = open_artifact(artifact, threads=1)
    return artifact.path.stat().st_size, task.evaluate(run, "test", batch_size=1).value


def report(found: Sequence[Delivered], teachers: dict[str, tuple[float, int]]) -> list[dict[str, object]]:
    """Print a table, and return its rows; a goal is met by the mean over seeds."""
    rows: list[dict[str, object]] = []
    for task, size in dict.fromkeys((each.setting.task, each.setting.size) for each in found):
        cell = [each for each in found if (each.setting.task, each.setting.size) == (task, size)]
        accuracy, parameters = teachers[task]
        bytes_ = max(each.model_bytes + each.tokenizer_bytes for each in cell)
        kept = spread([100 * each.accuracy / accuracy for each in cell])
        rows.append(
            {
                "task": task,
                "size": size,
                "seeds": len(cell),
                "accuracy": spread([100 * each.accuracy for each in cell]),
                "trained": spread([100 * each.trained for each in cell]),
                "kept": kept,
                "goal": 100 * SIZES[size].goal,
                "bytes": bytes_,
                "fewer": round(parameters / cell[0].parameters, 2),
                "met": kept[0] >= 100 * SIZES[size].goal
                and (not SIZES[size].limit_bytes or bytes_ <= SIZES[size].limit_bytes)
                and parameters / cell[0].parameters >= SIZES[size].fewer,
            }
        )
    print_table(
        ["task, size", "seeds", "accuracy", "% of teacher", "goal", "MB in all", "times fewer parameters", "met"],
        [
            [
                f"{row['task']}, {row['size']}",
                str(row["seeds"]),
                *("{:.2f} ± {:.2f}".format(*row[name]) for name in ("accuracy", "kept")),  # type: ignore[misc]
                f"{row['goal']:.0f}",
                f"{int(str(row['bytes'])) / 1e6:.2f}",
                str(row["fewer"]),
                "yes" if row["met"] else "no",
            ]
            for row in rows
        ],
    )
    return rows


def main() -> None:
    """Make what is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 and the smallest size, a hundredth of the steps")
    add_options(parser)
    parser.add_argument("--cache", type=Path, help="keep downloads and the teacher's outputs in this folder")
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Delivered, Setting), lambda each: each.setting)
    wanted = [Setting("trec6", "1.91 MB", 0, 0.01)]
    if not arguments.quick:
        wanted = [Setting(task, size, seed) for seed in SEEDS for size in reversed(SIZES) for task in TASKS]
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        options = {"teachers": arguments.teachers, "data": arguments.data, "cache": cache}
        tutored = {name: load(name, **options) for name in dict.fromkeys(setting.task for setting in wanted)}
        pupils = {name: Pupils(each, cache=cache) for name, each in tutored.items()}
        vocabularies = {name: Vocabularies(each.model, each.task, coverage=0.0) for name, each in tutored.items()}
        found = kept.made(wanted, lambda each: deliver(pupils[each.task], vocabularies[each.task], each))
    figures = {"rows": report(found, {name: _teacher(each) for name, each in tutored.items()})}
    figures |= {"sizes": {name: asdict(size) for name, size in SIZES.items()}}
    finish(
        "distillation_sizes", figures, quick=arguments.quick, details={"delivered": [asdict(each) for each in found]}
    )


def _teacher(tutored: Tutored) -> tuple[float, int]:
    """Return a teacher's accuracy on the test split, and its parameters."""
    found, labels = logits(tutored.model, tutored.task, "test")
    return float((found.argmax(1) == labels).float().mean()), sum(each.numel() for each in tutored.model.parameters())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
