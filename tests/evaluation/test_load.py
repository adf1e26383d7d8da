from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import PreTrainedTokenizerFast

from autocompress.errors import ConfigError, SourceError
from autocompress.evaluation.datasets import DataSpec
from autocompress.evaluation.load import load_task


@pytest.fixture
def model_folder(tmp_path: Path, tokenizer: PreTrainedTokenizerFast) -> Path:
    folder = tmp_path / "model"
    tokenizer.save_pretrained(folder)
    (folder / "config.json").write_text('{"model_type": "bert"}', "utf-8")
    return folder


@pytest.fixture
def data(tmp_path: Path) -> DataSpec:
    rows = "\n".join(f"w{index % 20} w1,{'np'[index % 2]}" for index in range(60))
    folder = tmp_path / "data"
    folder.mkdir()
    for name in ("train", "dev", "test"):
        (folder / f"{name}.csv").write_text(f"text,label\n{rows}\n", "utf-8")
    return DataSpec(str(folder))


def set_labels(model_folder: Path, label2id: object) -> None:
    (model_folder / "config.json").write_text(json.dumps({"model_type": "bert", "label2id": label2id}), "utf-8")


def test_the_tokenizer_and_the_documents_make_a_task(model_folder: Path, data: DataSpec, tmp_path: Path) -> None:
    task = load_task(model_folder, data, cache=tmp_path, max_tokens=8)
    assert task.dataset.classes == ("n", "p")
    assert task.encode(["w0"]) == [[1, 4, 2]]


def test_classes_keep_the_order_of_a_models_outputs(model_folder: Path, data: DataSpec, tmp_path: Path) -> None:
    set_labels(model_folder, {"p": 0, "n": 1})
    task = load_task(model_folder, data, cache=tmp_path, max_tokens=8)
    assert task.dataset.classes == ("p", "n")
    assert task.dataset.test.labels[:2] == (1, 0)


@pytest.mark.parametrize("label2id", [{"LABEL_0": 0, "LABEL_1": 1}, {"n": 0, "p": 1, "q": 2}, None, ["n", "p"]])
def test_other_classes_of_a_model_do_not_matter(
    model_folder: Path, data: DataSpec, tmp_path: Path, label2id: object
) -> None:
    set_labels(model_folder, label2id)
    assert load_task(model_folder, data, cache=tmp_path, max_tokens=8).dataset.classes == ("n", "p")


def test_limits_cut_what_is_fitted_on_and_what_is_scored(model_folder: Path, data: DataSpec, tmp_path: Path) -> None:
    task = load_task(model_folder, data, cache=tmp_path, max_tokens=8, train_limit=30, eval_limit=20)
    assert [len(split) for split in (task.dataset.train, task.dataset.validation, task.dataset.test)] == [30, 20, 20]


def test_a_folder_without_tokenizer_is_a_source_error(data: DataSpec, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SourceError, match="tokenizer"):
        load_task(empty, data, cache=tmp_path, max_tokens=8)


def test_a_wrong_metric_is_noticed_before_the_data_is_fetched(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="metric"):
        load_task(model_folder, DataSpec(str(tmp_path / "nowhere")), cache=tmp_path, max_tokens=8, metric="auc")
