from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from autocompress.profiling.episodes import (
    SMALLEST_SLOWDOWN,
    Conditions,
    Episode,
    Observation,
    describe,
    find_episodes,
    marks,
    smallest_detected,
)

NOISES = {
    "normal": lambda rng, count: rng.standard_normal(count),
    "laplace": lambda rng, count: rng.laplace(size=count) / np.sqrt(2),
    "student": lambda rng, count: rng.standard_t(3, size=count) / np.sqrt(3),
}
"""All of variance one; the latter two throw far outliers."""
CALM = Conditions(frequency_ghz=2.4, temperature_c=60.0, waited_share=0.0)


def observed(levels: np.ndarray, conditions: Sequence[Conditions] = ()) -> list[Observation]:
    """A run whose reference kernel takes ``exp(levels)`` ms, one sample a second."""
    beside = conditions or [Conditions()] * len(levels)
    return [
        Observation(float(second), latency_ms=100.0, reference_ms=float(np.exp(level)), conditions=each)
        for second, (level, each) in enumerate(zip(levels, beside, strict=True))
    ]


def slowed(rng: np.random.Generator, kind: str, count: int, spread: float, truth: dict[range, float]) -> np.ndarray:
    levels = spread * NOISES[kind](rng, count)
    for stretch, slowdown in truth.items():
        levels[stretch] += np.log1p(slowdown)
    return levels


class Rates:
    """Counts episodes of which at least half was marked, and clean samples that were."""

    def __init__(self) -> None:
        self.found = self.episodes = self.false = self.clean = 0

    def add(self, run: Sequence[Observation], truth: dict[range, float]) -> None:
        marked = np.array(marks(find_episodes(run), len(run)))
        clean = np.ones(len(run), dtype=bool)
        for stretch in truth:
            clean[stretch] = False
            self.found += bool(marked[stretch].mean() >= 0.5)
            self.episodes += 1
        self.false += int(marked[clean].sum())
        self.clean += int(clean.sum())

    def hold(self) -> None:
        assert self.found >= 0.95 * self.episodes, f"{self.found} of {self.episodes} episodes found"
        assert self.false <= 0.02 * self.clean, f"{self.false} of {self.clean} clean samples marked"


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("slowdown", [0.1, 0.2, 0.42, 1.0])
@pytest.mark.parametrize("spread", [0.003, 0.01, 0.02, 0.03])
def test_injected_episodes_are_found_and_clean_samples_left_alone(kind, slowdown, spread):
    count, power = 120, 1.645  # Of a normal statistic, 95 % lie above its mean less that.
    rates = Rates()
    for length in (3, 6, 20, count // 2):
        if slowdown < smallest_detected(spread, length, count) + power * spread / np.sqrt(length):
            continue
        for seed in range(15):
            rng = np.random.default_rng([seed, length])
            start = int(rng.integers(0, count - length + 1))
            truth = {range(start, start + length): slowdown}
            rates.add(observed(slowed(rng, kind, count, spread, truth)), truth)
    assert rates.episodes >= 15
    rates.hold()


def duty_cycle(rng: np.random.Generator, count: int) -> Iterator[range]:
    start = int(rng.integers(3, 20))
    while start + 15 < count:
        yield range(start, start + int(rng.integers(3, 15)))
        start += 15 + int(rng.integers(5, 20))


@pytest.mark.parametrize("kind", NOISES)
def test_a_neighbour_that_comes_and_goes_is_found_each_time(kind):
    rates = Rates()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        truth = {stretch: float(rng.uniform(0.2, 1.0)) for stretch in duty_cycle(rng, 300)}
        rates.add(observed(slowed(rng, kind, 300, 0.02, truth)), truth)
    assert rates.episodes > 100
    rates.hold()


@pytest.mark.parametrize("kind", NOISES)
@pytest.mark.parametrize("spread", [0.003, 0.02, 0.05, 0.1])
def test_in_a_calm_run_almost_nothing_is_marked(kind, spread):
    rates = Rates()
    for seed in range(30):
        rates.add(observed(slowed(np.random.default_rng(seed), kind, 200, spread, {})), {})
    rates.hold()


def test_a_device_that_wanders_by_less_than_the_smallest_slowdown_is_calm():
    wander = 0.45 * np.log1p(SMALLEST_SLOWDOWN) * np.sin(np.linspace(0, 20, 400))
    assert find_episodes(observed(wander)) == ()


def test_an_episode_tells_its_samples_times_and_slowdown():
    (episode,) = find_episodes(observed(np.repeat([0.0, np.log(1.42), 0.0], [120, 52, 60])))
    assert episode.samples == range(120, 172)
    assert (episode.start_s, episode.end_s) == (120.0, pytest.approx(171.1))  # The last sample took 100 ms.
    assert episode.slowdown == pytest.approx(0.42)
    assert marks([episode], 232) == tuple(120 <= position < 172 for position in range(232))


def test_without_a_reference_the_latency_speaks_relative_to_what_is_expected():
    expected = np.random.default_rng(0).uniform(1.0, 50.0, 100)
    factors = np.repeat([1.0, 1.5, 1.0], [40, 20, 40])
    run = [
        Observation(float(second), latency_ms=float(factor * usual), expected_ms=float(usual))
        for second, (usual, factor) in enumerate(zip(expected, factors, strict=True))
    ]
    (episode,) = find_episodes(run)
    assert episode.samples == range(40, 60)
    assert episode.slowdown == pytest.approx(0.5)


def test_where_nothing_is_known_nothing_is_claimed():
    assert find_episodes(()) == ()
    assert find_episodes([Observation(float(second), latency_ms=1.0 + second) for second in range(30)]) == ()


def test_a_sample_that_waited_belongs_to_a_neighbour_even_if_the_reference_did_not():
    beside = [CALM] * 10 + [replace(CALM, waited_share=0.5)] * 2 + [CALM] * 10
    (episode,) = find_episodes(observed(np.zeros(22), beside))
    assert (episode.samples, episode.cause) == (range(10, 12), "neighbour")
    assert episode.slowdown == pytest.approx(1.0)  # Half of the time waiting: twice the time.


LEVELS = np.repeat([0.0, np.log(4 / 3), 0.0], 20)


@pytest.mark.parametrize(
    ("during", "cause"),
    [
        (CALM, "unknown"),
        (Conditions(), "unknown"),
        (replace(CALM, frequency_ghz=1.8), "throttling"),
        (replace(CALM, frequency_ghz=2.39), "unknown"),
        (replace(CALM, temperature_c=82.0), "throttling"),
        (replace(CALM, waited_share=0.25), "neighbour"),
        # A neighbour warms the processor, which then clocks a little lower; waiting explains more of the time.
        (Conditions(frequency_ghz=2.3, temperature_c=82.0, waited_share=0.25), "neighbour"),
        (Conditions(frequency_ghz=1.2, temperature_c=82.0, waited_share=0.06), "throttling"),
    ],
)
def test_causes_come_from_evidence(during, cause):
    (episode,) = find_episodes(observed(LEVELS, [CALM] * 20 + [during] * 20 + [CALM] * 20))
    assert (episode.samples, episode.cause) == (range(20, 40), cause)
    assert (episode.usual, episode.during) == (CALM, during)


def test_what_is_too_hot_is_said_by_the_caller():
    run = observed(LEVELS, [CALM] * 20 + [replace(CALM, temperature_c=82.0)] * 20 + [CALM] * 20)
    (episode,) = find_episodes(run, hottest_c=90.0)
    assert episode.cause == "unknown"


def test_a_run_that_was_slow_for_most_of_the_time_is_held_against_its_fast_part():
    (episode,) = find_episodes(observed(np.repeat([np.log(1.3), 0.0], [65, 35])))
    assert episode.samples == range(65)


def test_an_episode_is_worded_with_its_evidence():
    episode = Episode(
        120.0, 171.0, 0.42, "throttling", range(120, 172), CALM, replace(CALM, frequency_ghz=1.8, temperature_c=None)
    )
    assert describe(episode) == "slow by 42 % from sample 120 to 171: throttling, 2.4 to 1.8 GHz"
    hot = replace(episode, during=replace(CALM, temperature_c=82.4))
    assert describe(hot) == "slow by 42 % from sample 120 to 171: throttling, up to 82 °C"
    busy = replace(episode, cause="neighbour", slowdown=1.0, during=replace(CALM, waited_share=0.5))
    assert describe(busy) == "slow by 100 % from sample 120 to 171: neighbour, 50 % of the time spent waiting"
    single = replace(episode, cause="unknown", samples=range(7, 8))
    assert describe(single) == "slow by 42 % at sample 7: cause unknown"
