"""Whoever works on a study, and whoever dies: the sequence of candidates is the same."""

import pytest

from autocompress.search.records import records
from tests.search.crowd import Crowd, alone, same

pytestmark = pytest.mark.slow
STORAGES = {"journal": "journal:{}/study.log", "sqlite": "sqlite:///{}/study.db"}


@pytest.mark.parametrize("kind", STORAGES)
def test_four_processes_of_which_two_are_killed_find_what_one_finds(tmp_path, kind):
    crowd = Crowd(STORAGES[kind].format(tmp_path / "crowd"), tmp_path / "crowd", trials=20, parallel=4)
    workers = [crowd.start() for _ in range(4)]
    crowd.kill_at_work(workers[1], after=2)
    crowd.kill_at_work(workers[3], after=3)
    found = crowd.finish()
    assert same(found, alone(STORAGES["journal"].format(tmp_path / "alone"), trials=20, parallel=4))
    assert all(any(line.startswith("begins") for line in crowd.lines(worker)) for worker in workers)
    crowd.check_nothing_was_done_twice()


@pytest.mark.parametrize("kind", STORAGES)
def test_kill_minus_nine_loses_nothing_that_was_finished(tmp_path, kind):
    """One process at a time: three are killed, the fourth goes on where they were."""
    crowd = Crowd(STORAGES[kind].format(tmp_path / "killed"), tmp_path / "killed", trials=14, parallel=4)
    for after in (3, 2, 4):
        crowd.kill_at_work(process := crowd.start(), after=after)
        finished = {line for line in crowd.lines(process) if not line.startswith("begins")}
        with crowd.study() as study:
            assert finished <= {f"{record.number} {dict(record.params)}" for record in records(study)}
    crowd.start()
    found = crowd.finish()
    assert same(found, alone(STORAGES["journal"].format(tmp_path / "whole"), trials=14, parallel=4))
    crowd.check_nothing_was_done_twice()
