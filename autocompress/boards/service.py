"""The functions that an agent adds to TVM's RPC server. Each answers in JSON: a result, or ``failure`` and why."""

from __future__ import annotations

import errno
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from autocompress.boards.facts import read_facts
from autocompress.boards.store import Store
from autocompress.profiling.runner import ask
from autocompress.profiling.worker import Request

PREFIX = "autocompress."
_WORKER = (
    "import sys; from autocompress.boards.orphans import die_with; die_with(int(sys.argv[1]));"
    "from autocompress.profiling.worker import main; main()"
)


def functions(store: Store) -> dict[str, Callable[..., str]]:
    """Return name -> function, as they are registered; ``store`` is where artifacts are put."""

    def facts() -> dict[str, Any]:
        return read_facts(store.folder).to_dict()

    def held(name: str) -> dict[str, Any]:
        return {"bytes": store.held_bytes(name)}

    def put(name: str, offset: int, total_bytes: int, data: bytes) -> dict[str, Any]:
        return {"bytes": store.put(name, offset, bytes(data), total_bytes)}

    def measure(name: str, request: str, timeout_s: float) -> dict[str, Any]:
        asked = replace(Request.from_json(request), path=str(store.path(name)))
        command = (sys.executable, "-c", _WORKER, str(os.getpid()))
        return ask(asked, timeout_s=timeout_s, command=command)

    def remove(name: str) -> dict[str, Any]:
        store.remove(name)
        return {}

    def ping() -> dict[str, Any]:
        return {}

    return {PREFIX + call.__name__: _answering(call) for call in (facts, held, put, measure, remove, ping)}


def _answering(call: Callable[..., dict[str, Any]]) -> Callable[..., str]:
    def answer(*arguments: Any) -> str:
        try:
            return json.dumps(call(*arguments))
        except MemoryError:
            return json.dumps({"failure": "out of memory: the agent has no room for the call"})
        except OSError as error:
            kind = "disk full" if error.errno in {errno.ENOSPC, errno.EDQUOT} else "error"
            return json.dumps({"failure": f"{kind}: {error.strerror or error}"})
        except ValueError as error:
            return json.dumps({"failure": f"refused: {error}"})

    return answer
