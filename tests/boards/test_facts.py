from __future__ import annotations

import json
from dataclasses import replace

import pytest

from autocompress.boards.facts import Facts, Health, read_facts, read_health
from autocompress.devices.detect import profile_of

WELL = Health({"cpu": 50.0}, 1800.0, "performance", 0.1, 2**33, 2**30)


def test_facts_survive_their_json_and_make_the_profile_that_they_made(tmp_path):
    facts = read_facts(tmp_path)
    again = Facts.from_dict(json.loads(json.dumps(facts.to_dict())))
    assert again == facts
    assert profile_of(again.system) == profile_of(facts.system)


def test_an_agent_may_say_more_than_this_version_knows(tmp_path):
    values = read_facts(tmp_path).to_dict()
    values["health"] = values["health"] | {"mood": "fine"}
    assert Facts.from_dict(values).to_dict()["health"].keys() == WELL.__dict__.keys()


def test_health_tells_the_free_room(tmp_path):
    health = read_health(tmp_path)
    assert health.free_disk_bytes > 0
    assert health.free_memory_bytes > 0
    assert health.load >= 0


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
