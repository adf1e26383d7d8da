import pytest

from autocompress.config import RunConfig, dump_config
from autocompress.search.address import hide, with_driver, without_password

RUN = {"model": {"source": "m"}, "task": {"data": {"source": "d"}}, "budget": {"size": "1 MB"}}


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("postgresql://me:secret@host:5432/base", "postgresql://me@host:5432/base"),
        ("postgresql+psycopg://me:sec@ret@host/base?x=a@b:c", None),
        ("mysql://:secret@host/base", "mysql://@host/base"),
        ("postgresql://host/base?user=me&password=secret&x=1", "postgresql://host/base?user=me&password=&x=1"),
        ("sqlite:////data/a:b@c.db", "sqlite:////data/a:b@c.db"),
        ("journal:runs/a@b/study.log", "journal:runs/a@b/study.log"),
        ("grpc://host:13000", "grpc://host:13000"),
    ],
)
def test_a_password_is_neither_shown_nor_written_down(storage, shown):
    assert "sec" not in without_password(storage)
    if shown is not None:
        assert without_password(storage) == shown
    config = RunConfig.model_validate({**RUN, "search": {"storage": storage}})
    assert "sec" not in dump_config(config)
    assert config.search.storage == storage
    assert hide(f"cannot open {storage}", storage) == f"cannot open {without_password(storage)}"


def test_a_password_is_hidden_in_what_others_say():
    storage = "postgresql://me:pa%20ss@host/base?password=word"
    said = hide("wrong: pa%20ss for me, or 'word'", storage)
    assert said == "wrong: *** for me, or '***'"


def test_a_postgresql_url_that_names_no_driver_means_psycopg():
    assert with_driver("postgresql://h/b") == with_driver("postgres://h/b") == "postgresql+psycopg://h/b"
    assert with_driver("postgresql+pg8000://h/b") == "postgresql+pg8000://h/b"
