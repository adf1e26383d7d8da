import json

import pytest

from autocompress.config import RunConfig, dump_config, load_config
from autocompress.errors import ConfigError
from autocompress.search.address import hide, with_driver, without_password
from autocompress.search.storage import open_study

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


@pytest.mark.parametrize("mistyped", ["postgresql:/me:secret@host/base", "postgresql:me:secret@host"])
def test_a_password_in_a_mistyped_address_is_not_repeated(tmp_path, mistyped):
    run_file = tmp_path / "run.yaml"
    for overrides in ((), (f"search.storage={mistyped}",)):
        run_file.write_text(json.dumps(RUN if overrides else {**RUN, "search": {"storage": mistyped}}))
        with pytest.raises(ConfigError, match=r"search\.storage") as caught:
            load_config(run_file, overrides)
        assert "secret" not in str(caught.value) and "***@host" in caught.value.wrong
    with pytest.raises(ConfigError, match="not known") as caught:
        open_study(mistyped, "run", resume=True)
    assert "secret" not in str(caught.value)
