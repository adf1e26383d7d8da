from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from plotly.offline import get_plotlyjs

from autocompress.report.page import render
from autocompress.report.units import percent
from autocompress.report.values import RunReport
from tests.report.conftest import EPISODE
from tests.report.test_markup import Reader

SECTIONS = [
    "Verdict",
    "Goal",
    "Baselines on the same device",
    "Score over latency",
    "Predicted against measured",
    "Candidates",
    "Predictor health",
    "Parity",
    "Failures",
    "How to reproduce",
]
LOADS = {"src", "href", "srcset", "data", "poster", "action"}
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def own(page: str) -> str:
    """Return the page without the plotting library, whose text holds markup of its own."""
    assert page.count(get_plotlyjs()) == 1
    return page.replace(get_plotlyjs(), "")


def test_the_page_loads_nothing_from_anywhere(report: RunReport) -> None:
    page = own(render(report))
    loaded = [value for _, attributes in Reader(page).tags for name, value in attributes.items() if name in LOADS]
    assert loaded == []
    assert not re.search(r"https?:|url\(|@import|//\w+\.\w+/", page)
    assert "default-src 'none'" in page


def test_the_sections_stand_in_the_order_of_what_matters(
    report: RunReport, disturbed_report: RunReport, infeasible_report: RunReport
) -> None:
    for told in (report, disturbed_report, infeasible_report):
        assert re.findall(r"<h2>(.*?)</h2>", render(told)) == SECTIONS


def test_every_value_is_shown(report: RunReport) -> None:
    text = Reader(own(render(report))).text
    assert report.goal is not None
    shown = [
        *(report.title, report.created, report.device, report.engine, "4 threads"),
        *("16.4 ms", "≤ 18 ms", "16.2 ms (15.4 to 17.0 ms)", "128 MiB", "≤ 160 MiB", "no limit"),
        *(percent(report.goal.teacher, 2), "94.06 % ± 0.51", "1.01 points", "2,189 examples"),
        *(row.name for row in report.baselines),
        *(f"#{row.number}" for row in report.candidates),
        *(row.plan_summary for row in report.candidates),
        *(row.label for row in report.candidates),
        *(report.predictor.source, "64 samples", "2.2 %", "98.4 %", "90.6 %"),
        *(row.engine for row in report.parity),
        *("3.10e-05", "4.60e-05", "1e-03", "99.95 %"),
        *(row.reason for row in report.failures),
        *report.reproduction,
        *(word for pair in report.versions.items() for word in pair),
    ]
    assert [value for value in shown if value not in text] == []


def test_an_uncalibrated_estimate_says_so_where_the_verdict_is(report: RunReport, infeasible_report: RunReport) -> None:
    verdict = render(infeasible_report).partition("<h2>Goal</h2>")[0]
    assert "Estimated, not calibrated" in verdict
    assert infeasible_report.blocked in verdict
    assert "stimated, not calibrated" not in own(render(report))


def health(report: RunReport) -> str:
    return own(render(report)).partition("<h2>Predictor health</h2>")[2].partition("<h2>Parity</h2>")[0]


def test_an_episode_is_drawn_and_told(disturbed_report: RunReport) -> None:
    told = health(disturbed_report)
    assert 'data-figure="timeline"' in told
    assert EPISODE in told and "measured again" in told
    assert "timed out 2" in told


def test_a_steady_profile_says_so(disturbed_report: RunReport) -> None:
    steady = tuple(replace(moment, slow=False) for moment in disturbed_report.predictor.timeline)
    told = health(with_health(disturbed_report, timeline=steady, episodes=(), failed=""))
    assert 'data-figure="timeline"' in told
    assert "never slow" in told
    assert "could not be measured" not in told


@pytest.mark.parametrize("timed", [False, True])
def test_without_a_timeline_there_is_neither_plot_nor_a_word_on_it(disturbed_report: RunReport, timed: bool) -> None:
    untimed = tuple(replace(moment, reference_ms=None) for moment in disturbed_report.predictor.timeline)
    told = health(with_health(disturbed_report, timeline=untimed if timed else (), episodes=()))
    assert "timeline" not in told and "slow" not in told


def test_an_emulated_device_is_labelled_and_not_calibrated(disturbed_report: RunReport) -> None:
    verdict = render(disturbed_report).partition("<h2>Goal</h2>")[0]
    for told in (verdict, health(disturbed_report)):
        assert "Estimated, not calibrated" in told and "qemu-aarch64-static" in told
    assert "data sheet" not in own(render(disturbed_report))


def with_health(report: RunReport, **changes: object) -> RunReport:
    return replace(report, predictor=replace(report.predictor, **changes))


def every_text(report: RunReport, word: str) -> RunReport:
    """Return ``report`` with ``word`` for every text that comes from outside."""
    assert report.goal is not None
    pairs = tuple(replace(pair, label=word) for pair in report.predictor.pairs)
    return replace(
        report,
        **dict.fromkeys(("title", "created", "device", "engine", "blocked", "reachable"), word),
        goal=replace(report.goal, metric=word),
        candidates=tuple(replace(row, label=word, plan_summary=word) for row in report.candidates),
        baselines=tuple(replace(row, name=word) for row in report.baselines),
        predictor=replace(report.predictor, source=word, pairs=pairs, episodes=(word,), failed=word, emulator=word),
        failures=tuple(replace(row, reason=word) for row in report.failures),
        parity=tuple(replace(row, engine=word) for row in report.parity),
        reproduction=(word,),
        versions={word: word},
    )


def test_what_an_emulator_measured_is_called_emulated_where_the_verdict_is(report: RunReport) -> None:
    emulated = replace(report, verdict="estimated", emulated="qemu-aarch64")
    verdict = Reader(own(render(emulated)).partition("<h2>Goal</h2>")[0]).text
    assert "emulated by qemu-aarch64" in verdict and "whose times are no real device's" in verdict
    assert "measured" not in verdict


def test_no_name_becomes_markup(disturbed_report: RunReport) -> None:
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'&"
    tame, hostile = (own(render(every_text(disturbed_report, word))) for word in ("word", evil))
    assert [name for name, _ in Reader(hostile).tags] == [name for name, _ in Reader(tame).tags]
    # Plotly reads hover texts as markup of its own, so they are escaped for it too.
    assert "\\u003cimg" not in hostile
    assert "&lt;img" in hostile


def test_the_page_suits_a_phone_and_both_colour_schemes(report: RunReport) -> None:
    page = own(render(report))
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in page
    assert "prefers-color-scheme: dark" in page
    tables = page.count("<table>")
    assert tables == page.count('<div class="scroll" tabindex="0"><table>') > 0


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None and "CI" not in os.environ, reason="chromium is not installed")
@pytest.mark.parametrize("kind", ["report", "disturbed_report", "infeasible_report"])
def test_a_browser_opens_the_page_and_draws_its_plots(
    kind: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    assert CHROMIUM is not None, "Install chromium: apt-get install chromium"
    told: RunReport = request.getfixturevalue(kind)
    page = tmp_path / "report.html"
    page.write_text(render(told), "utf-8")
    flags = ("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=10000")
    command = [CHROMIUM, *flags, f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert [line for line in done.stderr.splitlines() if "CONSOLE" in line] == []
    plots = 1 + bool(told.predictor.pairs) + bool(told.predictor.timeline)
    assert done.stdout.count('class="main-svg"') >= 2 * plots
    measured = sum(row.score is not None for row in told.baselines)
    assert len(re.findall(r'<path class="point"', done.stdout)) == (
        len(told.candidates) + measured + len(told.predictor.pairs) + len(told.predictor.timeline)
    )
