"""How fast does each engine run MiniLM's shape? ``python -m benchmarks.engines [--quick]``.

Every artifact is run in turn with the others, each time in a fresh process: one sequence of 64 tokens, one thread.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compiler.build import build
from autocompress.compiler.graph import random_weights
from autocompress.cost import Artifact, Failure, Measurement
from autocompress.engines import open_artifact
from autocompress.models.load import adapter_of
from autocompress.pipeline.prediction import shrink
from autocompress.profiling.drift import reference_ms, waited_share
from autocompress.profiling.runner import LocalRunner, measure_alternating
from autocompress.shape import ModelShape
from benchmarks.record import finish, print_table

THREADS, TOKENS = 1, 64
TORCH = "torch eager f32"
OURS = "{engine} {bits}"
EXPORTED = "exported {bits}, onnxruntime"
NAMES = {32: "f32", 8: "int8", 4: "int4"}


@dataclass(frozen=True)
class EitherRunner:
    """Runs torch's artifacts by the worker that knows torch, and all others as AutoCompress does."""

    ours: LocalRunner
    torch: LocalRunner

    def run(self, artifact: Artifact, **options: Any) -> Measurement | Failure:
        """See ``Runner.run``."""
        return (self.torch if artifact.engine == "torch" else self.ours).run(artifact, **options)


def minilm() -> BertForSequenceClassification:
    """Return a classifier of MiniLM-L6's shape with random weights; values change no timing here."""
    torch.manual_seed(0)
    widths = {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12, "intermediate_size": 1536}
    return BertForSequenceClassification(BertConfig(**widths)).eval()


def ours(model: BertForSequenceClassification, folder: Path) -> dict[str, Artifact]:
    """Build the model at each width of weights for each engine, from the one description of the encoder."""
    adapter = adapter_of(model)
    shape: ModelShape = adapter.shape(model)
    found = {}
    for engine in ("onnxruntime", "tvm"):
        for bits in NAMES:
            small = shrink(shape, bits=bits)
            weights = adapter.weights(model) if bits == 32 else random_weights(small)
            name = OURS.format(engine=engine, bits=NAMES[bits])
            found[name] = build(small, weights, folder / f"ours-{bits}", engine=engine, tokens=TOKENS)
            print(f"  built {name}", flush=True)
    return found


def exported(model: BertForSequenceClassification, folder: Path) -> dict[str, Artifact]:
    """Export the model as ``torch.onnx`` writes it, and round it as ONNX Runtime's own tool does.

    The exporter is the one that traces: the newer one needs ``onnxscript``, which AutoCompress does not install.
    """
    from onnxruntime.quantization import quantize_dynamic

    plain, rounded = folder / "exported-32.onnx", folder / "exported-8.onnx"
    ids = torch.ones((1, TOKENS), dtype=torch.int64)
    dynamic = dict.fromkeys(("input_ids", "attention_mask"), {0: "batch", 1: "tokens"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _LogitsOnly(model).eval(),  # The exporter puts back the mode that it found, on all that is inside.
            (ids, ids),
            str(plain),
            input_names=["input_ids", "attention_mask"],
            output_names=["logits"],
            dynamic_axes=dynamic,
            opset_version=17,
            dynamo=False,
        )
    logging.disable(logging.WARNING)
    quantize_dynamic(str(plain), str(rounded))
    logging.disable(logging.NOTSET)
    return {
        EXPORTED.format(bits=NAMES[bits]): Artifact(path, "onnxruntime", TOKENS)
        for bits, path in ((32, plain), (8, rounded))
    }


class _LogitsOnly(torch.nn.Module):
    """The classifier as the exporter wants it: tensors in, one tensor out."""

    def __init__(self, model: BertForSequenceClassification) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits


def check_logits(model: BertForSequenceClassification, artifacts: Mapping[str, Artifact]) -> dict[str, float]:
    """Return how far each f32 artifact's logits are from torch's: what computes something else is not compared."""
    ids = np.random.default_rng(0).integers(0, model.config.vocab_size, (1, TOKENS), dtype=np.int64)
    mask = np.ones_like(ids)
    with torch.inference_mode():
        expected = _LogitsOnly(model)(torch.from_numpy(ids), torch.from_numpy(mask)).numpy()
    wide = {name: artifact for name, artifact in artifacts.items() if NAMES[32] in name and artifact.engine != "torch"}
    return {
        name: float(np.abs(open_artifact(artifact, threads=THREADS)(ids, mask) - expected).max())
        for name, artifact in wide.items()
    }


def table(measured: Mapping[str, Measurement]) -> dict[str, dict[str, float]]:
    """Print what was measured beside torch, and return it."""
    torch_ms = measured[TORCH].latency_p50_ms
    rows = {}
    for name, found in measured.items():
        rows[name] = {
            "p50_ms": round(found.latency_p50_ms, 3),
            "p95_ms": round(found.latency_p95_ms, 3),
            "times_faster_than_torch": round(torch_ms / found.latency_p50_ms, 2),
            "peak_memory_mb": round(found.peak_memory_bytes / 1e6, 1),
            "size_mb": round(found.size_bytes / 1e6, 1),
            "reference_ms": round(reference_ms(found), 4),
            "waited_share": round(waited_share(found), 4),
            "samples": len(found.samples_ms),
        }
    header = ["", "p50 ms", "p95 ms", "x torch", "peak MB", "size MB", "kernel ms", "waited", "samples"]
    print_table(header, [[name, *(f"{value:g}" for value in row.values())] for name, row in rows.items()])
    return rows


def main() -> None:
    """Build, measure in turn, and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 rounds of half a second instead of 8 of two")
    quick = parser.parse_args().quick
    local = LocalRunner("host")
    runner = EitherRunner(local, replace(local, command=(*local.command[:2], "benchmarks.torch_worker")))
    with tempfile.TemporaryDirectory() as place:
        folder, model = Path(place), minilm()
        model.save_pretrained(folder / "torch")
        artifacts = ours(model, folder) | exported(model, folder)
        artifacts[TORCH] = Artifact(folder / "torch" / "model.safetensors", "torch", TOKENS)
        differences = check_logits(model, artifacts)
        found = measure_alternating(
            runner,
            artifacts,
            threads=THREADS,
            vocabulary=model.config.vocab_size,
            rounds=3 if quick else 8,
            cap_s=0.5 if quick else 2.0,
        )
    failed = {name: result.reason for name, result in found.items() if isinstance(result, Failure)}
    measured = {name: result for name, result in found.items() if isinstance(result, Measurement)}
    if TORCH in failed:
        raise RuntimeError(f"{TORCH}: {failed[TORCH]}")
    rows = table(measured)
    print("Largest difference of f32 logits from torch's:", {name: f"{far:.1e}" for name, far in differences.items()})
    finish(
        "engines",
        {"rows": rows, "failed": failed, "f32_logits_off": differences},
        quick=quick,
        details={name: result.to_dict() for name, result in measured.items()},
    )


if __name__ == "__main__":
    main()
