"""The process that speaks to a board, so that a call that hangs, or a crash of the client, ends with it.

Run as ``python -m autocompress.boards.caller HOST PORT KEY PARENT``. Each line of standard input is a ``Call`` in JSON,
each line of standard output what the board answered, also in JSON. The first, ``{}``, says that there is a session.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO

from autocompress.boards.orphans import die_with
from autocompress.engines import tvm_runtime
from autocompress.profiling.worker import take_stdout


@dataclass(frozen=True)
class Call:
    """A function of the board and what it is given.

    Attributes:
        function: Its name on the board.
        arguments: Texts and numbers.
        file: A file of which a part is the last argument; "" for none.
        offset: Where the part begins.
        length: Its bytes.
    """

    function: str
    arguments: tuple[str | int | float, ...] = ()
    file: str = ""
    offset: int = 0
    length: int = 0

    def to_json(self) -> str:
        """Write what ``from_json`` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Call:
        """Read what ``to_json`` wrote."""
        return cls(**json.loads(text))

    def data(self) -> tuple[bytes, ...]:
        """Return the part of the file, if there is one."""
        if not self.file:
            return ()
        with Path(self.file).open("rb") as file:
            file.seek(self.offset)
            return (file.read(self.length),)


def main() -> None:
    """Answer until standard input ends; end with an exception when the link breaks."""
    host, port, key, parent = sys.argv[1:]
    die_with(int(parent))  # A call to a board that is gone would go on without anybody who waits.
    with take_stdout() as out:
        session = tvm_runtime(1).get_global_func("rpc.Connect")(host, int(port), key, False)
        _tell(out, "{}")
        for line in sys.stdin:
            call = Call.from_json(line)
            _tell(out, str(session[call.function](*call.arguments, *call.data())))


def _tell(out: TextIO, line: str) -> None:
    out.write(line + "\n")
    out.flush()


if __name__ == "__main__":
    main()
