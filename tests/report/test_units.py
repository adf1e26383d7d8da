from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.cost import LIMITS, Estimate
from autocompress.report.units import TITLES, figure, give_or_take, interval, percent, ratio

SCALE = {"ms": 1.0, "mJ": 1.0, "B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30}


@given(st.sampled_from(LIMITS), st.floats(min_value=1.0, max_value=2.0**40))
def test_a_figure_reads_back_to_three_figures(name: str, value: float) -> None:
    number, unit = figure(name, value).split()
    assert float(number) * SCALE[unit] == pytest.approx(value, rel=5.1e-3)
    assert len(number.replace(".", "")) <= 4 or unit in ("ms", "mJ", "GiB")


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("latency_p50_ms", 0.126, "0.13 ms"),
        ("latency_p50_ms", 9.996, "10.0 ms"),
        ("latency_p95_ms", 60, "60 ms"),
        ("latency_p95_ms", 123.4, "123 ms"),
        ("size_bytes", 1023, "1023 B"),
        ("size_bytes", 1024**2 - 1, "1.00 MiB"),
        ("peak_memory_bytes", 250 * 1024**2, "250 MiB"),
        ("peak_memory_bytes", 1.5 * 1024**3, "1.50 GiB"),
        ("size_bytes", None, "–"),
    ],
)
def test_a_figure_is_written_in_the_unit_that_people_use(name: str, value: float | None, text: str) -> None:
    assert figure(name, value) == text


def test_a_figure_without_a_known_unit_is_refused() -> None:
    with pytest.raises(KeyError):
        figure("energy_joules", 1.0)


def test_every_limit_has_a_title_and_a_unit() -> None:
    assert set(TITLES) == set(LIMITS)
    assert all(figure(name, 5.0).split()[0] == "5" for name in LIMITS)


def test_an_interval_names_its_unit_once_unless_its_ends_differ_in_it() -> None:
    assert interval("latency_p50_ms", Estimate(16.2, 15.4, 17.0)) == "16.2 ms (15.4 to 17 ms)"
    mib = 2.0**20
    assert interval("size_bytes", Estimate(1.2 * mib, 0.75 * mib, 1.5 * mib)) == "1.20 MiB (768 KiB to 1.50 MiB)"
    assert interval("size_bytes", Estimate(mib, mib, mib)) == "1 MiB"


def test_shares_and_ratios_are_written_for_people() -> None:
    assert percent(0.98765, 2) == "98.77 %"
    assert percent(None) == "–"


def test_a_score_is_written_with_its_standard_error_where_that_is_known():
    assert give_or_take(0.94056, 0.0051) == "94.06 % ± 0.51"
    assert give_or_take(0.94056, 0.0) == "94.06 %"
    assert give_or_take(None, 0.0) == percent(None)
    assert ratio(43.8, 16.4) == "2.7×"
