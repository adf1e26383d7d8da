from pathlib import Path

import pytest

from autocompress.errors import StorageError
from autocompress.search import journal as journal_module
from autocompress.search.journal import Journal
from autocompress.search.records import records
from autocompress.search.storage import bind, open_study
from autocompress.search.study import search
from tests.search.synthetic import ANCHORS, objective


def go(storage: str, *, trials: int, resume: bool):
    return search(open_study(storage, "run", resume=resume), objective(), trials=trials, seed=3, anchors=ANCHORS)


@pytest.mark.parametrize("missing", [1, 2, 30, 100])
def test_a_journal_whose_last_line_was_cut_off_goes_on_and_can_be_read_again(tmp_path, missing):
    """A full disk cuts a line anywhere; what is appended must not be glued to the rest of it."""
    storage = f"journal:{tmp_path}/study.log"
    go(storage, trials=6, resume=False)
    log = tmp_path / "study.log"
    log.write_bytes(log.read_bytes()[:-missing])
    kept = records(open_study(storage, "run", resume=True))
    after = go(storage, trials=9, resume=True)
    assert records(open_study(storage, "run", resume=True)) == after
    assert after[: len(kept)] == kept
    whole = go(f"journal:{tmp_path}/whole.log", trials=9, resume=False)
    assert [record.params for record in after] == [record.params for record in whole]


def test_a_study_that_filled_its_disk_goes_on_when_there_is_room_again(tmp_path, disk):
    storage = f"journal:{disk.folder}/study.log"
    disk.resize(12 * 1024)  # Three pages: the line that does not fit is cut off at the end of the third.
    with pytest.raises(OSError, match="No space left"):
        go(storage, trials=40, resume=False)
    content = (disk.folder / "study.log").read_bytes()
    assert len(content) == 12 * 1024 and not content.endswith(b"\n")
    kept = records(open_study(storage, "run", resume=True))
    assert kept
    disk.resize(2**20)
    after = go(storage, trials=20, resume=True)
    assert records(open_study(storage, "run", resume=True)) == after
    assert after[: len(kept)] == kept
    whole = go(f"journal:{tmp_path}/whole.log", trials=20, resume=False)
    assert [record.params for record in after] == [record.params for record in whole]


@pytest.mark.parametrize("content", [b"", b"not a journal", b'{"a": 1}\nnot a journal', b"\xff\x00" * 9])
def test_what_is_no_line_that_was_cut_off_is_left_as_it_is(tmp_path, content):
    log = tmp_path / "study.log"
    log.write_bytes(content)
    Journal(log).append_logs([{"new": 1}])
    assert log.read_bytes() == content + b'{"new":1}\n'


@pytest.mark.parametrize("storage", ["journal:{}/study.log", "sqlite:///{}/study.db"])
def test_looking_at_a_study_writes_nothing(tmp_path, storage):
    go(storage.format(tmp_path), trials=3, resume=False)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert records(open_study(storage.format(tmp_path), "run", resume=True))
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("half", [b"{", b'{"a": "' + 10_000 * b"x"])
def test_a_line_that_another_process_left_unfinished_is_cut_off_before_the_next(tmp_path, half):
    """However long it is: it may begin before the last block that is read."""
    log = tmp_path / "study.log"
    journal = Journal(log)
    journal.append_logs([{"whole": 1}])
    log.write_bytes(log.read_bytes() + half)
    journal.append_logs([{"next": 2}])
    assert list(journal.read_logs(0)) == [{"whole": 1}, {"next": 2}]
    assert list(Journal(log).read_logs(0)) == [{"whole": 1}, {"next": 2}]


def test_a_study_without_candidates_can_be_tied_to_another_configuration(tmp_path):
    """After an impossible budget the user raises it under the same name; nothing is there that could be mixed."""
    storage = f"journal:{tmp_path}/study.log"
    study = open_study(storage, "run", resume=False)
    bind(study, "impossible")
    bind(study, "possible")
    search(study, objective(), trials=1, seed=0)
    with pytest.raises(StorageError, match="another configuration"):
        bind(study, "impossible")


@pytest.mark.parametrize("absolute", [True, False])
def test_the_lock_of_a_killed_process_holds_nobody_up_for_long(tmp_path, monkeypatch, absolute):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(journal_module, "STALE_LOCK_S", 3)
    journal = (tmp_path if absolute else Path("runs")) / "study.log"
    open_study(f"journal:{journal}", "run", resume=False)
    journal_module._Mending(journal).acquire()  # As by a process that was killed before it released it.
    search(open_study(f"journal:{journal}", "run", resume=True), objective(), trials=1, seed=0)
    assert len(records(open_study(f"journal:{journal}", "run", resume=True))) >= 1
