from __future__ import annotations

import random
from dataclasses import replace

import pytest

from autocompress.cost import Estimate
from autocompress.report.values import (
    BaselineRow,
    CandidateRow,
    FailureRow,
    GoalRow,
    LimitRow,
    Moment,
    Pair,
    ParityRow,
    PredictorHealth,
    RunReport,
)

MIB = 1024**2


def around(value: float, share: float) -> Estimate:
    return Estimate(value, value * (1 - share), value * (1 + share))


def candidates(random_source: random.Random) -> tuple[CandidateRow, ...]:
    def one(number: int) -> CandidateRow:
        depth, heads = random_source.randint(2, 6), random_source.choice((4, 6, 8, 12))
        ffn, bits = random_source.choice((384, 768, 1536)), random_source.choice((8, 32))
        work = depth / 6 * (0.45 * heads / 12 + 0.55 * ffn / 1536)
        latency = 3.0 + 41.0 * work * (1.0 if bits == 32 else 0.55)
        over = ("latency_p50_ms",) if latency > 18 else ()
        size = (11.0 + 43.0 * work) * (4 if bits == 32 else 1.3) / 2
        over = (*over, "size_bytes") if size > 60 else over
        return CandidateRow(
            number=number,
            stage="infeasible"
            if over
            else "refined"
            if number % 9 == 0
            else "stopped"
            if number % 5 == 0
            else "scored",
            label="",
            plan_summary=f"{depth} layers x 384, {heads} heads, ffn {ffn}, bits {bits}/{bits}/{bits}",
            score=None if over else 0.935 - 0.16 * (1 - work) ** 2 - random_source.uniform(0, 0.02),
            latency_p50_ms=around(latency, 0.05),
            measured_p50_ms=latency * random_source.uniform(0.96, 1.04) if not over and number % 9 == 0 else None,
            peak_memory_bytes=(95 + 1.6 * size) * MIB,
            size_bytes=size * MIB,
            violated=over,
        )

    anchors = (
        CandidateRow(
            0, "infeasible", "teacher, int8", "6 layers x 384, 12 heads, ffn 1536, bits 8/8/32", 0.9461,
            around(24.6, 0.05), 24.9, 168.0 * MIB, 54.3 * MIB, ("latency_p50_ms",),
        ),
        CandidateRow(
            1, "scored", "half depth", "3 layers x 384, 12 heads, ffn 1536, bits 8/8/8", 0.9178,
            around(13.4, 0.05), 13.2, 126.0 * MIB, 17.2 * MIB,
        ),
    )  # fmt: skip
    winner = CandidateRow(
        73, "exported", "", "4 layers x 384, 6-12 heads, ffn 640-1536, bits 8/8/8", 0.9406,
        around(16.2, 0.05), 16.4, 131.0 * MIB, 18.9 * MIB,
    )  # fmt: skip
    return (*anchors, *(one(number) for number in range(2, 73)), winner)


def make_report() -> RunReport:
    random_source = random.Random(0)
    tried = candidates(random_source)
    measured = [row for row in tried if row.measured_p50_ms is not None]
    return RunReport(
        title="all-MiniLM-L6-v2 for reuters-r8 on raspberry-pi-5",
        created="2026-08-14 09:41 UTC",
        device="raspberry-pi-5",
        engine="onnxruntime",
        threads=4,
        verdict="pass",
        blocked="",
        reachable="",
        limits=(
            LimitRow("latency_p50_ms", 18.0, around(16.2, 0.05), 16.4),
            LimitRow("latency_p95_ms", None, around(18.1, 0.09), 17.6),
            LimitRow("peak_memory_bytes", 160.0 * MIB, around(131.0 * MIB, 0.06), 128.4 * MIB),
            LimitRow("size_bytes", 60.0 * MIB, around(18.9 * MIB, 0.0), 18.9 * MIB),
        ),
        goal=GoalRow("accuracy", 0.9507, 0.9406, 0.00506, 2189, 2.0),
        candidates=tried,
        baselines=(
            BaselineRow("teacher, float32", "teacher", 0.9507, 43.8, 46.1, 214 * MIB, 87 * MIB, 200, 1.0),
            BaselineRow("teacher, int8", "baseline", 0.9461, 24.9, 26.0, 171 * MIB, 54 * MIB, 200, 0.9836),
            BaselineRow(
                "half depth, int8, distilled", "baseline", 0.9178, 13.2, 14.0, 124 * MIB, 17 * MIB, 200, 0.9338
            ),
            BaselineRow("prune, then quantize", "baseline", 0.9269, 17.3, 18.5, 133 * MIB, 20 * MIB, 200, 0.9484),
            BaselineRow("chosen student", "student", 0.9406, 16.4, 17.6, 134_637_158, 19_818_086, 200, 0.9653),
        ),
        predictor=PredictorHealth(
            source="latency_models/raspberry-pi-5-onnxruntime.json",
            calibrated=True,
            samples=64,
            held_out_mape=0.0216,
            within_10_percent=0.984,
            coverage=0.906,
            pairs=tuple(Pair(f"#{row.number}", row.latency_p50_ms, row.measured_p50_ms or 0.0) for row in measured)
            + tuple(
                Pair(f"calibration {index}", around(value, 0.05), value * random_source.gauss(1.0, 0.022))
                for index, value in enumerate(random_source.uniform(3, 45) for _ in range(24))
            ),
        ),
        failures=(FailureRow("the engine refused the graph: out of memory", 2), FailureRow("timed out after 60 s", 1)),
        parity=(
            ParityRow("onnxruntime", 3.1e-5, 1e-3, 1.0, 0.9406, 0.9406, True),
            ParityRow("tvm", 4.6e-5, 1e-3, 0.9995, 0.9406, 0.9402, True),
        ),
        reproduction=("autocompress search run.yaml search.seed=0", "autocompress report runs/r8-pi5 --html"),
        versions={"autocompress": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.32.0", "cpu": "Cortex-A76"},
    )


SLOW = range(20, 31)
WAITING = (5, 24)
EPISODE = "slow by 42 % from sample 20 to 30: throttling, 2.4 to 1.8 GHz"


def make_disturbed_report() -> RunReport:
    """A report whose predictor was profiled on an emulated device, with a slow stretch between steady ones."""
    report, random_source = make_report(), random.Random(1)

    def moment(place: int) -> Moment:
        reference_ms = (1.42 if place in SLOW else 1.0) * random_source.gauss(2.4, 0.01)
        return Moment(100.0 + 30 * place, reference_ms, 0.21 if place in WAITING else 0.001, place in SLOW)

    health = replace(
        report.predictor,
        calibrated=False,
        timeline=tuple(map(moment, range(48))),
        episodes=(EPISODE,),
        failed="timed out 2",
        emulator="qemu-aarch64-static",
    )
    return replace(report, predictor=health)


def make_infeasible_report() -> RunReport:
    report = make_report()
    return replace(
        report,
        verdict="infeasible",
        blocked="latency_p50_ms blocks: the smallest student in the search space needs 5.1 ms.",
        reachable="Cheapest reachable: 5.1 ms. Raise budget.latency_p50 to 5.4 ms or widen search.space.",
        limits=(LimitRow("latency_p50_ms", 4.0, around(5.1, 0.4), None), *report.limits[1:]),
        predictor=PredictorHealth("data-sheet roofline of raspberry-pi-5", calibrated=False, samples=0),
        baselines=(),
        parity=(),
        failures=(),
    )


@pytest.fixture
def report() -> RunReport:
    return make_report()


@pytest.fixture
def disturbed_report() -> RunReport:
    return make_disturbed_report()


@pytest.fixture
def infeasible_report() -> RunReport:
    return make_infeasible_report()
