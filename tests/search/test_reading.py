import pytest

from autocompress.search.reading import Reading
from autocompress.search.records import records
from autocompress.search.storage import close, open_study
from tests.search.synthetic import ANCHORS, objective, search

STORAGES = {"journal": "journal:{}/study.log", "sqlite": "sqlite:///{}/study.db"}


@pytest.fixture(params=STORAGES)
def storage(request, tmp_path):
    return STORAGES[request.param].format(tmp_path)


def searched(storage, trials, *, resume=False):
    study = open_study(storage, "run", resume=resume)
    search(study, objective(), trials=trials, seed=1, anchors=ANCHORS)
    return study


def test_what_another_process_adds_and_finishes_is_read_and_nothing_else(storage):
    study = searched(storage, 3)
    reading = Reading(study)
    first = reading.refresh([])
    assert [trial.number for trial in first] == list(range(len(first)))
    assert reading.refresh([]) == []
    other = open_study(storage, "run", resume=True)
    begun = other.ask()
    (new,) = reading.refresh([])
    assert new.number == begun.number == len(first) and not reading[new.number].state.is_finished()
    other._storage.set_trial_state_values(begun._trial_id, type(new.state).FAIL)
    assert not reading[new.number].state.is_finished()
    assert reading.refresh([new.number]) == [] and reading[new.number].state.is_finished()
    assert [reading[trial.number] for trial in first] == first
    close(study), close(other)


def test_what_is_offered_to_all_candidates_is_held_once(storage):
    study = searched(storage, 5)
    trials = Reading(study).refresh([])
    assert len({id(trial.distributions) for trial in trials}) == 1 and trials[-1].distributions
    assert [dict(trial.params) for trial in trials] == [dict(record.params) for record in records(study)]
    close(study)


def test_of_a_long_journal_no_look_lists_all_trials(tmp_path, monkeypatch):
    study = searched(STORAGES["journal"].format(tmp_path), 4)
    listed = []
    list_all = type(study).get_trials
    monkeypatch.setattr(type(study), "get_trials", lambda self, **how: listed.append(1) or list_all(self, **how))
    search(study, objective(), trials=12, seed=1, anchors=None)
    assert len(listed) <= 3  # When it begins and when it ends, not once a candidate.
