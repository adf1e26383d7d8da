"""Benchmarks: what they compute, and what they leave behind."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from autocompress.cost import Artifact, Measurement
from autocompress.engines import ENGINES
from autocompress.feeds import of_text
from autocompress.pipeline.prediction import COMMON
from autocompress.pipeline.workspace import PACKAGES
from autocompress.predictors.sampling import is_block, sample_shapes
from autocompress.profiling.drift import reference_ms
from autocompress.shape import LayerShape, ModelShape
from benchmarks.engines import check_logits
from benchmarks.peer_worker import PEER_ENGINES, open_torch
from benchmarks.peers import CONTESTANTS, OURS, PEERS, Contestant, Subject, silenced
from benchmarks.predictor_records import FIT_SEED, Wanted, measure, read, wanted
from benchmarks.predictors import Foreseen
from benchmarks.quickstart import RUN_FILE, TINY, Stopwatch
from benchmarks.record import RESULTS, finish, print_table
from benchmarks.standings import PRUNED, Case, ratios
from benchmarks.storage import time_search

ROOT = Path(__file__).parents[1]


def test_the_last_line_is_the_figures_as_json_with_machine_and_versions(tmp_path, capsys):
    finish("speed", {"p50_ms": 1.5}, quick=False, details={"samples_ms": [1, 2]}, folder=tmp_path)
    line = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (line["benchmark"], line["quick"], line["figures"]) == ("speed", False, {"p50_ms": 1.5})
    assert {"processor", "cores", "load_average"} <= line["machine"].keys()
    assert set(PACKAGES) <= line["versions"].keys()
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text()) == {**line, "details": {"samples_ms": [1, 2]}}


def test_the_headline_stands_in_the_line_itself(tmp_path, capsys):
    finish("speed", {"ratio": 0.5, "rows": {}}, quick=True, details={}, headline=("ratio",), folder=tmp_path)
    line = json.loads(capsys.readouterr().out)
    assert line["ratio"] == line["figures"]["ratio"] == 0.5
    assert "rows" not in line


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


def test_errors_are_shares_of_the_measured_value_and_coverage_counts_intervals():
    values, measured = np.array([100.0, 100.0, 130.0]), np.array([100.0, 125.0, 100.0])
    rounds = ((100.0,), (105.0, 125.0, 145.0), (100.0,))
    row = Foreseen(np.column_stack([values, 0.9 * values, 1.1 * values]), measured, rounds).row()
    wrong = [0.0, 0.2, 0.3]  # |100/100 - 1|, |100/125 - 1|, |130/100 - 1|
    assert row["mape"] == pytest.approx(np.mean(wrong))
    assert row["worst"] == pytest.approx(0.3)
    assert row["within_10_percent"] == row["coverage_90_of_medians"] == pytest.approx(1 / 3)
    assert row["coverage_90"] == pytest.approx(2 / 5)  # Of five measurements, 100 and 105 lie between 90 and 110.
    assert row["interval_width"] == pytest.approx(0.2)


def test_no_shape_is_both_fitted_and_foreseen_and_engines_follow_each_other():
    wants = wanted(COMMON, ("onnxruntime", "tvm"), fit=40, fresh=30, rounds=3)
    assert len(set(wants)) == len(wants) == 2 * (40 + 3 * 30)
    assert [want.round for want in wants] == [0] * 140 + [1] * 60 + [2] * 60
    shapes = {role: {want.shape for want in wants if want.role == role} for role in ("fit", "fresh")}
    assert shapes["fit"] == set(sample_shapes(COMMON, 40, seed=FIT_SEED))
    assert len(shapes["fresh"]) == 30 and not shapes["fit"] & shapes["fresh"]
    assert not any(is_block(shape, COMMON) for shape in shapes["fresh"])
    pairs = list(zip(wants[::2], wants[1::2], strict=True))
    assert all(first.shape == second.shape and first.engine != second.engine for first, second in pairs)
    roles = [want.role for want in wants[:140]]
    assert roles != sorted(roles) and roles != sorted(roles, reverse=True)


def test_of_several_measurements_of_a_shape_the_least_disturbed_is_read(tmp_path, monkeypatch):
    references, tiny = iter([1.4, 1.0, 1.2]), ModelShape("bert", 50, 16, 32, 32, (LayerShape(2, 8, 64),), 3)
    want = Wanted("onnxruntime", "fit", tiny)

    def run(runner, artifact, timing):
        provenance = {"reference_ms": str(next(references))}
        return Measurement((1.0,), 100, 10, 50, "host", artifact.engine, 1, provenance)

    monkeypatch.setattr("benchmarks.predictor_records.LocalRunner.run", run)
    path = tmp_path / "records.jsonl"
    for _ in range(3):
        measure([want], tmp_path / "one.jsonl", threads=1, tokens=8)
        with path.open("a") as file:
            file.write((tmp_path / "one.jsonl").read_text())
        (tmp_path / "one.jsonl").unlink()
    assert reference_ms(read(path)[want].measurement) == 1.0


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


def tiny_bert() -> BertForSequenceClassification:
    torch.manual_seed(0)
    config = BertConfig(vocab_size=50, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    return BertForSequenceClassification(config).eval()


def test_the_torch_worker_computes_what_transformers_computes(tmp_path):
    model = tiny_bert()
    torch.save(model, tmp_path / "torch.pt")
    threads = torch.get_num_threads()
    ids = np.arange(10, dtype=np.int64).reshape(1, 10)
    run = open_torch(Artifact(tmp_path / "torch.pt", "torch", 10), threads=threads)
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(ids)).logits.numpy()
    np.testing.assert_allclose(run(of_text(ids)), expected, rtol=1e-5, atol=1e-6)


def measured(name: str, *samples_ms: float, engine: str = "", waited: str = "") -> Measurement:
    engine = engine or ("onnxruntime" if "onnxruntime" in name else name.split()[0])
    return Measurement(samples_ms, 0, 0, 0, "host", engine, 1, {"waited_ms": waited} if waited else {})


def case(model: str, times_ms: dict[str, float], **failed: str) -> Case:
    return Case(model, 64, {name: measured(name, ms) for name, ms in times_ms.items()}, failed=failed)


def test_contestants_have_names_of_their_own_and_each_precision_has_ours_and_a_quick_peer():
    assert len({row.name for row in CONTESTANTS}) == len(CONTESTANTS)
    assert {row.name for row in CONTESTANTS if not row.peer} == set(OURS.values())
    for bits in OURS:
        engines = {row.name.split()[0] for row in PEERS if row.bits == bits and row.quick}
        assert "openvino" in engines


def test_ratios_are_geometric_means_over_the_fastest_peer_of_the_same_bits():
    first = {"tvm f32": 8.0, "onnxruntime f32": 20.0, "openvino f32, from onnx": 10.0, "openvino int8, from onnx": 1.0}
    second = {"tvm f32": 30.0, "exported f32, onnxruntime": 25.0, "torch eager f32": 20.0}
    found = ratios([case("MiniLM-L6", first), case("BERT-base", second)])
    assert found["f32_over_best_peer"] == pytest.approx((8 / 10 * 30 / 20) ** 0.5, abs=1e-4)
    assert found["f32_over_onnxruntime"] == pytest.approx((8 / 20 * 30 / 25) ** 0.5, abs=1e-4)


def test_a_pruned_model_has_a_ratio_of_its_own_over_all_bits():
    times_ms = {"tvm f32": 4, "tvm int8": 2, "tvm int4": 3, "onnxruntime f32": 8, "onnxruntime int8": 2}
    found = ratios([case(PRUNED, {**times_ms, "onnxruntime int4": 4})])
    assert found["pruned_over_best_peer"] == pytest.approx((4 / 8 * 2 / 2 * 3 / 4) ** (1 / 3), abs=1e-4)
    assert found["f32_over_best_peer"] is None


def test_a_mean_that_lacks_a_case_is_not_given():
    whole = case("MiniLM-L6", {"tvm int8": 1.0, "onnxruntime int8": 2.0})
    lacking = case("BERT-base", {"onnxruntime int8": 2.0})
    assert ratios([whole])["int8_over_best_peer"] == 0.5
    assert ratios([whole, lacking])["int8_over_best_peer"] is None


def test_what_failed_is_no_peer_however_fast():
    found = case("MiniLM-L6", {"tvm f32": 8, "onnxruntime f32": 10, "torch eager f32": 1})
    found.failed["torch eager f32"] = "wrong result"
    assert found.best_peer(32) == "onnxruntime f32"


def test_waiting_for_a_processor_is_no_property_of_a_contestant():
    disturbed = measured("onnxruntime f32", 10.0, 30.0, 30.0, waited="0 20 20")
    found = Case("MiniLM-L6", 64, {"tvm f32": measured("tvm f32", 5.0), "onnxruntime f32": disturbed})
    assert found.over(32) == 5 / 10


def test_an_f32_peer_that_computes_something_else_fails(tmp_path):
    subject = Subject(tiny_bert(), 8, tmp_path)
    exact = next(row for row in CONTESTANTS if row.name == "onnxruntime f32")
    artifact = exact.build(subject)
    other = tiny_bert()
    torch.nn.init.normal_(other.classifier.weight)
    (tmp_path / "other").mkdir()
    wrong = exact.build(Subject(other, 8, tmp_path / "other"))
    checked = check_logits(Case("", 8), {exact.name: artifact, "exported f32, onnxruntime": wrong}, subject)
    assert checked.off[exact.name] < 1e-5
    assert set(checked.failed) == {"exported f32, onnxruntime"}


def test_a_peer_names_what_it_lacks():
    build = CONTESTANTS[0].build
    assert Contestant("x", 32, build, needs=("json", "no_such_package")).missing == ("no_such_package",)


# TorchInductor takes half a minute to compile.
TRIED = [row for row in PEERS if not row.missing and not row.name.startswith("torch.compile")]


@pytest.mark.parametrize("row", TRIED, ids=lambda row: row.name)
def test_every_peer_that_is_installed_computes_the_model_within_the_error_of_its_precision(row, tmp_path, monkeypatch):
    for name, opens in PEER_ENGINES.items():
        monkeypatch.setitem(ENGINES, name, opens)
    subject = Subject(tiny_bert(), 8, tmp_path)
    with silenced():
        artifact = row.build(subject)
    checked = check_logits(Case("", 8), {row.name: artifact}, subject)
    assert not checked.failed
    assert checked.off[row.name] < 0.2 * checked.largest_logit
