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
from autocompress.boards.kernel_worker import KernelRequest
from autocompress.boards.store import Store
from autocompress.profiling.runner import ask
from autocompress.profiling.worker import Request

PREFIX = "autocompress."
_WORKER = (
    "import sys; from autocompress.boards.orphans import die_with; die_with(int(sys.argv[1]));"
    "from autocompress.{module} import main; main()"
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
        return ask(asked, timeout_s=timeout_s, command=_fresh("profiling.worker"))

    def time_kernels(name: str, request: str, timeout_s: float) -> dict[str, Any]:
        asked = replace(KernelRequest.from_json(request), path=str(store.path(name)))
        return ask(asked, timeout_s=timeout_s, command=_fresh("boards.kernel_worker"))

    def remove(name: str) -> dict[str, Any]:
        store.remove(name)
        return {}

    def ping() -> dict[str, Any]:
        return {}

    calls = (facts, held, put, measure, time_kernels, remove, ping)
    return {PREFIX + call.__name__: _answering(call) for call in calls}


def _fresh(module: str) -> tuple[str, ...]:
    """Return the command of a worker that ends with this process."""
    return (sys.executable, "-c", _WORKER.format(module=module), str(os.getpid()))


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
