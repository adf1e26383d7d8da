"""A real PostgreSQL, alone and behind Optuna's gRPC proxy."""

import subprocess
import sys
import time

import optuna
import pytest

from autocompress.errors import ConfigError, MissingDependencyError, StorageError
from autocompress.search.storage import close, open_study
from tests.search.crowd import Crowd, alone, same
from tests.search.postgresql import PASSWORD, free_port, postgresql, server

pytestmark = pytest.mark.slow
__all__ = ["postgresql", "server"]


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """What one process finds that keeps a journal."""
    return alone(f"journal:{tmp_path_factory.mktemp('alone')}/study.log", trials=24, parallel=4)


@pytest.fixture
def database(postgresql):
    """The database, emptied of what earlier tests left."""
    yield postgresql
    storage = optuna.storages.RDBStorage(postgresql.replace("://", "+psycopg://", 1))
    for name in optuna.get_all_study_names(storage):
        optuna.delete_study(study_name=name, storage=storage)
    storage.engine.dispose()


def test_four_workers_of_which_two_are_killed_lose_no_place_and_do_none_twice(tmp_path, database, expected):
    crowd = Crowd(database, tmp_path, trials=24, parallel=4)
    workers = [crowd.start() for _ in range(4)]
    crowd.kill_at_work(workers[0], after=2)
    crowd.kill_at_work(workers[2], after=2)
    assert same(crowd.finish(), expected)
    crowd.check_nothing_was_done_twice()


def test_a_result_is_written_once_a_server_that_was_away_is_back(tmp_path, server, database, expected):
    crowd = Crowd(database, tmp_path, trials=2, parallel=4, seconds=2.0)
    worker = crowd.start()
    crowd.wait_for_work(worker, after=1)
    server.stop()
    time.sleep(2.5)  # The candidate is finished before the server is back.
    server.start()
    assert same(crowd.finish(), expected[:4])  # The first two are anchors over budget.
    crowd.check_nothing_was_done_twice()


@pytest.fixture
def proxy(database):
    """The address of Optuna's gRPC proxy, in a process of its own, in front of the database."""
    port = free_port()
    program = (
        "import sys, optuna\n"
        "storage = optuna.storages.get_storage(sys.argv[1])\n"
        "optuna.storages.run_grpc_proxy_server(storage, host='127.0.0.1', port=int(sys.argv[2]))"
    )
    url = database.replace("://", "+psycopg://", 1)
    server = subprocess.Popen([sys.executable, "-W", "ignore", "-c", program, url, str(port)])
    yield f"grpc://127.0.0.1:{port}"
    server.kill()
    server.wait()


def test_workers_behind_the_proxy_and_beside_it_work_on_one_study(tmp_path, database, proxy, expected):
    crowd = Crowd(proxy, tmp_path, trials=24, parallel=4)
    behind = [crowd.start() for _ in range(2)]
    crowd.storage = database
    crowd.start()
    crowd.kill_at_work(behind[1], after=2)
    assert same(crowd.finish(), expected)
    crowd.check_nothing_was_done_twice()


def test_an_error_of_the_database_shows_no_password(postgresql):
    wrong = postgresql.replace(PASSWORD, "guessed")
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        open_study(wrong, "run", resume=False)
    said = f"{caught.value.wrong} {caught.value.right} {caught.value.next_step}"
    assert "guessed" not in said and "password authentication failed" in said and "PGPASSWORD" in said
    with pytest.raises(StorageError, match="There is no study") as caught:
        open_study(postgresql, "absent", resume=True)
    assert PASSWORD not in caught.value.wrong and "searcher@127.0.0.1" in caught.value.wrong


def test_the_password_may_come_from_the_environment(postgresql, monkeypatch):
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    study = open_study(postgresql.replace(f":{PASSWORD}", ""), "by environment", resume=False)
    assert study.study_name == "by environment"
    close(study)


def test_a_server_that_is_not_there_is_an_error_with_what_to_do():
    with pytest.raises(StorageError, match="cannot be reached") as caught:
        open_study(f"postgresql://someone@127.0.0.1:{free_port()}/postgres", "run", resume=False)
    assert "start the server" in caught.value.next_step


def test_a_missing_driver_is_named_with_the_extra_that_brings_it(monkeypatch):
    for module, extra, storage in (
        ("psycopg", "postgresql", "postgresql://someone@127.0.0.1/postgres"),
        ("grpc", "grpc", "grpc://127.0.0.1:1"),
    ):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(MissingDependencyError, match=module) as caught:
            open_study(storage, "run", resume=False)
        assert f"autocompress[{extra}]" in caught.value.next_step
    with pytest.raises(ConfigError, match="host and port"):
        open_study("grpc://127.0.0.1", "run", resume=False)
