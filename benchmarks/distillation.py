"""Which recipe of distillation pays? ``python -m benchmarks.distillation TEACHERS DATA [--quick] [--records FILE]``.

Fine-tuned MiniLM-L6 teachers, and students that learn from them by every recipe at the same cost: three layers of the
teacher's, and a pretrained model of 2 layers x 128. The cost is that of 400 and 3,000 steps of plain distillation,
about three minutes of a core; a recipe whose steps take longer, by processor time measured in turn with those of plain
distillation on one thread, has fewer of them. What the teacher gives for training documents is read from a cache, as
for all candidates of a search but the first ones. Then the ablations of the papers. The rate is one for all recipes.

A run of hours: ``--records`` lets it go on where it stopped, ``--minutes`` ends it between two trainings, ``--task``
lets two processes share the work, each with records of its own; lines of both are then put into one file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path

import torch

from autocompress.compression.recipes.table import RECIPES
from benchmarks.distillation_rows import BASE, WAYS, Pupils, Setting, Start, Trained
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table
from benchmarks.teachers import Tutored, load, logits

TASKS = ("trec6", "sst2")
STARTS: tuple[Start, ...] = ("half", "tiny")
SEEDS = (0, 1, 2)
QUICK = ("cross_entropy", "logits", "minilmv2", "ei_bert")
"""Recipes of the short run."""
QUICK_SHARE = 0.02
"""Of the cost of a full training."""


def settings(*, quick: bool) -> list[Setting]:
    """Return what is trained: all with one seed before the next."""
    if quick:
        return [Setting("trec6", "tiny", recipe, 0, QUICK_SHARE) for recipe in QUICK]
    ablations = [recipe for recipe in WAYS if recipe not in RECIPES]
    return [
        Setting(task, start, recipe, seed)
        for seed in SEEDS
        for task, start, recipe in (
            *product(TASKS, STARTS, RECIPES),
            *product(("trec6",), ("half",), ablations),
            ("trec6", "random half", "distilbert"),
        )
    ]


def report(found: Iterable[Trained], teachers: Mapping[str, float]) -> list[dict[str, object]]:
    """Print a table, and return its rows: accuracies in points, and what is gained over ``BASE`` at equal seeds."""
    found = list(found)
    bases = {
        (each.setting.task, each.setting.start, each.setting.seed): each
        for each in found
        if each.setting.recipe == BASE
    }
    rows: list[dict[str, object]] = []
    for key in dict.fromkeys((each.setting.task, each.setting.start, each.setting.recipe) for each in found):
        cell = [each for each in found if (each.setting.task, each.setting.start, each.setting.recipe) == key]
        paired = [
            100 * (each.accuracy - base.accuracy)
            for each in cell
            if (base := bases.get((each.setting.task, each.setting.start, each.setting.seed)))
        ]
        rows.append(
            {
                "task": key[0],
                "start": key[1],
                "recipe": key[2],
                "seeds": len(cell),
                "ratio": cell[0].ratio,
                "steps": cell[0].steps,
                "accuracy": spread([100 * each.accuracy for each in cell]),
                "kept": spread([100 * each.accuracy / teachers[key[0]] for each in cell]),
                "gain": spread(paired) if paired else None,
                "agreement": spread([100 * each.agreement for each in cell]),
                "divergence": spread([each.divergence for each in cell]),
                "nll": spread([each.nll for each in cell]),
            }
        )
    print_table(
        [
            "task, start, recipe",
            "seeds",
            "cost of a step",
            "accuracy",
            f"over {BASE}",
            "% of teacher",
            "agreement",
            "KL, nats",
        ],
        [_cells(row) for row in rows],
    )
    return rows


def _cells(row: Mapping[str, object]) -> Sequence[str]:
    def shown(name: str, digits: int = 2) -> str:
        value = row[name]
        assert value is None or isinstance(value, tuple)
        return "" if value is None else f"{value[0]:.{digits}f} ± {value[1]:.{digits}f}"

    return [
        f"{row['task']}, {row['start']}, {row['recipe']}",
        str(row["seeds"]),
        f"{row['ratio']:.2f}",
        *(shown(name) for name in ("accuracy", "gain", "kept", "agreement")),
        shown("divergence", 3),
    ]


def main() -> None:
    """Train what is not recorded yet, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6, the small student, four recipes, 60 steps")
    add_options(parser)
    parser.add_argument("--cache", type=Path, help="keep downloads and the teacher's outputs in this folder")
    parser.add_argument("--task", choices=TASKS, action="append", help="train for this one alone")
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Trained, Setting), lambda each: each.setting)
    wanted = [each for each in settings(quick=arguments.quick) if each.task in (arguments.task or TASKS)]
    with tempfile.TemporaryDirectory() as temporary:
        cache = arguments.cache or Path(temporary)
        options = {"teachers": arguments.teachers, "data": arguments.data, "cache": cache}
        tutored = {name: load(name, **options) for name in dict.fromkeys(setting.task for setting in wanted)}
        classes = {name: Pupils(each, cache=cache) for name, each in tutored.items()}
        found = kept.made(wanted, lambda setting: classes[setting.task].train(setting))
    teachers = {name: _accuracy(each) for name, each in tutored.items()}
    rows = report(found, teachers)
    figures = {"teachers": teachers, "rows": rows}
    finish("distillation", figures, quick=arguments.quick, details={"trained": [asdict(each) for each in found]})


def _accuracy(tutored: Tutored) -> float:
    found, labels = logits(tutored.model, tutored.task, "test")
    return float((found.argmax(1) == labels).float().mean())


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
