"""Open an artifact in the engine that runs it. Imports neither torch nor transformers, so boards can use it."""

from __future__ import annotations

import ctypes
import json
import math
import os
import platform
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from autocompress.cost import Artifact
from autocompress.errors import MissingDependencyError, UnsupportedError
from autocompress.feeds import IDS, TEXT, Feed, Feeds, Ids, Logits, Run, check_feeds, read_feeds
from autocompress.shape import Bits


@dataclass(frozen=True)
class Opened:
    """An artifact that is ready to run; satisfies ``Run``.

    Attributes:
        feeds: What it reads.
        run: Runs it on feeds that were checked.
    """

    feeds: tuple[Feed, ...]
    run: Run

    def __call__(self, given: Feeds) -> Logits:
        """Return the logits (batch x classes).

        Raises:
            UnsupportedError: It reads other feeds, or other dimensions.
        """
        check_feeds(given, self.feeds)
        return self.run(given)


STORED_AS: Mapping[str, Mapping[Bits, Bits]] = {"onnxruntime": {3: 4}}
"""Engine -> widths of linear weights of which it has no product -> the width at which it stores and multiplies these.
Every level of the narrower width is one of the wider, so that results are the same."""


def stored_bits(engine: str, bits: Bits) -> Bits:
    """Return at how many bits ``engine`` stores linear weights of ``bits``."""
    return STORED_AS.get(engine, {}).get(bits, bits)


def open_onnxruntime(artifact: Artifact, *, threads: int) -> Opened:
    """Load an ONNX model into ONNX Runtime's CPU provider."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(artifact.path), options, providers=["CPUExecutionProvider"])

    def run(given: Feeds) -> Logits:
        (logits,) = session.run(["logits"], dict(given))
        return np.asarray(logits)

    text = {feed.name: feed for feed in TEXT}  # Others' models call batch and tokens by other names.
    feeds = (
        text.get(each.name) or Feed(each.name, ("batch", *each.shape[1:]), "float32") for each in session.get_inputs()
    )
    return Opened(tuple(feeds), run)


LIBRARY_ALIGNMENT = 64
"""Bytes to which constants that follow a TVM library are aligned in its file."""
LIBRARY_MARK = b"AUTOCOMP"
"""Last bytes of such a file, after the index (JSON) and its length (8 bytes, little-endian)."""


BUNDLED_CONSTANTS = "constants.bin"
"""Member of a bundle (``.tar``: object files that are still to be linked) with what is appended to the library."""


def append_constants(
    library: Path, constants: Iterable[tuple[str, npt.NDArray[np.generic]]], about: Mapping[str, object]
) -> None:
    """Append named arrays to a shared library: loaders ignore what follows it, and the engine maps it into memory.

    Args:
        library: A file, which may be empty.
        constants: In the order of the library's arguments.
        about: JSON values for the index.
    """
    tensors: list[dict[str, object]] = []
    with library.open("ab") as file:
        for name, values in constants:
            file.write(bytes(-file.tell() % LIBRARY_ALIGNMENT))
            place = {"dtype": values.dtype.str, "shape": list(values.shape), "offset": file.tell()}
            tensors.append({"name": name, **place})
            np.ascontiguousarray(values).tofile(file)
        index = json.dumps({**about, "tensors": tensors}).encode()
        file.write(index + len(index).to_bytes(8, "little") + LIBRARY_MARK)


def library_index(path: Path) -> dict[str, Any]:
    """Return what a library, or the bundle of one, says about itself: target, kernels, tiles, tokens and so on.

    Raises:
        UnsupportedError: The file is none.
    """
    about, _ = read_library(path)
    return {key: value for key, value in about.items() if key != "tensors"}


def open_tvm(artifact: Artifact, *, threads: int) -> Opened:
    """Load a compiled library; its constants stay mapped from the file.

    Inputs are run as many at a time as it was compiled for, filled up, and text padded to its tokens.

    Raises:
        MissingDependencyError: TVM is not installed.
        UnsupportedError: The file is no such library, or TVM cannot use that many threads; when run: an input has
            more tokens or other dimensions than the library's, or an id is outside the vocabulary.
    """
    runtime = tvm_runtime(threads)
    path = _linked(artifact.path)
    about, constants = read_library(path)
    _check_processor(about)
    feeds, batch = _feeds_of(about), int(about["batch"])
    read = {feed.name: aligned_zeros(feed.sized(), feed.dtype) for feed in feeds}
    machine = runtime.load_module(str(path))["vm_load_executable"]()
    machine["vm_initialization"](_CPU, 0, _POOLED)
    machine["save_function"]("main", "run", 1, *map(runtime.from_dlpack, (*read.values(), *constants)))
    main = machine["run"]
    _use_threads(runtime, threads)

    def run(given: Feeds) -> Logits:
        if IDS in given:
            _check_ids(given[IDS], int(about["vocabulary"]))
        _use_threads(runtime, threads)
        parts = []
        for start in range(0, len(given[feeds[0].name]), batch):
            for name, room in read.items():
                part = given[name][start : start + batch]
                if part.shape != room.shape:
                    room[:] = 0
                room[tuple(map(slice, part.shape))] = part
            parts.append(np.from_dlpack(main())[: len(part)])
        return np.concatenate(parts)

    return Opened(feeds, run)


def _feeds_of(about: Mapping[str, Any]) -> tuple[Feed, ...]:
    """Return what a library reads, by its index; libraries that do not say so read text."""
    if "feeds" in about:
        return read_feeds(about["feeds"])
    sizes = {"batch": int(about["batch"]), "tokens": int(about["tokens"])}
    return tuple(Feed(feed.name, feed.sized(**sizes), feed.dtype) for feed in TEXT)


def _check_processor(about: Mapping[str, Any]) -> None:
    """Refuse a library whose instructions this processor lacks: it would end the process."""
    reported = _reported_instructions()
    missing = [name for name in about["instructions"] if name not in reported] if reported else []
    if missing:
        raise UnsupportedError(
            f"The library was compiled for {about['target']}; this processor lacks {', '.join(missing)}.",
            right="A library runs where all instructions of the processor that it was compiled for are there.",
            next_step="Export the model for this device, or run it with the engine onnxruntime.",
        )


_ARM_BITS = {"asimdhp": (16, 10), "asimddp": (16, 20), "sve": (16, 22), "i8mm": (26, 13), "bf16": (26, 14)}
"""Name -> number of the auxiliary vector's entry and of the bit in it (Linux, <asm/hwcap.h>)."""


def _reported_instructions() -> set[str]:
    """Return the sets of instructions that Linux reports of this processor, nothing where it is not asked."""
    if platform.system() != "Linux":
        return set()
    if platform.machine() == "aarch64":
        ask = ctypes.CDLL(None).getauxval
        ask.restype, ask.argtypes = ctypes.c_ulong, [ctypes.c_ulong]
        return {"asimd", *(name for name, (entry, bit) in _ARM_BITS.items() if ask(entry) >> bit & 1)}
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((set(line.split()) for line in lines if line.startswith("flags")), set())


_CPU, _POOLED = 1, 2
"""TVM's numbers of the CPU device and of the allocator that reuses memory."""


def tvm_runtime(threads: int) -> Any:
    """Return ``tvm_ffi`` with TVM's runtime in it, but neither TVM's compiler nor torch, which take 300 MB."""
    # Read when the first kernel runs: TVM would else use half the processors, and pin every process to the same ones.
    os.environ.setdefault("TVM_NUM_THREADS", str(max(threads, os.cpu_count() or 1)))
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    found = find_spec("tvm")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            "TVM is not installed.",
            right="The engine tvm needs the package apache-tvm.",
            next_step="Run: pip install apache-tvm==0.27.0.post1 apache-tvm-ffi==0.1.14.post1",
        )
    with _torch_hidden():
        import tvm_ffi
    (library,) = Path(found.submodule_search_locations[0], "lib").glob("*tvm_runtime.*")
    ctypes.CDLL(str(library), ctypes.RTLD_GLOBAL)
    return tvm_ffi


@contextmanager
def _torch_hidden() -> Iterator[None]:
    """Let an import that would take torch along, were it installed, do without; one already imported stays visible."""
    if "torch" in sys.modules:
        yield
        return
    sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules["torch"]


def aligned_zeros(dimensions: Sequence[int], dtype: str) -> npt.NDArray[Any]:
    """Return zeros at an address that TVM accepts without a copy."""
    size = math.prod(dimensions) * np.dtype(dtype).itemsize
    room = np.zeros(size + LIBRARY_ALIGNMENT, np.uint8)
    start = -room.ctypes.data % LIBRARY_ALIGNMENT
    return room[start : start + size].view(dtype).reshape(dimensions)


def _linked(path: Path) -> Path:
    """Return the library that stands beside its bundle, or ``path`` if it is no bundle."""
    if path.suffix != ".tar" or not path.is_file():
        return path
    library = path.with_suffix(".so")
    if not library.is_file():
        raise UnsupportedError(
            f"{path} holds object files, which are not linked yet.",
            right=f"A library {library.name} stands beside it.",
            next_step=f"Run, on the device that it is for: autocompress link {path}",
        )
    return library


def read_library(path: Path) -> tuple[dict[str, Any], list[npt.NDArray[np.generic]]]:
    """Return the index and the constants of a library or a bundle, mapped copy-on-write.

    Raises:
        UnsupportedError: The file is none.
    """
    data = np.memmap(path, np.uint8, mode="c") if path.stat().st_size else np.empty(0, np.uint8)
    if path.suffix == ".tar":
        data = _bundled(path, data)
    if data[-len(LIBRARY_MARK) :].tobytes() != LIBRARY_MARK:
        raise UnsupportedError(
            f"{path} is not a complete TVM library of AutoCompress.",
            right="Such a library ends with its weights and their index.",
            next_step="Export the model again.",
        )
    end = len(data) - len(LIBRARY_MARK) - 8
    length = int.from_bytes(data[end : end + 8].tobytes(), "little")
    about = json.loads(data[end - length : end].tobytes())
    return about, [_constant(data, **tensor) for tensor in about["tensors"]]


def _bundled(path: Path, data: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return the part of a bundle's bytes that belongs behind the library; empty where there is none."""
    try:
        with tarfile.open(path, "r:") as bundle:
            member = bundle.getmember(BUNDLED_CONSTANTS)
    except (tarfile.TarError, KeyError):
        return data[:0]
    return data[member.offset_data : member.offset_data + member.size]


def _constant(
    data: npt.NDArray[np.uint8], *, name: str, dtype: str, shape: list[int], offset: int
) -> npt.NDArray[np.generic]:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.asarray(data[offset : offset + size]).view(dtype).reshape(shape)


def _use_threads(runtime: Any, threads: int) -> None:
    count = runtime.get_global_func("runtime.NumThreads")
    if count() != threads:
        runtime.get_global_func("runtime.config_threadpool")(1, threads)
    if count() != threads:
        raise UnsupportedError(
            f"TVM was started with {count()} threads and is now asked for {threads}.",
            right=f"Threads are 1 to {os.environ['TVM_NUM_THREADS']}.",
            next_step=f"Set TVM_NUM_THREADS={threads} before the program starts, or ask for fewer threads.",
        )


def _check_ids(input_ids: Ids, vocabulary: int) -> None:
    if input_ids.size and not 0 <= input_ids.min() <= input_ids.max() < vocabulary:
        raise UnsupportedError(
            f"An input has the ids {input_ids.min()} to {input_ids.max()}.",
            right=f"Ids are 0 to {vocabulary - 1}.",
            next_step="Use the tokenizer that was exported with the model.",
        )


ENGINES: dict[str, Callable[..., Opened]] = {"onnxruntime": open_onnxruntime, "tvm": open_tvm}
"""Engine name -> ``open(artifact, threads=...)``."""


def open_artifact(artifact: Artifact, *, threads: int) -> Opened:
    """Return ``artifact``, ready to run.

    Raises:
        UnsupportedError: The artifact names an engine that is not in ``ENGINES``.
    """
    if artifact.engine not in ENGINES:
        raise UnsupportedError(
            f"The engine {artifact.engine!r} is not known.",
            right=f"Engines are {', '.join(ENGINES)}.",
            next_step="Set device.engine to one of them.",
        )
    return ENGINES[artifact.engine](artifact, threads=threads)
