from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from autocompress.errors import SourceError
from autocompress.profiling.episodes import find_episodes
from autocompress.profiling.foreign_records import observe, read_records

NAMES = "encoder_ffn,decoder_layers,latency_mean_encoder,latency_mean_decoder,latency_std_encoder"
LINE = "2048,6,200.5,1000,3.1"


def written(folder: Path, *lines: str) -> Path:
    path = folder / "records.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_line_is_a_configuration_and_the_latency_of_its_parts(tmp_path):
    (record,) = read_records(written(tmp_path, NAMES, LINE))
    assert record.configuration == {"encoder_ffn": 2048.0, "decoder_layers": 6.0}
    assert record.latency_ms == 200.5 + 1000


@pytest.mark.parametrize(
    ("lines", "wrong"),
    [
        (["width,time", "1,2"], "no column whose name begins with 'latency_mean'"),
        ([], "names none"),
        ([NAMES], "holds no records"),
        ([NAMES, LINE, "2048,6,200.5"], "Line 3 of .* has 3 values. The first line names 5 columns"),
        ([NAMES, "2048,six,200.5,1000,3.1"], "Line 2 of .* has decoder_layers = 'six'"),
        ([NAMES, "2048,6,0,1000,3.1"], "latency_mean_encoder = '0'.*positive"),
        ([NAMES, "2048,6,nan,1000,3.1"], "latency_mean_encoder = 'nan'"),
    ],
)
def test_what_is_no_record_is_refused_with_its_line(tmp_path, lines, wrong):
    with pytest.raises(SourceError, match=wrong):
        read_records(written(tmp_path, *lines))


def test_a_file_that_is_absent_or_no_text_is_refused(tmp_path):
    with pytest.raises(SourceError, match=r"absent.csv cannot be read"):
        read_records(tmp_path / "absent.csv")
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_records(binary)


def stretch_of(folder: Path, slow: range, factor: float, count: int = 300) -> list[range]:
    """Write records whose encoder is slower by ``factor`` in a stretch; return the episodes that are found."""
    rng = np.random.default_rng(0)
    lines = [NAMES]
    for position in range(count):
        ffn, layers = rng.choice([512, 1024, 2048, 3072]), rng.integers(1, 7)
        noise = 1 + 0.01 * rng.standard_normal()
        encoder = (120 + 0.05 * ffn) * noise * (factor if position in slow else 1.0)
        lines.append(f"{ffn},{layers},{encoder},{(400 + 700 * layers) * noise},1")
    run = observe(read_records(written(folder, *lines)))
    assert run[1].start_s == pytest.approx(run[0].latency_ms / 1e3)
    return [episode.samples for episode in find_episodes(run)]


def test_a_stretch_in_which_the_device_was_slow_is_found_without_a_reference_kernel(tmp_path):
    assert stretch_of(tmp_path, range(60), factor=10.0) == [range(60)]


def test_records_of_a_steady_device_have_no_episode(tmp_path):
    assert stretch_of(tmp_path, range(0), factor=1.0) == []
