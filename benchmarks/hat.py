"""How well are others' measurements foreseen, from few of them? ``python -m benchmarks.hat FOLDER [--quick]``.

FOLDER holds the latency data sets of HAT (Wang et al. 2020, "HAT: Hardware-Aware Transformers"; the folder
``latency_dataset`` of github.com/mit-han-lab/hardware-aware-transformers, MIT licence): 2,000 encoder-decoder
transformers each, measured in PyTorch on a Raspberry Pi 4. Records in which the device was slow are found and left out
by ``autocompress.profiling.foreign_records``, from latencies alone; spikes of single records stay. Of what is left, few
random records are fitted and all others predicted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from autocompress.errors import SourceError
from autocompress.predictors.families import FAMILIES
from autocompress.predictors.intervals import COVERAGE, Conformal, conformal
from autocompress.predictors.selection import choose, foresee, select
from autocompress.profiling.episodes import find_episodes, marks
from autocompress.profiling.foreign_records import Record, observe, read_records
from benchmarks.record import finish, print_table

Array = npt.NDArray[np.float64]

FILES: Mapping[str, str] = {"ende": "wmt14ende_cpu_raspberrypi_all.csv", "enfr": "wmt14enfr_cpu_raspberrypi_all.csv"}
TRAINED: tuple[int, ...] = (16, 32, 64, 256)
QUOTED = 32
SELECTED = "selected"
REPEATS = 20
QUERY_WIDTH, SOURCE_TOKENS, TARGET_TOKENS = 512, 30, 30
"""Queries, keys and values together are so wide whatever the heads; a sentence is so long, and so is its translation
(HAT's ``latency_dataset.py`` and ``configs/``)."""
FEATURES: tuple[str, ...] = (
    "constant",
    "output_weights",
    "encoder_macs",
    "decoder_layers",
    "decoder_weights",
    "decoder_heads",
    "source_macs",
)
LABEL = "PyTorch encoder\N{EN DASH}decoder on Raspberry Pi 4, from the HAT authors' measurements, MIT"


@dataclass(frozen=True)
class Outcome:
    """How one family did on one file with so many records, on average over repeats.

    Attributes:
        mape: Mean absolute error on all other records, as a share of the measured value.
        within_10_percent: Share of these with an absolute error of at most 0.1.
        coverage: Share of these inside the interval that states ``COVERAGE``.
        width: Of that interval, as a share of the prediction.
    """

    mape: float
    within_10_percent: float
    coverage: float
    width: float


def features(records: Sequence[Record]) -> Array:
    """Return (records x ``FEATURES``): the work that an encoder-decoder does for one sentence, and nothing else.

    - constant: what every model takes: the call itself, embedding, the steps of the decoding loop.
    - output_weights: each step reads the output projection, decoder width x vocabulary; the vocabulary is one and the
      same in a file, so the width stands for it.
    - encoder_macs: multiply-accumulates of the encoder's linear maps over all source tokens: queries, keys, values and
      output of ``QUERY_WIDTH``, and both maps of the feed-forward part. (Attention itself is the same everywhere.)
    - decoder_layers: calls of kernels, norms, and attention over ``QUERY_WIDTH`` channels, alike in every layer.
    - decoder_weights: what the steps read of each layer. One token is multiplied at a time, so a weight is read for
      each multiply-accumulate: self-attention has four maps, attention to the source two (its keys and values are kept
      from the first step), the feed-forward part two.
    - decoder_heads: heads of both attentions of each layer and step: softmax and products are made per head.
    - source_macs: keys and values of the source, once for each layer, for one to three encoder layers each (HAT's
      arbitrary encoder-decoder attention), from the encoder's width.
    """
    of = {name: np.array([record.configuration[name] for record in records]) for name in records[0].configuration}
    encoder, decoder = of["encoder_embed_dim"], of["decoder_embed_dim"]
    layers = of["decoder_layer_num"]
    columns = {
        "constant": np.ones(len(records)),
        "output_weights": TARGET_TOKENS * decoder,
        "encoder_macs": SOURCE_TOKENS
        * of["encoder_layer_num"]
        * encoder
        * (4 * QUERY_WIDTH + 2 * of["encoder_ffn_embed_dim_avg"]),
        "decoder_layers": TARGET_TOKENS * layers,
        "decoder_weights": TARGET_TOKENS * layers * decoder * (6 * QUERY_WIDTH + 2 * of["decoder_ffn_embed_dim_avg"]),
        "decoder_heads": TARGET_TOKENS
        * layers
        * (of["decoder_self_attention_heads_avg"] + of["decoder_ende_attention_heads_avg"]),
        "source_macs": SOURCE_TOKENS * layers * of["decoder_arbitrary_ende_attn_avg"] * 2 * QUERY_WIDTH * encoder,
    }
    return np.column_stack([columns[name] for name in FEATURES])


def clean_records(path: Path) -> tuple[tuple[Record, ...], int]:
    """Return the records of a file that lie in no slow episode, and how many do."""
    records = read_records(path)
    slow = marks(find_episodes(observe(records)), len(records))
    kept = tuple(record for record, marked in zip(records, slow, strict=True) if not marked)
    return kept, len(records) - len(kept)


def evaluate(rows: Array, target: Array, *, trained: int, repeats: int) -> dict[str, Outcome]:
    """Fit ``trained`` random records, ``repeats`` times, and predict all others.

    Args:
        rows: (records x columns).
        target: (records,), milliseconds.
        trained: Records that are fitted.
        repeats: How often they are drawn.

    Returns:
        Outcomes by family; under ``SELECTED`` those of the family that was chosen, anew in each repeat.
    """
    runs = [_once(rows, target, _drawn(len(target), trained, repeat)) for repeat in range(repeats)]
    return {
        name: Outcome(*np.mean([list(vars(run[name]).values()) for run in runs], axis=0).tolist()) for name in runs[0]
    }


def _drawn(records: int, trained: int, repeat: int) -> npt.NDArray[np.bool_]:
    drawn = np.zeros(records, dtype=bool)
    drawn[np.random.default_rng(repeat).choice(records, trained, replace=False)] = True
    return drawn


def _once(rows: Array, target: Array, drawn: npt.NDArray[np.bool_]) -> dict[str, Outcome]:
    seen, measured, fresh = rows[drawn], target[drawn], target[~drawn]
    foreseen = foresee(FAMILIES, seen, measured)
    outcomes = {
        name: _outcome(family.fit(seen, measured).predict(rows[~drawn]), fresh, conformal(foreseen[name], measured))
        for name, family in FAMILIES.items()
    }
    return {**outcomes, SELECTED: outcomes[choose(foreseen, measured).family]}


def _outcome(predicted: Array, fresh: Array, interval: Conformal) -> Outcome:
    low, high = interval.bounds(predicted)
    errors = np.abs(predicted / fresh - 1)
    return Outcome(
        mape=float(errors.mean()),
        within_10_percent=float(np.mean(errors <= 0.1)),
        coverage=float(np.mean((low <= fresh) & (fresh <= high))),
        width=float(np.mean((high - low) / predicted)),
    )


def worked_example(path: Path) -> dict[str, object]:
    """Fit all clean records of HAT's English-German file; plain JSON values, labelled as exactly what they are."""
    records, left_out = clean_records(path)
    rows, target = features(records), np.array([record.latency_ms for record in records])
    selection = select(FAMILIES, rows, target)
    interval = conformal(np.array(selection.out_of_fold), target)
    chosen = next(score for score in selection.scores if score.family == selection.family)
    return {
        "label": LABEL,
        "figure": "latency_ms",
        "features": list(FEATURES),
        "fit": FAMILIES[selection.family].fit(rows, target).to_dict(),
        "interval": interval.to_dict(),
        "selection": {
            "family": selection.family,
            "scores": [vars(score) for score in selection.scores],
            "held_out_mape": chosen.mape,
        },
        "ranges": {
            name: [float(column.min()), float(column.max())] for name, column in zip(FEATURES, rows.T, strict=True)
        },
        "provenance": {
            "source": "github.com/mit-han-lab/hardware-aware-transformers, latency_dataset",
            "file": path.name,
            "licence": "MIT",
            "paper": "Wang et al. 2020, HAT: Hardware-Aware Transformers, arXiv 2005.14187",
            "records": str(len(records)),
            "records_left_out_as_slow": str(left_out),
        },
    }


def compare(folder: Path, *, trained: Sequence[int], repeats: int) -> dict[str, dict[str, dict[str, Outcome]]]:
    """Return outcomes by file, by records fitted, by family (``SELECTED``: chosen anew in each repeat)."""
    found: dict[str, dict[str, dict[str, Outcome]]] = {}
    for task, name in FILES.items():
        records, left_out = clean_records(folder / name)
        print(f"{name}: {len(records)} records, {left_out} more were left out as slow")
        rows, target = features(records), np.array([record.latency_ms for record in records])
        found[task] = {str(count): evaluate(rows, target, trained=count, repeats=repeats) for count in trained}
    return found


def report(folder: Path, *, quick: bool) -> tuple[dict[str, object], dict[str, object]]:
    """Compare the families and print the table; return the figures, of ``QUOTED`` records, and all outcomes.

    Raises:
        SourceError: ``folder`` lacks a file of records.
    """
    trained, repeats = ((QUOTED,), 3) if quick else (TRAINED, REPEATS)
    found = compare(folder, trained=trained, repeats=repeats)
    print_table(
        ["file", "records", "family", "MAPE", "within 10 %", f"in {COVERAGE:.0%} interval", "width of interval"],
        [
            [task, count, family, *(f"{value:.2%}" for value in vars(outcome).values())]
            for task, counts in found.items()
            for count, families in counts.items()
            for family, outcome in families.items()
        ],
    )
    quoted = {task: counts[str(QUOTED)][SELECTED] for task, counts in found.items()}
    figures: dict[str, object] = {f"hat_{task}_mape": round(outcome.mape, 5) for task, outcome in quoted.items()}
    figures |= {f"hat_{task}_within_10_percent": round(one.within_10_percent, 5) for task, one in quoted.items()}
    figures |= {f"hat_{task}_coverage_90": round(outcome.coverage, 4) for task, outcome in quoted.items()}
    details: dict[str, object] = {
        task: {count: {family: vars(one) for family, one in families.items()} for count, families in counts.items()}
        for task, counts in found.items()
    }
    return figures, details


def main() -> None:
    """Compare the families, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="the folder with the files of records")
    parser.add_argument("--quick", action="store_true", help=f"{QUOTED} records and 3 repeats only")
    parser.add_argument("--write", type=Path, help="also fit the English-German file and write that fit here, as JSON")
    arguments = parser.parse_args()
    try:
        figures, details = report(arguments.folder, quick=arguments.quick)
        if arguments.write:
            example = worked_example(arguments.folder / FILES["ende"])
            arguments.write.write_text(json.dumps(example, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    except SourceError as error:
        parser.exit(error.exit_code, f"{error}\n")
    finish("hat", figures, quick=arguments.quick, details=details)


if __name__ == "__main__":
    main()
