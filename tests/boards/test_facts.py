from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocompress.boards import facts
from autocompress.boards.facts import Facts, Health, read_facts, read_health
from autocompress.devices.detect import profile_of
from autocompress.profiling.conditions import ProcessorState

WELL = Health({"cpu": 50.0}, 1800.0, "performance", 0.1, 2**33, 2**30)


def test_facts_survive_their_json_and_make_the_profile_that_they_made(tmp_path):
    said = read_facts(tmp_path)
    again = Facts.from_dict(json.loads(json.dumps(said.to_dict())))
    assert again == said
    assert profile_of(again.system) == profile_of(said.system)


def test_an_agent_may_say_more_than_this_version_knows(tmp_path):
    values = read_facts(tmp_path).to_dict()
    values["health"] = values["health"] | {"mood": "fine"}
    assert Facts.from_dict(values).to_dict()["health"].keys() == WELL.__dict__.keys()


def test_health_tells_the_free_room(tmp_path):
    health = read_health(tmp_path)
    assert health.free_disk_bytes > 0
    assert health.free_memory_bytes > 0
    assert health.load >= 0


def test_health_is_what_the_system_says_of_its_processor(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "read_state", lambda: ProcessorState(1.8, 61.0, "ondemand"))
    monkeypatch.setattr(facts, "read_temperatures", lambda: {"cpu_thermal": 61.0, "nvme": 40.0})
    health = read_health(tmp_path)
    assert (health.frequency_mhz, health.governor) == (1800.0, "ondemand")
    assert health.temperatures_c == {"cpu_thermal": 61.0, "nvme": 40.0}


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"temperatures_c": {"cpu": 81.0, "nvme": 40.0}}, "81 degrees"),
        ({"load": 1.5}, "busy"),
        ({"governor": "ondemand"}, "governor"),
        ({"free_disk_bytes": 2**20}, "disk"),
        ({"free_memory_bytes": 2**20}, "memory"),
    ],
)
def test_what_makes_measurements_doubtful_is_said(change, word):
    assert WELL.worries() == ()
    (worry,) = replace(WELL, **change).worries()
    assert word in worry


def test_what_a_system_does_not_say_is_no_worry():
    assert replace(WELL, temperatures_c={}, frequency_mhz=None, governor="").worries() == ()
