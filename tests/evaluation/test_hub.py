from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.errors import MissingDependencyError, SourceError
from autocompress.evaluation.hub import HubSource, fetch_model, load_rows, parse_hub


class Rows:
    """The part of ``datasets.Dataset`` that is read."""

    def __init__(self, **columns: list[Any]) -> None:
        self._columns, self.column_names = columns, list(columns)

    def __getitem__(self, name: str) -> list[Any]:
        return self._columns[name]


class Hub:
    """Takes the place of ``datasets.load_dataset``: knows some data sets, by name and configuration."""

    def __init__(self, *known: tuple[str, ...]) -> None:
        self.known, self.revisions = known, []

    def __call__(self, *name: str, revision: str | None, cache_dir: str) -> dict[str, Rows]:
        self.revisions.append(revision)
        if name not in self.known:
            raise FileNotFoundError(f"Dataset {name[0]!r} doesn't exist on the Hub")
        return {"train": Rows(sentence=["a", "b"], label=[0, 1])}


def test_a_source_may_name_a_revision() -> None:
    assert parse_hub("hub:owner/name@v1") == HubSource("owner/name", "v1")
    assert parse_hub("hub:name") == HubSource("name", None)


@pytest.mark.parametrize("source", ["hub:", "hub:a//b", "hub:a/b/c/d", "hub:a@"])
def test_a_malformed_source_is_refused(source: str) -> None:
    with pytest.raises(SourceError, match="cannot be read"):
        parse_hub(source)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("imdb", ("imdb",)),
        ("owner/imdb", ("owner/imdb",)),
        ("glue/sst2", ("glue", "sst2")),
        ("owner/glue/sst2", ("owner/glue", "sst2")),
    ],
)
def test_a_data_set_is_found_with_owner_and_configuration(name: str, known: tuple[str, ...], tmp_path: Path) -> None:
    hub = Hub(known)
    splits = load_rows(HubSource(name, "v2"), cache=tmp_path, load=hub)
    assert splits == {"train": {"sentence": ["a", "b"], "label": [0, 1]}}
    assert set(hub.revisions) == {"v2"}


def test_a_data_set_that_is_nowhere_is_an_error_with_the_hubs_own_words(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'glue/sst3' doesn't exist on the Hub"):
        load_rows(HubSource("glue/sst3"), cache=tmp_path, load=Hub())


def test_data_sets_need_an_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingDependencyError, match=r"autocompress\[hub\]"):
        load_rows(HubSource("glue/sst2"), cache=tmp_path)


def test_without_a_network_data_sets_come_from_the_cache_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, seen = SimpleNamespace(HF_HUB_OFFLINE=False), []

    def load_dataset(*name: str, **options: str | None) -> dict[str, Rows]:
        seen.append(config.HF_HUB_OFFLINE)
        return {"train": Rows(text=["a"], label=[0])}

    monkeypatch.setitem(sys.modules, "datasets", SimpleNamespace(config=config, load_dataset=load_dataset))
    assert load_rows(HubSource("imdb"), cache=tmp_path) == {"train": {"text": ["a"], "label": [0]}}
    assert seen == [True]
    assert config.HF_HUB_OFFLINE is False


def test_a_model_that_cannot_be_had_offline_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="'owner/model' cannot be had from the hub"):
        fetch_model(HubSource("owner/model"), cache=tmp_path)


def test_a_model_that_was_fetched_before_needs_no_network(tmp_path: Path) -> None:
    commit = "0" * 40
    repository = tmp_path / "hub" / "models--owner--model"
    snapshot = repository / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}", "utf-8")
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit, "utf-8")
    assert fetch_model(HubSource("owner/model"), cache=tmp_path) == snapshot
