"""What does rounding of weights cost? ``python -m benchmarks.quantization TEACHERS DATA [--quick] [--records FILE]``.

Fine-tuned MiniLM-L6 teachers at 8, 4, 3 and 2 bits, activations at 8 bits as the model runs, the token table at 8 bits
or 4. Linear weights are rounded to nearest, by OPTQ, by aespa, and for aespa's objectives by coordinate descent, the
last three on three draws of calibration documents; nothing is trained, labels are not read. Scores are on the test
split; ± is the standard error over draws. A full run takes hours on one core, most of them aespa's: ``--records`` lets
it go on where it stopped, ``--minutes`` ends it between two roundings, and the table says how many draws a row has.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from statistics import median

import torch

from autocompress.compression.rounding.adaround import ITERATIONS
from autocompress.plan import Rounding
from benchmarks.kept import add_options, kept_of, reader
from benchmarks.l2p import spread
from benchmarks.quantization_rows import Scored, Setting, score
from benchmarks.record import finish, print_table
from benchmarks.teachers import load

TASKS = ("trec6", "sst2")
DRAWS = (0, 1, 2)
BATCHES = 8
"""Of 32 training documents: calibration."""
HELD_OUT = 256
"""Test documents on which attention is compared."""
ROWS = {8: ("nearest",), 4: ("nearest", "optq", "descent"), 3: ("nearest", "optq", "descent", "aespa")}
ROWS[2] = ROWS[3]


def settings(*, quick: bool) -> list[Setting]:
    """Return what is measured, the slow ones last."""
    if quick:
        floats = Setting(TASKS[0], 32, "nearest", 0, 0, 0)
        return [floats, *(_setting(TASKS[0], 2, rounding, 0, batches=2, iterations=20) for rounding in ROWS[2])]
    every = [Setting(task, 32, "nearest", 0, 0, 0) for task in TASKS]
    for draw, (bits, roundings), task in product(DRAWS, ROWS.items(), TASKS):
        every += [
            _setting(task, bits, rounding, draw, batches=BATCHES, iterations=ITERATIONS)
            for rounding in roundings
            if draw == 0 or rounding != "nearest"
        ]
    return sorted(every, key=lambda setting: setting.rounding == "aespa")


def _setting(task: str, bits: int, rounding: Rounding, draw: int, *, batches: int, iterations: int) -> Setting:
    """Return a setting without what its rounding does not read."""
    return Setting(
        task, bits, rounding, draw, 0 if rounding == "nearest" else batches, iterations if rounding == "aespa" else 0
    )


def report(found: Sequence[Scored]) -> list[dict[str, object]]:
    """Print a table, and return its rows: points lost against floats and attention errors, in the mean over draws."""
    rows: list[dict[str, object]] = []
    for task in dict.fromkeys(each.setting.task for each in found):
        (floats,) = (each.accuracy for each in found if (each.setting.task, each.setting.bits) == (task, 32))
        for key in dict.fromkeys((each.setting.bits, each.setting.rounding) for each in found):
            cell = [
                each for each in found if (each.setting.task, each.setting.bits, each.setting.rounding) == (task, *key)
            ]
            rows.append(
                {
                    "task": task,
                    "bits": key[0],
                    "rounding": key[1],
                    "draws": len(cell),
                    "accuracy": spread([100 * each.accuracy for each in cell]),
                    "lost": spread([100 * (floats - each.accuracy) for each in cell]),
                    "attention_error": spread([each.error for each in cell]),
                    "cpu_s": median(each.cpu_s for each in cell),
                }
            )
    print_table(
        ["task, bits, rounding", "draws", "accuracy", "points lost", "attention error", "CPU seconds"],
        [
            [
                f"{row['task']} W{row['bits']} {row['rounding']}",
                str(row["draws"]),
                *("{:.2f} ± {:.2f}".format(*row[name]) for name in ("accuracy", "lost")),
                "{:.4f} ± {:.4f}".format(*row["attention_error"]),
                f"{row['cpu_s']:.0f}",
            ]
            for row in rows
        ],
    )
    return rows


def main() -> None:
    """Round what is not recorded yet, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("teachers", type=Path, help="folder of fine-tuned models")
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help="TREC-6 at 2 bits alone, one draw, 20 iterations of aespa")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, reader(Scored, Setting), lambda each: each.setting)
    wanted = settings(quick=arguments.quick)
    with tempfile.TemporaryDirectory() as cache:
        options = {"teachers": arguments.teachers, "data": arguments.data, "cache": Path(cache)}
        tutored = {name: load(name, **options) for name in dict.fromkeys(setting.task for setting in wanted)}
        found = kept.made(wanted, lambda setting: score(tutored[setting.task], setting, documents=HELD_OUT))
    rows = report(found)
    finish("quantization", {"rows": rows}, quick=arguments.quick, details={"scores": [asdict(each) for each in found]})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
