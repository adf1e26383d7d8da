"""Raw samples, written down one by one as they arrive, so that a profiling that is killed loses at most one."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from autocompress.cost import Failure, Measurement
from autocompress.errors import ConfigError, StorageError
from autocompress.shape import ModelShape

Taken: TypeAlias = dict[ModelShape, Measurement]


@dataclass(frozen=True)
class Journal:
    """A file of JSON lines: one that says how a run measures, then one a sample; runs follow each other.

    Attributes:
        path: The file.
        about: Device, processor, engine, its version, threads, tokens: what makes samples comparable.
    """

    path: Path
    about: Mapping[str, str]

    def begin(self, *, resume: bool) -> Taken:
        """Begin a run; return what the last one has measured if it is to go on, else nothing.

        Raises:
            ConfigError: It is to go on, but the last run measured something else.
            StorageError: The file is damaged.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_half_line(self.path)
        about, taken = self._last_run() if resume else (None, {})
        if about is None:
            self._write({"run": dict(self.about)})
        elif about != self.about:
            differing = ", ".join(sorted(key for key in {*about, *self.about} if about.get(key) != self.about.get(key)))
            raise ConfigError(
                f"The samples in {self.path} were measured with another {differing}.",
                right="A run goes on as it began.",
                next_step="Run the same command without --resume.",
            )
        return taken

    def note(self, shape: ModelShape, result: Measurement | Failure) -> None:
        """Write a sample down. When this returns, it is on the disk."""
        found = {"failure": result.reason} if isinstance(result, Failure) else {"measurement": result.to_dict()}
        self._write({"shape": shape.to_dict(), **found})

    def _last_run(self) -> tuple[dict[str, str] | None, Taken]:
        about: dict[str, str] | None = None
        taken: Taken = {}
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                if "run" in values:
                    about, taken = values["run"], {}
                elif "measurement" in values:
                    fields = values["measurement"]
                    measured = Measurement(**{**fields, "samples_ms": tuple(fields["samples_ms"])})
                    # A sample that was measured again because it was disturbed is measured again if it still is.
                    taken.setdefault(ModelShape.from_dict(values["shape"]), measured)
            except (ValueError, TypeError, KeyError) as error:
                raise StorageError(
                    f"Line {number} of {self.path} is damaged ({error}).",
                    right="Each line is a sample as it was written down.",
                    next_step="Move the file away, then run the same command again.",
                ) from None
        return about, taken

    def _write(self, values: Mapping[str, object]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(values).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())


def _drop_half_line(path: Path) -> None:
    """Take away the unfinished last line that a kill or a full disk left."""
    data = path.read_bytes() if path.exists() else b""
    if data and not data.endswith(b"\n"):
        os.truncate(path, data.rfind(b"\n") + 1)
