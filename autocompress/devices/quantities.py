"""Values with units as pydantic fields: read from text, written back as text, an equal value after both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from autocompress.cost import Limit
from autocompress.devices.units import (
    ENERGY_MJ,
    SIZE_BYTES,
    TIME_HOURS,
    TIME_MS,
    format_number,
    format_size,
    parse_quantity,
    parse_size,
    split_quantity,
)

_NUMBER = r"\+?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"


def _parse_latency(value: object) -> Limit:
    return _parse_limit(value, TIME_MS, "60 ms")


def _parse_energy(value: object) -> Limit:
    return _parse_limit(value, ENERGY_MJ, "15 mJ")


def _parse_size_limit(value: object) -> Limit:
    return _parse_limit(value, {unit: float(factor) for unit, factor in SIZE_BYTES.items()}, "250 MiB")


def _parse_limit(value: object, units: dict[str, float], example: str) -> Limit:
    if isinstance(value, Limit):
        return value
    number = parse_quantity(value, {**units, "x": 1.0}, example=f"{example}' or, relative to the teacher, '0.4x")
    if number <= 0:
        raise ValueError(f"Write a limit above 0, for example '{example}'.")
    return Limit(number, relative=split_quantity(value)[1] == "x")


def _parse_points(value: object) -> float:
    return parse_quantity(value, {"points": 1.0, "point": 1.0}, example="2 points")


def _parse_hours(value: object) -> float:
    return parse_quantity(value, TIME_HOURS, example="30 min", bare="h")


def _write_latency(limit: Limit) -> str:
    return format_number(limit.value) + ("x" if limit.relative else " ms")


def _write_energy(limit: Limit) -> str:
    return format_number(limit.value) + ("x" if limit.relative else " mJ")


def _write_size(limit: Limit) -> str:
    if limit.relative:
        return f"{format_number(limit.value)}x"
    return format_size(int(limit.value)) if limit.value.is_integer() else f"{limit.value!r} B"


def _write_points(points: float) -> str:
    return f"{format_number(points)} points"


def _text(units: Sequence[str], *examples: str) -> WithJsonSchema:
    pattern = rf"^\s*{_NUMBER}\s*({'|'.join(units)})\s*$"
    return WithJsonSchema({"type": "string", "pattern": pattern, "examples": list(examples)})


Bytes = Annotated[int, BeforeValidator(parse_size), PlainSerializer(format_size, return_type=str, when_used="json")]
"""A size in bytes, written as ``4 GiB``."""

LatencyLimit = Annotated[
    Limit,
    BeforeValidator(_parse_latency),
    PlainSerializer(_write_latency, return_type=str, when_used="json"),
    _text([*TIME_MS, "x"], "60 ms", "0.4x"),
]
"""A limit in milliseconds, written as ``60 ms``, or relative to the teacher, ``0.4x``."""

EnergyLimit = Annotated[
    Limit,
    BeforeValidator(_parse_energy),
    PlainSerializer(_write_energy, return_type=str, when_used="json"),
    _text([*ENERGY_MJ, "x"], "15 mJ", "0.4x"),
]
"""A limit in millijoules, written as ``15 mJ``, or relative to the teacher, ``0.4x``."""

SizeLimit = Annotated[
    Limit,
    BeforeValidator(_parse_size_limit),
    PlainSerializer(_write_size, return_type=str, when_used="json"),
    _text([*SIZE_BYTES, "x"], "250 MiB", "0.3x"),
]
"""A limit in bytes, written as ``250 MiB``, or relative to the teacher, ``0.3x``."""

Points = Annotated[
    float,
    BeforeValidator(_parse_points),
    Field(ge=0, le=100),
    PlainSerializer(_write_points, return_type=str, when_used="json"),
    _text(["points?"], "2 points"),
]
"""Percentage points, written as ``2 points``."""

Hours = Annotated[
    float,
    BeforeValidator(_parse_hours),
    Field(gt=0),
    WithJsonSchema({"type": ["number", "string"], "examples": [8, "30 min"]}),
]
"""Hours, written as a number or as ``30 min``."""
