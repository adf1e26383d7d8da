"""What the report says of a predictor; the rest of a summary is held by the test of a whole run."""

from __future__ import annotations

from dataclasses import asdict, replace
from types import SimpleNamespace

import pytest

from autocompress.pipeline.summary import _health
from autocompress.predictors.predictor import Moment
from tests.predictors.synthetic import fitted

MOMENTS = (Moment(10.0, 2.5, 0.0, slow=False), Moment(40.0, None, 0.3, slow=True))
EPISODES = ("slow by 42 % at sample 1: cause unknown", "slow by 9 % at sample 7: cause unknown")


def health(timeline=(), **provenance: str):
    """Return what is told of a predictor in a run that measured nothing."""
    predictor = replace(fitted(), provenance=provenance, timeline=timeline)
    return _health(SimpleNamespace(predictor=predictor), SimpleNamespace(made=(), measured={}))


def test_how_the_device_was_is_told():
    told = health(MOMENTS, episodes="; ".join(EPISODES), failures="timed out 2")
    assert [asdict(moment) for moment in told.timeline] == [asdict(moment) for moment in MOMENTS]
    assert told.episodes == EPISODES
    assert told.failed == "timed out 2"
    assert told.calibrated and not told.emulator


@pytest.mark.parametrize("provenance", [{}, {"episodes": "none", "failures": "none"}])
def test_where_nothing_was_kept_or_nothing_happened_there_is_nothing_to_tell(provenance):
    told = health(**provenance)
    assert (told.timeline, told.episodes, told.failed) == ((), (), "")


def test_an_emulated_device_is_named_and_not_calibrated():
    told = health(emulated="qemu-aarch64")
    assert not told.calibrated
    assert told.emulator == "qemu-aarch64"
    assert "qemu-aarch64" in told.source


def test_samples_that_were_left_out_of_the_fit_are_shown_with_how_many_their_intervals_hold():
    predictor, told = fitted(), health()
    drawn = [sample for sample in predictor.samples if sample.drawn]
    assert [pair.measured for pair in told.held_out] == [sample.latency_p50_ms for sample in drawn]
    assert told.coverage == sum(pair.covered for pair in told.held_out) / len(drawn)
    assert told.held_out_mape == pytest.approx(
        sum(abs(pair.predicted.value / pair.measured - 1) for pair in told.held_out) / len(drawn)
    )
