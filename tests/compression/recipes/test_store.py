import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from autocompress.compression.recipes.store import OutputStore

LENGTHS = (2, 1, 3)


def row(length, seed=0, width=4):
    return np.random.default_rng(seed).standard_normal((length, width)).astype(np.float32)


def table(folder, content="a", limit=10**6, lengths=LENGTHS):
    return OutputStore(folder, limit).table(content, lengths, 4, "float32")


def test_rows_are_read_as_they_were_written_by_whoever_opens_the_table(tmp_path):
    rows = [row(3), row(1, seed=1)]
    table(tmp_path).write([2, 1], rows)
    found = table(tmp_path).read([1, 2])
    np.testing.assert_array_equal(found[0], rows[1])
    np.testing.assert_array_equal(found[1], rows[0])


def test_a_row_that_was_not_written_is_not_there(tmp_path):
    table(tmp_path).write([2], [row(3)])
    assert table(tmp_path).read([2, 0]) is None


@pytest.mark.parametrize("other", [{"content": "b"}, {"lengths": (2, 2, 3)}])
def test_other_content_is_another_table(tmp_path, other):
    table(tmp_path).write([2], [row(3)])
    assert table(tmp_path, **other).read([2]) is None
    assert table(tmp_path).read([2]) is not None


def test_the_least_recently_used_tables_go_when_room_is_needed(tmp_path):
    size = 6 * 4 * 4 + 3
    for name in "ab":
        table(tmp_path, name, limit=2 * size).write([1], [row(1)])
        for path in tmp_path.glob("*.rows"):
            os.utime(path, (path.stat().st_mtime - 60,) * 2)
    table(tmp_path, "a", limit=2 * size)  # Now ``b`` is the older one.
    table(tmp_path, "c", limit=2 * size)
    assert table(tmp_path, "a", limit=2 * size).read([1]) is not None
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 2 * size


def test_a_table_larger_than_the_bound_is_not_kept_and_costs_no_other(tmp_path):
    table(tmp_path, "a", limit=99).write([1], [row(1)])
    assert table(tmp_path, "b", limit=99, lengths=(7,)) is None
    assert table(tmp_path, "a", limit=99).read([1]) is not None


def test_a_table_that_was_removed_meanwhile_neither_gives_nor_takes_anything(tmp_path):
    opened = table(tmp_path)
    for path in tmp_path.iterdir():
        path.unlink()
    opened.write([1], [row(1)])
    assert opened.read([1]) is None


def test_a_folder_that_cannot_be_made_keeps_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    assert table(tmp_path / "file" / "below") is None


WRITER = """
import sys
import numpy as np
from pathlib import Path
from autocompress.compression.recipes.store import OutputStore
table = OutputStore(Path(sys.argv[1]), 10**9).table("a", [1000] * 64, 256, "float32")
print("begun", flush=True)
while True:
    for place in range(64):
        table.write([place], [np.full((1000, 256), place, np.float32)])
"""


def test_two_processes_of_which_one_is_killed_leave_whole_rows_only(tmp_path):
    processes = [
        subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE) for _ in range(2)
    ]
    for process in processes:
        process.stdout.readline()
    time.sleep(0.05)
    processes[0].send_signal(signal.SIGKILL)
    processes[1].send_signal(signal.SIGKILL)
    for process in processes:
        process.communicate()
    opened = OutputStore(tmp_path, 10**9).table("a", [1000] * 64, 256, "float32")
    there = [place for place in range(64) if (found := opened.read([place])) is not None and len(found)]
    assert there
    for place in there:
        assert (opened.read([place])[0] == place).all()
