"""Is AutoCompress's compiled code as fast as its peers? ``python -m benchmarks.engines [--quick] [--only WORD ...]``.

Whole models, one sequence, one thread. What the compiler makes for TVM is compared with the fastest peer of the same
precision: ONNX Runtime, OpenVINO, torch. All are run in turn, each time in a fresh process; the time for which a sample
waited for a processor that other processes held is taken off. OpenVINO and NNCF come with
``pip install autocompress[bench]``; a peer that is not installed is named as missing.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

from autocompress.cost import Artifact, Failure, Measurement
from autocompress.engines import open_artifact
from autocompress.feeds import of_text
from autocompress.models.load import adapter_of
from autocompress.profiling.runner import LocalRunner, measure_alternating
from autocompress.profiling.timing import Timing
from benchmarks.peer_worker import PEER_ENGINES, OpenVino, know_peers
from benchmarks.peers import CONTESTANTS, NAMES, Contestant, LogitsOnly, Subject, silenced
from benchmarks.record import finish
from benchmarks.standings import PRUNED, Case, ratios, table

THREADS = 1
LENGTHS, QUICK_LENGTHS = (64, 128), (64,)
CHECKED_INPUTS = 4
F32_LOGITS_OFF = 1e-3
"""How far an f32 peer's logits may be from torch's: what computes something else is no peer."""


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


@dataclass(frozen=True)
class EitherRunner:
    """Runs peers' artifacts by the worker that knows them, and all others as AutoCompress does."""

    ours: LocalRunner
    peers: LocalRunner

    def run(
        self, artifact: Artifact, timing: Timing, *, provenance: Mapping[str, str] | None = None
    ) -> Measurement | Failure:
        """See ``Runner.run``."""
        runner = self.peers if artifact.engine in PEER_ENGINES else self.ours
        return runner.run(artifact, timing, provenance=provenance)


def run_case(case: Case, chosen: Sequence[Contestant], subject: Subject, *, quick: bool) -> Case:
    """Build, check and measure one model at one length; fill ``case``."""
    artifacts: dict[str, Artifact] = {}
    for contestant in chosen:
        try:
            with silenced():
                artifacts[contestant.name] = contestant.build(subject)
            print(f"  built {contestant.name}", flush=True)
        except Exception as error:  # Tools of others raise what they like; the row says so, the others go on.
            case.failed[contestant.name] = f"not built: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
    case = check_logits(case, artifacts, subject)
    local = LocalRunner("host")
    config: Any = subject.model.config
    found = measure_alternating(
        EitherRunner(local, replace(local, command=(*local.command[:2], "benchmarks.peer_worker"))),
        {name: artifact for name, artifact in artifacts.items() if name not in case.failed},
        Timing(THREADS, config.vocab_size, repeats=30, cap_s=0.3 if quick else 1.5, timeout_s=600),
        rounds=3 if quick else 4,
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
                found = [run(of_text(*pair)) for pair in inputs]
        except Exception as error:  # As in run_case.
            case.failed[name] = f"does not run: {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            continue
        case.off[name] = max(float(np.abs(a - b).max()) for a, b in zip(found, expected, strict=True))
        if isinstance(run.run, OpenVino):
            case.float_precision[name] = run.run.precision
        if bits[name] == 32 and not case.off[name] <= F32_LOGITS_OFF:
            case.failed[name] = f"wrong result: f32 logits are {case.off[name]:.1e} off"
    return replace(case, largest_logit=max(float(np.abs(logits).max()) for logits in expected))


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
