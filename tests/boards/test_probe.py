from __future__ import annotations

import pytest

from autocompress.boards.probe import compare, probe
from autocompress.devices.detect import detect_host
from autocompress.devices.load import load_profile


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    return tmp_path


def test_a_board_without_a_profile_gets_one_that_is_found_right_the_next_time(serving, home):
    first = probe(serving.connection())
    assert first.written == home / "device_profiles/loopback.yaml"
    assert load_profile("loopback") == first.profile
    assert first.profile.isa == detect_host(measure_bandwidth=False).isa
    second = probe(serving.connection())
    assert second.written is None
    assert second.differences == ()
    assert second.round_trip_ms > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"vector_bits": 64}, "vector_bits is 64"),
        ({"isa": ("amx_int8", "made_up")}, "made_up"),
        ({"ram_bytes": 2**50}, "ram_bytes is 1048576.0 GiB"),
        ({"engines": {"tvm": "0.1"}}, "tvm is 0.1 in the profile"),
    ],
)
def test_each_difference_is_said(change, words):
    found = detect_host(measure_bandwidth=False)
    assert compare(found, found) == ()
    assert any(words in difference for difference in compare(found.model_copy(update=change), found))


def test_memory_that_the_system_keeps_for_itself_is_no_difference():
    found = detect_host(measure_bandwidth=False)
    said = found.model_copy(update={"ram_bytes": int(found.ram_bytes * 1.1)})
    assert compare(said, found) == ()
