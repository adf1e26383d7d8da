"""Two users profile one board at the same time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from autocompress.predictors.sampling import sample_shapes
from autocompress.shape import ModelShape
from tests.boards.agents import surroundings, wait_until
from tests.boards.far_profile import SAMPLES, VARIETY, teacher

PROJECT = Path(__file__).parents[2]
LAYERS = {"first": 2, "second": 3}
"""Of each user's teacher, so that samples that came to the wrong one would be seen."""


def samples(home: Path) -> list[dict]:
    """Return what is in the journal."""
    lines = [line for path in home.glob("samples/*.jsonl") for line in path.read_text().splitlines()]
    return [json.loads(line) for line in lines if '"shape"' in line]


@pytest.mark.slow
@pytest.mark.parametrize("kills", [0, 4])
def test_two_profiles_at_once_hold_their_own_samples_each_once(fresh, tmp_path, kills):
    homes = {user: tmp_path / user for user in LAYERS}
    running = {}
    for user, layers in LAYERS.items():
        command = [sys.executable, "-m", "tests.boards.far_profile", user, str(fresh.place), str(layers)]
        running[user] = subprocess.Popen(
            command, cwd=PROJECT, env=surroundings(homes[user]), stderr=subprocess.PIPE, text=True
        )
    try:
        for kill in range(kills):
            wait_until(lambda: sum(map(len, map(samples, homes.values()))) >= 3 * kill + 1, timeout_s=600)  # noqa: B023
            wait_until(fresh.worker, timeout_s=600)
            server = fresh.server()
            server.kill()
            server.wait(10)
        for user, process in running.items():
            _, errors = process.communicate(timeout=600)
            assert process.returncode == 0, f"{user}: {errors}"
    finally:
        for process in running.values():
            process.kill()
    for user, home in homes.items():
        found = samples(home)
        assert [one for one in found if one["measurement"]["device"] != user] == []
        shapes = [ModelShape.from_dict(one["shape"]) for one in found]
        asked = sample_shapes(teacher(LAYERS[user]), SAMPLES, 0, VARIETY)
        assert shapes[: len(asked)] == list(asked)
        disturbed = shapes[len(asked) :]  # Those are measured again, at the end.
        assert set(disturbed) <= set(asked)
        (fitted,) = home.glob("latency_models/*.json")
        fits = [ModelShape.from_dict(one["shape"]) for one in json.loads(fitted.read_text())["samples"]]
        assert sorted(map(str, fits)) == sorted(map(str, asked))
    assert list(fresh.store.iterdir()) == []
