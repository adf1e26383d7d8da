"""Benchmarks: what they compute, and what they leave behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from autocompress.cost import LIMITS, Artifact, Cost, Estimate, Measurement
from autocompress.pipeline.prediction import COMMON
from autocompress.pipeline.workspace import PACKAGES
from autocompress.predictors.sampling import corners, sample_shapes
from autocompress.predictors.store import load
from benchmarks.predictor import FRESH_SEED, Fresh, errors, fresh_shapes
from benchmarks.quickstart import RUN_FILE, TINY, Stopwatch
from benchmarks.record import RESULTS, finish, print_table
from benchmarks.storage import time_search
from benchmarks.torch_worker import open_torch

ROOT = Path(__file__).parents[1]


def test_the_last_line_is_the_figures_as_json_with_machine_and_versions(tmp_path, capsys):
    finish("speed", {"p50_ms": 1.5}, quick=False, details={"samples_ms": [1, 2]}, folder=tmp_path)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["benchmark"], line["quick"], line["figures"]) == ("speed", False, {"p50_ms": 1.5})
    assert {"processor", "cores", "load_average"} <= line["machine"].keys()
    assert set(PACKAGES) <= line["versions"].keys()
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text()) == {**line, "details": {"samples_ms": [1, 2]}}


def test_a_quick_run_replaces_no_full_results(tmp_path, capsys):
    finish("speed", {}, quick=True, details={}, folder=tmp_path)
    assert json.loads(capsys.readouterr().out)["quick"] is True
    assert not list(tmp_path.iterdir())


def test_tables_align_names_left_and_numbers_right(capsys):
    print_table(["", "ms"], [["long name", "1"], ["x", "23.45"]])
    assert capsys.readouterr().out == "              ms\nlong name      1\nx          23.45\n\n"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_kept_results_are_of_full_runs_of_a_benchmark_that_exists(path):
    kept = json.loads(path.read_text())
    assert path.name == f"{kept['benchmark']}-{kept['time'][:10]}.json"
    assert (ROOT / "benchmarks" / f"{kept['benchmark']}.py").is_file()
    assert kept["quick"] is False
    assert kept["figures"] and kept["details"] and kept["machine"] and kept["versions"]


def fresh(predicted: list[float], measured: list[float]) -> list[Fresh]:
    """Shapes whose every figure is foreseen with an interval of 10 % to each side."""
    found = []
    for value, taken in zip(predicted, measured, strict=True):
        estimate = Estimate(value, 0.9 * value, 1.1 * value)
        cost = Cost(*[estimate] * len(LIMITS), calibrated=True, source="")
        found.append(Fresh(COMMON, cost, Measurement((taken,), int(taken), 0, int(taken), "host", "onnxruntime", 1)))
    return found


def test_errors_are_shares_of_the_measured_value_and_coverage_counts_intervals():
    row = errors(fresh([100, 100, 130], [100, 125, 100]), "latency_p50_ms", lambda raw: raw)
    wrong = [0.0, 0.2, 0.3]  # |100/100 - 1|, |100/125 - 1|, |130/100 - 1|
    assert row["mape"] == pytest.approx(np.mean(wrong))
    assert row["worst"] == pytest.approx(0.3)
    assert row["within_10_percent"] == row["coverage"] == pytest.approx(1 / 3)
    assert row["interval_width"] == pytest.approx(0.2)


def test_fresh_shapes_are_neither_fitted_nor_corners():
    predictor = load(next((ROOT / "latency_models").glob("*-onnxruntime-1t.json")))
    shapes = fresh_shapes(predictor, 20)
    assert len(set(shapes)) == 20
    assert not set(shapes) & {sample.shape for sample in predictor.samples}
    assert not set(shapes) & set(corners(COMMON))
    assert set(shapes) <= set(sample_shapes(COMMON, 100, seed=FRESH_SEED))


def test_time_belongs_to_the_stage_that_reports_and_overhead_to_the_one_before(monkeypatch, capsys):
    now = iter([0.0, 1.0, 4.0, 4.5, 6.5, 7.5])
    monkeypatch.setattr("benchmarks.quickstart.time.monotonic", lambda: next(now))
    watch = Stopwatch()  # 0.0
    watch("fetch", 0, 1, "")  # 1.0: what came before any stage
    watch("fetch", 1, 1, "")  # 4.0: fetching
    watch("search", 0, 2, "")  # 4.5: after fetching
    watch("search", 2, 2, "")  # 6.5: searching
    assert watch.stop() == {"start": 1.0, "fetch": 3.5, "search": 3.0}  # 7.5: after the last report


def test_the_quick_job_differs_from_the_readmes_only_in_keys_that_exist():
    from autocompress import load_config

    quick, full = load_config(RUN_FILE, TINY), load_config(RUN_FILE)
    assert quick.model.source != full.model.source
    assert (quick.budget, quick.goal, quick.device, quick.task.data) == (
        full.budget,
        full.goal,
        full.device,
        full.task.data,
    )


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_timed_search_runs_in_either_storage(storage):
    wall_s, busy_s = time_search(storage, trials=2)
    assert wall_s > 0 and busy_s > 0


def test_the_torch_worker_computes_what_transformers_computes(tmp_path):
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    model = BertForSequenceClassification(config).eval()
    model.save_pretrained(tmp_path)
    threads = torch.get_num_threads()
    ids = np.arange(10, dtype=np.int64).reshape(1, 10)
    run = open_torch(Artifact(tmp_path / "model.safetensors", "torch", 10), threads=threads)
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(run(ids, np.ones_like(ids)), expected, rtol=1e-5, atol=1e-6)
