"""Whoever works on a study, and whoever dies: the sequence of candidates is the same."""

import pytest

from tests.search.crowd import Crowd, alone, same

STORAGES = {"journal": "journal:{}/study.log", "sqlite": "sqlite:///{}/study.db"}


@pytest.mark.parametrize("kind", STORAGES)
def test_four_processes_of_which_two_are_killed_find_what_one_finds(tmp_path, kind):
    crowd = Crowd(STORAGES[kind].format(tmp_path / "crowd"), tmp_path / "crowd", trials=30, parallel=4)
    workers = [crowd.start() for _ in range(4)]
    crowd.kill_at_work(workers[1], after=2)
    crowd.kill_at_work(workers[3], after=3)
    found = crowd.finish()
    assert same(found, alone(STORAGES["journal"].format(tmp_path / "alone"), trials=30, parallel=4))
    crowd.check_nothing_was_done_twice()
