import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.devices.units import (
    SIZE_BYTES,
    TIME_HOURS,
    TIME_MS,
    format_number,
    format_size,
    parse_quantity,
    parse_size,
    split_quantity,
)


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("60 ms", (60.0, "ms")),
        ("60ms", (60.0, "ms")),
        (" .5 GiB ", (0.5, "GiB")),
        ("1e3 B", (1000.0, "B")),
        ("7", (7.0, "")),
        (7, (7.0, "")),
    ],
)
def test_a_number_and_its_unit_are_split(text: object, parts: tuple[float, str]) -> None:
    assert split_quantity(text) == parts


@pytest.mark.parametrize("value", ["", "ms", "6 0 ms", "60 ms!", None, True, [1], "1e999 ms", float("nan")])
def test_what_is_no_finite_number_with_a_unit_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="Write a"):
        parse_quantity(value, TIME_MS, example="60 ms", bare="ms")


def test_each_unit_is_converted_by_its_factor() -> None:
    assert parse_quantity("2 s", TIME_MS, example="") == 2 * 1000
    assert parse_quantity("90 min", TIME_HOURS, example="") == pytest.approx(1.5)
    assert parse_size("1 KiB") - parse_size("1 KB") == 1024 - 1000


def test_a_wrong_unit_is_answered_with_the_right_ones() -> None:
    with pytest.raises(ValueError, match="one of us, ms, s, for example '60 ms'"):
        parse_quantity("60 MiB", TIME_MS, example="60 ms")


def test_a_bare_number_needs_a_default_unit() -> None:
    assert parse_quantity(8, TIME_HOURS, example="", bare="h") == 8
    with pytest.raises(ValueError, match="one of"):
        parse_quantity(8, TIME_HOURS, example="")


@pytest.mark.parametrize("size", ["-1 MiB", "0.3 B"])
def test_a_size_is_whole_and_not_negative(size: str) -> None:
    with pytest.raises(ValueError, match="whole bytes"):
        parse_size(size)


@given(st.integers(0, 2**53))
def test_a_written_size_reads_as_the_same_bytes(size: int) -> None:
    assert parse_size(format_size(size)) == size


@given(st.sampled_from(sorted(SIZE_BYTES)), st.integers(1, 999))
def test_a_size_in_one_unit_is_written_with_no_larger_number(unit: str, number: int) -> None:
    assert int(format_size(number * SIZE_BYTES[unit]).split()[0]) <= number


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_written_number_reads_as_the_same(number: float) -> None:
    assert float(format_number(number)) == number
