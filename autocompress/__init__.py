"""AutoCompress: name a device and a budget, get a measured, proven, smaller transformer."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from autocompress.config import load_config
    from autocompress.devices.detect import detect_host
    from autocompress.devices.load import load_profile
    from autocompress.pipeline.export import export
    from autocompress.pipeline.prediction import predict
    from autocompress.pipeline.profiling import profile_device
    from autocompress.pipeline.run import search
    from autocompress.pipeline.setting import check
    from autocompress.pipeline.teacher import load_teacher
    from autocompress.runtime.session import Session
    from autocompress.shape import ModelShape

__all__ = [
    "ModelShape",
    "Session",
    "check",
    "detect_host",
    "export",
    "load_config",
    "load_profile",
    "load_teacher",
    "predict",
    "profile_device",
    "search",
]

_HOMES = {
    "ModelShape": "shape",
    "Session": "runtime.session",
    "check": "pipeline.setting",
    "detect_host": "devices.detect",
    "export": "pipeline.export",
    "load_config": "config",
    "load_profile": "devices.load",
    "load_teacher": "pipeline.teacher",
    "predict": "pipeline.prediction",
    "profile_device": "pipeline.profiling",
    "search": "pipeline.run",
}


def __getattr__(name: str) -> object:
    """Import a public name when it is asked for: a board that runs a model has no torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'autocompress' has no attribute {name!r}")
    return getattr(import_module(f"autocompress.{_HOMES[name]}"), name)


class _Front(ModuleType):
    """Keeps the rooms ``search`` and ``export``, once they are imported, from hiding the functions of these names."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Front
