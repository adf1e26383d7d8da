from __future__ import annotations

import json

import pytest

from autocompress.errors import StorageError
from autocompress.predictors.store import FORMAT_VERSION, REFITTED_VERSIONS, find, load, save
from tests.predictors.synthetic import TEACHER, TOKENS, fitted, samples


def test_a_saved_predictor_says_the_same_when_loaded(tmp_path):
    predictor = fitted()
    path = save(predictor, tmp_path / "made" / "here")
    assert path.name == "my-board-onnxruntime-2t.json"
    again = load(path)
    assert again == predictor
    assert again.predict(TEACHER, TOKENS) == predictor.predict(TEACHER, TOKENS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_file_shows_errors_ranges_samples_and_provenance_to_a_reader(tmp_path):
    predictor = fitted()
    data = json.loads(save(predictor, tmp_path).read_text())
    assert data["provenance"]["engine_version"] == "1.23.2"
    assert data["figures"]["latency_p50_ms"]["held_out"]["mape"] == predictor.held_out["latency_p50_ms"].mape
    assert data["samples"][0]["latency_p50_ms"] == predictor.samples[0].latency_p50_ms
    assert data["ranges"]["tokens"] == [TOKENS, TOKENS]


def test_a_newer_predictor_takes_the_place_of_the_older(tmp_path):
    save(fitted(samples(16)), tmp_path)
    assert len(load(save(fitted(samples(20)), tmp_path)).samples) == 20


def test_ranges_of_features_that_an_older_version_did_not_count_are_those_of_its_samples(tmp_path):
    made = fitted(samples(12))
    path = save(made, tmp_path)
    data = json.loads(path.read_text())
    del data["ranges"]["gemm_macs_8"]
    path.write_text(json.dumps(data))
    assert load(path) == made


def of_other_features(data):
    figure = data["figures"]["latency_p50_ms"]
    return {**data, "figures": {**data["figures"], "latency_p50_ms": {**figure, "names": ["flops", *figure["names"]]}}}


def damaged(data):
    del data["figures"]["size_bytes"]
    return data


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda data: {**data, "format_version": FORMAT_VERSION + 1}, "format version"),
        (lambda data: [data], "format version"),
        (damaged, "damaged"),
        (of_other_features, "other features"),
        (lambda data: {**data, "samples": [{"shape": 3}]}, "damaged"),
    ],
)
def test_a_file_that_is_no_such_predictor_is_an_error_of_three_parts(tmp_path, change, word):
    path = save(fitted(samples(12)), tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(StorageError) as caught:
        load(path)
    assert word in caught.value.wrong
    assert str(path) in caught.value.wrong
    assert caught.value.right
    assert caught.value.next_step


def test_a_cut_off_or_missing_file_is_an_error(tmp_path):
    path = save(fitted(samples(12)), tmp_path)
    path.write_text(path.read_text()[:500])
    for broken in (path, tmp_path / "absent.json"):
        with pytest.raises(StorageError, match="cannot be read"):
            load(broken)


def test_the_first_folder_that_has_one_wins(tmp_path):
    first, second = tmp_path / "a", tmp_path / "b"
    assert find((first, second), "my-board", "onnxruntime", 2) is None
    path = save(fitted(samples(12)), second)
    assert find((first, second), "my-board", "onnxruntime", 2) == path
    assert find((first, second), "my-board", "onnxruntime", 4) is None
    mine = save(fitted(samples(12)), first)
    assert find((first, second), "my-board", "onnxruntime", 2) == mine


@pytest.mark.parametrize("version", REFITTED_VERSIONS)
def test_the_samples_of_an_older_file_are_fitted_anew(tmp_path, version):
    predictor = fitted(samples(16))
    path = save(predictor, tmp_path)
    data = json.loads(path.read_text())
    older = {key: value for key, value in data.items() if key not in ("figures", "timeline")}
    for sample in older["samples"]:
        del sample["drawn"]
        for layer in sample["shape"]["layers"]:
            for block in ("attention", "ffn"):
                layer[f"{block}_bits"] = layer.pop(f"{block}_in_bits")
                assert layer.pop(f"{block}_out_bits") == layer[f"{block}_bits"]
    path.write_text(json.dumps({**older, "format_version": version, "models": {}}))
    assert load(path).figures == predictor.figures
