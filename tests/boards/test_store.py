from __future__ import annotations

import hashlib

import pytest

from autocompress.boards.store import Store, content_name

CONTENT = b"0123456789"
NAME = hashlib.sha256(CONTENT).hexdigest() + ".onnx"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "store")
    store.clear()
    return store


def test_a_file_is_named_by_its_content_and_suffix(tmp_path):
    path = tmp_path / "any.onnx"
    path.write_bytes(CONTENT)
    assert content_name(path) == NAME


def test_parts_make_the_artifact_and_each_says_how_much_is_here(store):
    assert store.held_bytes(NAME) == 0
    assert store.put(NAME, 0, CONTENT[:4], 10) == 4 == store.held_bytes(NAME)
    assert not store.path(NAME).exists()
    assert store.put(NAME, 4, CONTENT[4:], 10) == 10 == store.held_bytes(NAME)
    assert store.path(NAME).read_bytes() == CONTENT


def test_a_part_that_is_sent_again_replaces_what_came_of_it(store):
    store.put(NAME, 0, CONTENT[:7], 10)
    store.put(NAME, 3, CONTENT[3:], 10)
    assert store.path(NAME).read_bytes() == CONTENT


def test_content_that_arrives_changed_is_refused_and_removed(store):
    with pytest.raises(ValueError, match="arrived as"):
        store.put(NAME, 0, b"012345678x", 10)
    assert list(store.folder.iterdir()) == []


def test_whole_and_half_artifacts_are_removed(store):
    store.put(NAME, 0, CONTENT[:4], 10)
    store.remove(NAME)
    store.put(NAME, 0, CONTENT, 10)
    store.remove(NAME)
    store.remove(NAME)
    assert list(store.folder.iterdir()) == []


@pytest.mark.parametrize("name", ["../../etc/passwd", "model.onnx", NAME + "/..", "", NAME.upper()])
def test_no_name_leads_out_of_the_folder(store, name):
    with pytest.raises(ValueError, match="no name"):
        store.put(name, 0, CONTENT, 10)


def test_a_store_starts_empty(store):
    store.put(NAME, 0, CONTENT, 10)
    store.clear()
    assert store.held_bytes(NAME) == 0
