"""Who is fastest at each precision, and how much slower all others are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import geometric_mean

from autocompress.cost import Measurement
from autocompress.profiling.drift import reference_ms, waited_share, without_waiting
from autocompress.shape import Bits
from benchmarks.peers import CONTESTANTS, NAMES, OURS, TORCH
from benchmarks.record import print_table

PRUNED = "pruned MiniLM-L6"


@dataclass(frozen=True)
class Case:
    """One model at one length: what was measured of each contestant.

    Attributes:
        model: Its name.
        tokens: Of the one sequence.
        measured: Name of the contestant -> its samples.
        off: Name -> largest difference of its logits from torch's f32 logits.
        failed: Name -> why there are no samples, or why they do not count.
        float_precision: Name -> what OpenVINO computes with where the model has floats.
        largest_logit: Of torch, for comparison with ``off``.
    """

    model: str
    tokens: int
    measured: dict[str, Measurement] = field(default_factory=dict)
    off: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    float_precision: dict[str, str] = field(default_factory=dict)
    largest_logit: float = 0.0

    @property
    def name(self) -> str:
        """Model and length."""
        return f"{self.model}, {self.tokens} tokens"

    def calm(self, name: str) -> Measurement:
        """Return what was measured of a contestant, without waiting for a processor: all run in the calling thread."""
        return without_waiting(self.measured[name])

    def best_peer(self, bits: Bits, engine: str | None = None) -> str | None:
        """Return the fastest peer of ``bits`` (by its median, of ``engine`` alone if given) that counts."""
        names = [
            peer.name
            for peer in CONTESTANTS
            if peer.peer
            and peer.bits == bits
            and peer.name in self.measured.keys() - self.failed.keys()
            and engine in (None, self.measured[peer.name].engine)
        ]
        return min(names, key=lambda name: self.calm(name).latency_p50_ms, default=None)

    def over(self, bits: Bits, engine: str | None = None) -> float | None:
        """Return our latency over the best peer's; ``None`` where one of the two is not there."""
        best, mine = self.best_peer(bits, engine), OURS[bits]
        if best is None or mine in self.failed or mine not in self.measured:
            return None
        return self.calm(mine).latency_p50_ms / self.calm(best).latency_p50_ms


def table(case: Case) -> dict[str, dict[str, float | str | None]]:
    """Print what was measured, the fastest of each precision first, and return it."""
    bits = {contestant.name: contestant.bits for contestant in CONTESTANTS}
    order = sorted(case.measured, key=lambda name: (-bits[name], case.calm(name).latency_p50_ms))
    torch_ms = case.calm(TORCH).latency_p50_ms if TORCH in case.measured else None
    rows: dict[str, dict[str, float | str | None]] = {}
    for name in order:
        found, calm, best = case.measured[name], case.calm(name), case.best_peer(bits[name])
        p50_ms = calm.latency_p50_ms
        rows[name] = {
            "p50_ms": round(p50_ms, 3),
            "p95_ms": round(calm.latency_p95_ms, 3),
            "over_best_peer": None if best is None else round(p50_ms / case.calm(best).latency_p50_ms, 3),
            "times_faster_than_torch": None if torch_ms is None else round(torch_ms / p50_ms, 2),
            "peak_memory_mb": round(found.peak_memory_bytes / 1e6, 1),
            "size_mb": round(found.size_bytes / 1e6, 1),
            "logits_off": float(f"{case.off[name]:.1e}"),
            "reference_ms": round(reference_ms(found), 4),
            "waited_share": round(waited_share(found), 4),
            "samples": len(found.samples_ms),
            "floats": case.float_precision.get(name),
        }
    header = [
        "",
        "p50 ms",
        "p95 ms",
        "x peer",
        "x torch",
        "peak MB",
        "size MB",
        "off",
        "kernel ms",
        "waited",
        "samples",
    ]
    print(f"{case.name} (largest logit {case.largest_logit:.2g})")
    print_table(header, [[name, *map(_cell, [*row.values()][:-1])] for name, row in rows.items()])
    for name, precision in case.float_precision.items():
        print(f"  {name}: floats computed as {precision}")
    for name, reason in case.failed.items():
        print(f"  {name}: {reason}")
    print(flush=True)
    return rows


def _cell(value: float | str | None) -> str:
    return f"{value:g}" if isinstance(value, int | float) else "-"


def ratios(cases: Sequence[Case]) -> dict[str, float | None]:
    """Return the geometric means of our latency over peers': below 1 we are faster.

    A mean over cases of which one lacks a figure would flatter: it is ``None``.
    """
    whole = [case for case in cases if case.model != PRUNED]
    pruned = [case for case in cases if case.model == PRUNED]
    found: dict[str, float | None] = {}
    for suffix, engine in (("best_peer", None), ("onnxruntime", "onnxruntime")):
        for bits, name in NAMES.items():
            found[f"{name}_over_{suffix}"] = _mean(case.over(bits, engine) for case in whole)
        found[f"pruned_over_{suffix}"] = _mean(case.over(bits, engine) for case in pruned for bits in NAMES)
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    found = list(values)
    known = [value for value in found if value is not None]
    return round(geometric_mean(known), 4) if known and len(known) == len(found) else None
