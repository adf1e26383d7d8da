from __future__ import annotations

import subprocess
import sys

import numpy as np

from autocompress.profiling.memory import parse_peak_bytes, peak_resident_bytes, resident_bytes

MEBIBYTE = 2**20


def test_the_high_water_mark_is_read_in_bytes():
    assert parse_peak_bytes("Name:\tpython\nVmPeak:\t 9 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 7 kB\n") == 2 * MEBIBYTE


def test_the_peak_keeps_memory_that_was_given_back():
    before = resident_bytes()
    block = np.ones(64 * MEBIBYTE, np.uint8)
    assert resident_bytes() - before > 60 * MEBIBYTE
    del block
    assert peak_resident_bytes() - before > 60 * MEBIBYTE


def test_the_peak_of_a_fresh_process_is_its_own_and_not_its_parents():
    mine = np.ones(300 * MEBIBYTE, np.uint8)
    code = "from autocompress.profiling.memory import peak_resident_bytes; print(peak_resident_bytes())"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(child.stdout) < mine.nbytes
