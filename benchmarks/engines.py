"""Is AutoCompress's compiled code as fast as its peers? ``python -m benchmarks.engines [--quick] [--only WORD ...]``.

Whole models, one sequence, one thread. What the compiler makes for TVM is compared with the fastest peer of the same
precision: ONNX Runtime, OpenVINO, torch. All are run in turn, each time in a fresh process; the time for which a sample
waited for a processor that other processes held is taken off. OpenVINO and NNCF come with
``pip install autocompress[bench]``; a peer that is not installed is named as missing.
"""

from __future__ import annotations

import argparse
import copy
import os
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import geometric_mean
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compiler.build import build
from autocompress.compression import quantization
from autocompress.compression.method import Context
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.engines import open_artifact
from autocompress.models.load import adapter_of
from autocompress.profiling.drift import reference_ms, waited_share, without_waiting
from autocompress.profiling.runner import LocalRunner, measure_alternating
from autocompress.shape import Bits
from benchmarks.peer_worker import PEER_ENGINES, OpenVino, know_peers
from benchmarks.peers import NAMES, PEERS, TORCH, Contestant, LogitsOnly, Subject, silenced
from benchmarks.record import finish, print_table

THREADS = 1
LENGTHS, QUICK_LENGTHS = (64, 128), (64,)
CHECKED_INPUTS = 4
F32_LOGITS_OFF = 1e-3
"""How far an f32 peer's logits may be from torch's: what computes something else is no peer."""
PRUNED = "pruned MiniLM-L6"


def minilm() -> nn.Module:
    """Return a classifier of MiniLM-L6's shape with random weights; values change no timing here."""
    return _bert(hidden_size=384, num_hidden_layers=6, num_attention_heads=12, intermediate_size=1536)


def bert_base() -> nn.Module:
    """Return a classifier of BERT-base's shape with random weights."""
    return _bert(hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072)


def pruned_minilm() -> nn.Module:
    """Return MiniLM-L6 after pruning: 4 of its 6 layers, 7 of 12 heads, 1000 of 1536 neurons."""
    model = minilm()
    adapter = adapter_of(model)
    adapter.keep_layers(model, range(4))
    for layer in range(4):
        adapter.keep_heads(model, layer, range(7))
        adapter.keep_neurons(model, layer, range(1000))
    return model.eval()


def _bert(**widths: int) -> nn.Module:
    torch.manual_seed(0)
    model: nn.Module = BertForSequenceClassification(BertConfig(**widths)).eval()
    return model


MODELS: dict[str, Callable[[], nn.Module]] = {"MiniLM-L6": minilm, "BERT-base": bert_base, PRUNED: pruned_minilm}
QUICK_MODELS = ("MiniLM-L6", PRUNED)


def ours(subject: Subject, *, engine: str, bits: Bits) -> Artifact:
    """Round the model as AutoCompress does and build it for ``engine``."""
    model = subject.model
    if bits != 32:
        depth = len(adapter_of(model).layers(model))
        step = quantization.QuantizeStep((bits,) * depth, (bits,) * depth, bits)
        model = quantization.apply(copy.deepcopy(model), step, _NO_DATA)
    adapter = adapter_of(model)
    stem = subject.folder / f"ours-{bits}"
    return build(adapter.shape(model), adapter.weights(model), stem, engine=engine, tokens=subject.tokens)


_NO_DATA = Context(batches=lambda _steps, _seed: (), teacher_logits=lambda _batch: torch.empty(0))
OURS = {bits: f"tvm {name}" for bits, name in NAMES.items()}
CONTESTANTS = (
    *(Contestant(OURS[bits], bits, partial(ours, engine="tvm", bits=bits), quick=True, peer=False) for bits in NAMES),
    *(
        Contestant(f"onnxruntime {NAMES[bits]}", bits, partial(ours, engine="onnxruntime", bits=bits), quick=True)
        for bits in NAMES
    ),
    *PEERS,
)


@dataclass(frozen=True)
class EitherRunner:
    """Runs peers' artifacts by the worker that knows them, and all others as AutoCompress does."""

    ours: LocalRunner
    peers: LocalRunner

    def run(self, artifact: Artifact, **options: Any) -> Measurement | Failure:
        """See ``Runner.run``."""
        return (self.peers if artifact.engine in PEER_ENGINES else self.ours).run(artifact, **options)


@dataclass(frozen=True)
class Case:
    """One model at one length: what was measured of each contestant.

    Attributes:
        model: Key of ``MODELS``.
        tokens: Of the one sequence.
        measured: Name of the contestant -> its samples.
        off: Name -> largest difference of its logits from torch's f32 logits.
        failed: Name -> why there are no samples, or why they do not count.
        float_precision: Name -> what OpenVINO computes with where the model has floats.
        largest_logit: Of torch, for comparison with ``off``.
    """

    model: str
    tokens: int
    measured: dict[str, Measurement] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    float_precision: dict[str, str] = field(default_factory=dict)
    largest_logit: float = 0.0

    @property
    def name(self) -> str:
        """Model and length."""
        return f"{self.model}, {self.tokens} tokens"

    def calm(self, name: str) -> Measurement:
        """Return what was measured of a contestant, without waiting for a processor: all run in the calling thread."""
        return without_waiting(self.measured[name])

    def best_peer(self, bits: Bits, engine: str | None = None) -> str | None:
        """Return the fastest peer of ``bits`` (by its median, of ``engine`` alone if given) that counts."""
        names = [
            peer.name
            for peer in CONTESTANTS
            if peer.peer
            and peer.bits == bits
            and peer.name in self.measured.keys() - self.failed.keys()
            and engine in (None, self.measured[peer.name].engine)
        ]
        return min(names, key=lambda name: self.calm(name).latency_p50_ms, default=None)

    def over(self, bits: Bits, engine: str | None = None) -> float | None:
        """Return our latency over the best peer's; ``None`` where one of the two is not there."""
        best, mine = self.best_peer(bits, engine), OURS[bits]
        if best is None or mine in self.failed or mine not in self.measured:
            return None
        return self.calm(mine).latency_p50_ms / self.calm(best).latency_p50_ms


def run_case(case: Case, chosen: Sequence[Contestant], subject: Subject, *, quick: bool) -> Case:
    """Build, check and measure one model at one length; fill ``case``."""
    artifacts: dict[str, Artifact] = {}
    for contestant in chosen:
        try:
            with silenced():
                artifacts[contestant.name] = contestant.build(subject)
        except Exception as error:  # Tools of others raise what they like; the row says so, the others go on.
            case.failed[contestant.name] = f"not built: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    case = check_logits(case, artifacts, subject)
    local = LocalRunner("host", timeout_s=600)
    config: Any = subject.model.config
    found = measure_alternating(
        EitherRunner(local, replace(local, command=(*local.command[:2], "benchmarks.peer_worker"))),
        {name: artifact for name, artifact in artifacts.items() if name not in case.failed},
        threads=THREADS,
        vocabulary=config.vocab_size,
        rounds=3 if quick else 6,
        repeats=30,
        cap_s=0.3 if quick else 1.5,
    )
    for name, result in found.items():
        if isinstance(result, Failure):
            case.failed[name] = result.reason
        else:
            case.measured[name] = result
    return case


def check_logits(case: Case, artifacts: Mapping[str, Artifact], subject: Subject) -> Case:
    """Note how far logits are from torch's, with and without padding; what is f32 and too far off has failed."""
    inputs = list(subject.inputs(CHECKED_INPUTS, padded=True))
    with torch.inference_mode():
        expected = [LogitsOnly(subject.model)(*map(torch.from_numpy, pair)).numpy() for pair in inputs]
    bits = {contestant.name: contestant.bits for contestant in CONTESTANTS}
    for name, artifact in artifacts.items():
        try:
            with silenced():
                run = open_artifact(artifact, threads=THREADS)
                found = [run(*pair) for pair in inputs]
        except Exception as error:  # As in run_case.
            case.failed[name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        case.off[name] = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        if isinstance(run, OpenVino):
            case.float_precision[name] = run.precision
        if bits[name] == 32 and not case.off[name] <= F32_LOGITS_OFF:
            case.failed[name] = f"wrong result: f32 logits are {case.off[name]:.1e} off"
    return replace(case, largest_logit=max(float(np.abs(logits).max()) for logits in expected))


def table(case: Case) -> dict[str, dict[str, float | str | None]]:
    """Print what was measured, the fastest of each precision first, and return it."""
    bits = {contestant.name: contestant.bits for contestant in CONTESTANTS}
    order = sorted(case.measured, key=lambda name: (-bits[name], case.calm(name).latency_p50_ms))
    torch_ms = case.calm(TORCH).latency_p50_ms if TORCH in case.measured else None
    rows: dict[str, dict[str, float | str | None]] = {}
    for name in order:
        found, calm, best = case.measured[name], case.calm(name), case.best_peer(bits[name])
        p50_ms = calm.latency_p50_ms
        rows[name] = {
            "p50_ms": round(p50_ms, 3),
            "p95_ms": round(calm.latency_p95_ms, 3),
            "over_best_peer": None if best is None else round(p50_ms / case.calm(best).latency_p50_ms, 3),
            "times_faster_than_torch": None if torch_ms is None else round(torch_ms / p50_ms, 2),
            "peak_memory_mb": round(found.peak_memory_bytes / 1e6, 1),
            "size_mb": round(found.size_bytes / 1e6, 1),
            "logits_off": float(f"{case.off[name]:.1e}"),
            "reference_ms": round(reference_ms(found), 4),
            "waited_share": round(waited_share(found), 4),
            "samples": len(found.samples_ms),
            "floats": case.float_precision.get(name),
        }
    header = [
        "",
        "p50 ms",
        "p95 ms",
        "x peer",
        "x torch",
        "peak MB",
        "size MB",
        "off",
        "kernel ms",
        "waited",
        "samples",
    ]
    print(f"{case.name} (largest logit {case.largest_logit:.2g})")
    print_table(header, [[name, *map(_cell, [*row.values()][:-1])] for name, row in rows.items()])
    for name, precision in case.float_precision.items():
        print(f"  {name}: floats computed as {precision}")
    for name, reason in case.failed.items():
        print(f"  {name}: {reason}")
    print(flush=True)
    return rows


def _cell(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "-"


def ratios(cases: Sequence[Case]) -> dict[str, float | None]:
    """Return the geometric means of our latency over peers': below 1 we are faster.

    A mean over cases of which one lacks a figure would flatter: it is ``None``.
    """
    whole = [case for case in cases if case.model != PRUNED]
    pruned = [case for case in cases if case.model == PRUNED]
    found: dict[str, float | None] = {}
    for suffix, engine in (("best_peer", None), ("onnxruntime", "onnxruntime")):
        for bits, name in NAMES.items():
            found[f"{name}_over_{suffix}"] = _mean(case.over(bits, engine) for case in whole)
        found[f"pruned_over_{suffix}"] = _mean(case.over(bits, engine) for case in pruned for bits in NAMES)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return round(geometric_mean(known), 4) if known and len(known) == len(found) else None


def peer_versions() -> dict[str, str]:
    """Return the versions of what only this benchmark needs."""
    found = {}
    for package in ("openvino", "nncf", "onnx-ir"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def main() -> None:
    """Build, measure in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="two models at one length, likely winners, few samples")
    parser.add_argument("--only", nargs="+", default=[], help="only rows whose model, length and name hold all words")
    arguments = parser.parse_args()
    quick, words = arguments.quick, [word.lower() for word in arguments.only]
    know_peers()
    transformers.utils.logging.set_verbosity_error()
    torch.set_num_threads(THREADS)
    missing = {row.name: row.missing for row in CONTESTANTS if row.missing and (row.quick or not quick)}
    cases, rows = [], {}
    for model_name in QUICK_MODELS if quick else MODELS:
        for tokens in QUICK_LENGTHS if quick else LENGTHS:
            case = Case(model_name, tokens)
            chosen = [
                row
                for row in CONTESTANTS
                if row.name not in missing
                and (row.quick or not quick)
                and all(word in f"{case.name} {row.name}".lower() for word in words)
            ]
            if not chosen:
                continue
            with tempfile.TemporaryDirectory() as place:
                os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(place) / "inductor")
                case = run_case(case, chosen, Subject(MODELS[model_name](), tokens, Path(place)), quick=quick)
            rows[case.name] = table(case)
            cases.append(case)
    for name, needs in missing.items():
        print(f"Missing: {name} (needs {', '.join(needs)})")
    headline = ratios(cases)
    best = {case.name: {name: case.best_peer(bits) for bits, name in NAMES.items()} for case in cases}
    print("Our latency over peers', geometric means:", headline)
    finish(
        "engines",
        {
            **headline,
            "missing_peers": sorted(missing),
            "best_peers": best,
            "rows": rows,
            "failed": {case.name: case.failed for case in cases},
            "peer_versions": peer_versions(),
        },
        quick=quick or bool(words),
        headline=(*headline, "missing_peers"),
        details={case.name: {name: found.to_dict() for name, found in case.measured.items()} for case in cases},
    )


if __name__ == "__main__":
    main()
