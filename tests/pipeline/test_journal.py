"""What is written down of a profiling, and what is read of it after a kill."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocompress.cost import Failure, Measurement
from autocompress.errors import ConfigError, StorageError
from autocompress.pipeline.journal import Journal
from autocompress.shape import LayerShape, ModelShape

SHAPE = ModelShape("bert", 60, 16, 32, 32, (LayerShape(4, 8, 64),), 2)
OTHER = replace(SHAPE, classes=3)
RESULT = Measurement((1.5, 2.5), 30, 20, 10, "rpi4", "tvm", 2, {"reference_ms": "1.0"})
ABOUT = {"device": "rpi4", "threads": "2"}


@pytest.fixture
def journal(tmp_path):
    return Journal(tmp_path / "samples/rpi4.jsonl", ABOUT)


def test_what_was_measured_is_read_back_as_it_was(journal):
    assert journal.begin(resume=False) == {}
    journal.note(SHAPE, RESULT)
    assert journal.begin(resume=True) == {SHAPE: RESULT}


def test_what_failed_is_written_down_and_tried_again(journal):
    journal.begin(resume=False)
    journal.note(SHAPE, Failure("crash: SIGSEGV"))
    assert json.loads(journal.path.read_text().splitlines()[-1])["failure"] == "crash: SIGSEGV"
    assert journal.begin(resume=True) == {}


def test_a_new_run_keeps_the_raw_samples_of_earlier_ones_and_uses_none(journal):
    for result in (RESULT, replace(RESULT, samples_ms=(3.5,))):
        assert journal.begin(resume=False) == {}
        journal.note(SHAPE, result)
    assert journal.begin(resume=True)[SHAPE].samples_ms == (3.5,)
    assert journal.path.read_text().count("measurement") == 2


def test_a_run_that_measures_otherwise_is_not_gone_on_with(journal):
    journal.begin(resume=False)
    with pytest.raises(ConfigError, match="another threads"):
        replace(journal, about=ABOUT | {"threads": "4"}).begin(resume=True)


def test_to_resume_nothing_is_to_begin(journal):
    assert journal.begin(resume=True) == {}
    journal.note(SHAPE, RESULT)
    assert journal.begin(resume=True) == {SHAPE: RESULT}


def test_a_kill_at_any_byte_loses_at_most_the_sample_in_hand(journal):
    journal.begin(resume=False)
    journal.note(SHAPE, RESULT)
    whole = journal.path.read_bytes()
    journal.note(OTHER, RESULT)
    longer = journal.path.read_bytes()
    for cut in range(len(whole), len(longer), 7):
        journal.path.write_bytes(longer[:cut])
        assert journal.begin(resume=True) == {SHAPE: RESULT}
        journal.note(OTHER, RESULT)
        assert journal.begin(resume=True) == {SHAPE: RESULT, OTHER: RESULT}


def test_a_damaged_line_is_named(journal):
    journal.begin(resume=False)
    with journal.path.open("a") as file:
        file.write('{"shape": 3, "measurement"}\n')
    with pytest.raises(StorageError, match="Line 2"):
        journal.begin(resume=True)
