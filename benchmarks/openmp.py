"""What does ``OMP_WAIT_POLICY`` do to training beside other processes? ``python -m benchmarks.openmp [--quick]``.

Times training steps of BERT-tiny with torch's own number of threads, each setting in a fresh process, beside so many
processes that only compute.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

from benchmarks.record import finish, print_table

POLICIES = ("PASSIVE", "unset", "ACTIVE")
BATCH, TOKENS = 32, 64
CAP_S = 20.0
"""Seconds after which a setting takes no further step."""
BUSY = (sys.executable, "-c", "while True: pass")


def time_steps(steps: int) -> list[float]:
    """Return the seconds of each training step, after one that is not counted."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    widths = {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 512}
    model = BertForSequenceClassification(BertConfig(**widths)).train()
    optimizer = torch.optim.AdamW(model.parameters())
    ids, labels = torch.randint(0, 30522, (BATCH, TOKENS)), torch.randint(0, 2, (BATCH,))
    times_s: list[float] = []
    started_s = time.perf_counter()
    while len(times_s) <= steps and (len(times_s) < 3 or time.perf_counter() - started_s < CAP_S):
        before_s = time.perf_counter()
        model(input_ids=ids, attention_mask=torch.ones_like(ids), labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        times_s.append(time.perf_counter() - before_s)
    return times_s[1:]


@contextmanager
def neighbours(count: int) -> Iterator[None]:
    """Run ``count`` processes that only compute."""
    processes = [subprocess.Popen(BUSY) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def measure(policy: str, beside: int, steps: int) -> list[float]:
    """Return the seconds of each step of a fresh process under one policy."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_"))}
    environment |= {} if policy == "unset" else {"OMP_WAIT_POLICY": policy}
    command = [sys.executable, "-m", "benchmarks.openmp", "--steps", str(steps)]
    with neighbours(beside):
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    times_s: list[float] = json.loads(done.stdout.splitlines()[-1])
    return times_s


def main() -> None:
    """Time each policy beside no, one and two busy processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="8 steps instead of 30")
    parser.add_argument("--steps", type=int, help="only print the seconds of so many steps in this process")
    arguments = parser.parse_args()
    if arguments.steps:
        print(json.dumps(time_steps(arguments.steps)))
        return
    steps = 8 if arguments.quick else 30
    found = {
        f"{policy}, {beside} busy beside": measure(policy, beside, steps) for beside in (0, 1, 2) for policy in POLICIES
    }
    figures = {
        name: {"median_s": round(median(times_s), 4), "worst_s": round(max(times_s), 4), "steps": len(times_s)}
        for name, times_s in found.items()
    }
    print_table(
        ["policy", "median s", "worst s", "steps"],
        [[name, *(f"{value:g}" for value in row.values())] for name, row in figures.items()],
    )
    finish("openmp", figures, quick=arguments.quick, details={"steps_s": found})


if __name__ == "__main__":
    main()
