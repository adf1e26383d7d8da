"""The ledger, with workers that are played: each is a ``Ledger`` of its own on one study."""

import time

import optuna
import pytest
from optuna.trial import TrialState

from autocompress.search import workers
from autocompress.search.attempts import TakenOverError, begin
from autocompress.search.places import LOST_LIMIT, Ledger
from autocompress.search.records import records
from autocompress.search.study import search
from autocompress.search.workers import Watch, Worker, machine, working
from tests.search.synthetic import ANCHORS, objective

optuna.logging.set_verbosity(optuna.logging.WARNING)
ABOUT = {"candidate": {"plan": [], "cost": {}, "label": ""}}
ELSEWHERE = Worker("mark", "elsewhere boot pid", 1, 0.0)


@pytest.fixture
def study():
    return optuna.create_study(directions=["maximize", "minimize"])


@pytest.fixture
def worker():
    with working() as worker:
        yield worker


def score(ledger: Ledger, place: int, worker: Worker) -> None:
    ledger.take(place, worker, **ABOUT).finish(TrialState.COMPLETE, (0.5, 1.0))
    ledger.refresh()


def test_so_many_places_are_free_as_may_be_in_work_at_once(study, worker):
    ledger = Ledger(study)
    assert list(ledger.free(trials=9, parallel=3)) == [0, 1, 2]
    ledger.take(1, worker)
    assert list(ledger.free(trials=9, parallel=3)) == [0, 2]
    score(ledger, 0, worker)
    assert list(ledger.free(trials=9, parallel=3)) == [2, 3]  # Place 4 needs the result of place 1.


def test_no_place_is_taken_up_that_is_not_needed_for_the_trials_asked_for(study, worker):
    """What is in work may yet be scored; only what fails or is over budget makes room for another."""
    ledger = Ledger(study)
    first = ledger.take(0, worker)
    ledger.take(1, worker)
    assert list(ledger.free(trials=2, parallel=9)) == []
    first.finish(TrialState.PRUNED)
    ledger.refresh()
    assert list(ledger.free(trials=2, parallel=9)) == [2]
    score(ledger, 2, worker)
    assert list(ledger.free(trials=2, parallel=9)) == []


def test_a_place_that_is_held_is_not_taken_up(study, worker):
    assert Ledger(study).take(0, worker, **ABOUT) is not None
    assert Ledger(study).take(0, worker, **ABOUT) is None
    assert len(study.get_trials(deepcopy=False)) == 1


@pytest.mark.parametrize("finished", [False, True])
def test_of_two_who_take_one_place_up_at_once_the_first_has_it_and_the_other_withdraws(study, worker, finished):
    """The second has seen the place free just before the first wrote its trial, and perhaps its result."""
    first = Ledger(study)

    class Late(Ledger):
        def refresh(self) -> None:
            super().refresh()
            if not study.get_trials(deepcopy=False):
                held = first.take(0, worker, **ABOUT)
                if finished:
                    held.finish(TrialState.COMPLETE, (0.5, 1.0))

    late = Late(study)
    assert late.take(0, worker, **ABOUT) is None
    late.refresh()
    assert (late.in_work(), late.done(0), late.lost(0)) == (int(not finished), finished, 0)
    (_, withdrawn) = study.get_trials(deepcopy=False)
    assert withdrawn.state is TrialState.FAIL and withdrawn.user_attrs["back"]


def test_what_is_given_back_is_free_at_once_and_counts_for_nothing(study, worker):
    ledger = Ledger(study)
    for _ in range(LOST_LIMIT + 1):
        ledger.take(0, worker).give_back()
        ledger.refresh()
    assert (ledger.lost(0), list(ledger.free(trials=9, parallel=1))) == (0, [0])


def test_a_place_whose_workers_are_lost_again_and_again_is_a_candidate_that_failed(study):
    for _ in range(LOST_LIMIT):
        with working() as worker:
            begin(study, 0, worker, **ABOUT)
        Ledger(study, Watch()).refresh()  # Its worker is gone: this process has ended it.
    found = search(study, objective(), trials=1, seed=0, anchors=ANCHORS[2:])
    assert found[0].state == "failed" and found[0].reason == f"its worker was lost {LOST_LIMIT} times"
    assert found[1].state == "scored"


def test_looking_at_a_study_closes_no_trial(study):
    with working() as worker:
        begin(study, 0, worker, **ABOUT)
    assert records(study) == []
    assert study.get_trials(deepcopy=False)[0].state is TrialState.RUNNING


def test_one_on_another_machine_counts_as_lost_once_no_beat_was_heard_for_long(study):
    clock = [0.0]
    ledger = Ledger(study, Watch(clock=lambda: clock[0]))
    attempt = begin(study, 0, ELSEWHERE)
    for clock[0] in (0.0, workers.GRACE_S - 1, workers.GRACE_S):
        ledger.refresh()
        assert ledger.in_work() == 1
    attempt.note(beat=1)
    for clock[0] in (workers.GRACE_S + 1, 2 * workers.GRACE_S):
        ledger.refresh()
        assert ledger.in_work() == 1
    clock[0] = 2 * workers.GRACE_S + 2
    ledger.refresh()
    ledger.refresh()
    assert (ledger.in_work(), ledger.lost(0)) == (0, 1)
    with pytest.raises(TakenOverError):  # It lives after all: what it found is not its own to write any more.
        attempt.finish(TrialState.COMPLETE, (0.5, 1.0))


def test_after_the_storage_was_away_signs_of_life_are_waited_for_anew(study):
    """Whoever works could write none in the meantime."""
    clock = [0.0]
    ledger = Ledger(study, Watch(clock=lambda: clock[0]))
    begin(study, 0, ELSEWHERE)
    ledger.refresh()
    clock[0] = 10 * workers.GRACE_S
    ledger.listen_anew()
    ledger.refresh()
    assert ledger.in_work() == 1
    clock[0] = 11 * workers.GRACE_S + 1
    ledger.refresh()
    assert ledger.in_work() == 0


def test_a_worker_gives_signs_of_life_while_it_scores(study, worker, monkeypatch):
    monkeypatch.setattr(workers, "BEAT_S", 0.01)
    attempt = begin(study, 0, worker)
    with attempt.beating():
        deadline = time.monotonic() + 10
        while study.get_trials(deepcopy=False)[0].user_attrs.get("beat", 0) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert study.get_trials(deepcopy=False)[0].user_attrs["beat"] >= 2


def test_a_sign_of_life_that_cannot_be_written_is_followed_by_the_next(study, worker, monkeypatch):
    """A server may be away for a while; a journal cuts off what a full disk left of a line."""
    monkeypatch.setattr(workers, "BEAT_S", 0.01)
    attempt, write, failures = begin(study, 0, worker), study._storage.set_trial_user_attr, []

    def failing(*about) -> None:
        if len(failures) < 3:
            failures.append(about)
            raise OSError(28, "No space left on device")
        write(*about)

    monkeypatch.setattr(study._storage, "set_trial_user_attr", failing)
    with attempt.beating():
        deadline = time.monotonic() + 10
        while "beat" not in study.get_trials(deepcopy=False)[0].user_attrs and time.monotonic() < deadline:
            time.sleep(0.01)
    assert study.get_trials(deepcopy=False)[0].user_attrs["beat"] >= 4 and attempt.was_away
    attempt.finish(TrialState.COMPLETE, (0.5, 1.0))


def test_a_process_is_known_by_its_number_and_when_it_began():
    with working() as worker:
        assert not worker.gone()
    assert worker.gone()
    parent = Worker("mark", machine(), 1, 0.0)  # There is a process 1, but it did not begin in 1970.
    assert parent.gone()
    assert not ELSEWHERE.gone()


@pytest.mark.parametrize("count", [400, 1600])
def test_a_look_at_a_long_study_reads_only_what_is_new(study, worker, count):
    """By counting: trials that are looked at again are only those in work."""
    looked = []

    class Counting(Ledger):
        def _look(self, number: int, place: int) -> bool:
            looked.append(number)
            return super()._look(number, place)

    trial = optuna.trial.create_trial(values=[0.5, 1.0], user_attrs={"worker": worker.to_attribute(), **ABOUT})
    for place in range(count):
        trial.user_attrs["place"] = place
        study.add_trial(trial)
    ledger = Counting(study)
    ledger.refresh()
    looked.clear()
    for place in range(count, count + 5):
        score(ledger, place, worker)
    assert looked == [number for number in range(count, count + 5) for _ in range(2)]
