"""The main job by its real command line, from run file to package, also when it is killed on the way."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autocompress.search.records import records
from autocompress.search.storage import open_study
from tests.cli.world import World

pytestmark = pytest.mark.slow
LINKER = bool(os.environ.get("CI")) or any(map(shutil.which, ("g++", "clang++", "gcc", "clang", "cc")))
ENGINES = ("onnxruntime", "tvm") if LINKER else ("onnxruntime",)
"""Without a C++ compiler a package holds the ONNX model alone; CI has one."""
QUICK = ("search.baselines=false", "search.finalists=1", "export.formats=[onnxruntime]")
"""Of runs that are looked at for what they try; what becomes of finalists is seen in the first one."""

WITHOUT_AUTOCOMPRESS = """
import json, sys
import numpy as np, onnxruntime
from tokenizers import Tokenizer
tokenizer = Tokenizer.from_file("tokenizer.json")
labels = json.load(open("manifest.json"))["labels"]
session = onnxruntime.InferenceSession("model.onnx")
for text in json.load(sys.stdin):
    ids = np.array([tokenizer.encode(text).ids])
    (logits,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
    print(labels[logits.argmax()])
assert not {"autocompress", "torch", "transformers"} & set(sys.modules)
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which one search has run to its end."""
    made = World(tmp_path_factory.mktemp("world"))
    done = made.run("search", "first.yaml")
    assert done.returncode == 0, done.stderr + done.stdout
    (made.folder / "printed").write_text(done.stdout)
    return made


def params(world: World, name: str) -> list[dict]:
    storage = f"journal:{world.folder}/runs/{name}/study.log"
    return [dict(record.params) for record in records(open_study(storage, name, resume=True))]


def wait_for(world: World, name: str, process: subprocess.Popen, *, stage: str, done: int) -> None:
    """Wait until a run has reported ``done`` steps of ``stage``."""
    events = world.folder / "runs" / name / "events.jsonl"
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        assert process.poll() is None, process.communicate()
        lines = events.read_text().splitlines() if events.exists() else []
        if any(event["stage"] == stage and event["done"] >= done for event in map(json.loads, lines[:-1])):
            return
        time.sleep(0.01)
    raise AssertionError(f"{stage} was never at {done}")


def test_the_package_is_complete_and_its_hashes_hold(world):
    best = world.folder / "runs/first/best"
    manifest = json.loads((best / "manifest.json").read_text())
    files = {path.name for path in best.iterdir()} - {"manifest.json"}
    models = {"onnxruntime": "model.onnx", "tvm": "model.so"}
    assert {models[engine] for engine in ENGINES} == {name for name in files if name.startswith("model.")}
    assert {"tokenizer.json", "config.yaml"} <= files == set(manifest["files"])
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((best / name).read_bytes()).hexdigest() == digest
    assert manifest["labels"] == ["animal", "plant"]
    assert all(parity["passed"] for parity in manifest["parity"])
    assert tuple(parity["engine"] for parity in manifest["parity"]) == ENGINES
    (measured,) = manifest["measured"].values()
    assert sorted(measured["samples_ms"])[len(measured["samples_ms"]) // 2] <= manifest["limits"]["latency_p50_ms"]


def test_the_verdict_says_predicted_measured_and_budget(world):
    printed = (world.folder / "printed").read_text()
    assert "PASS" in printed and "median latency  pass" in printed
    assert all(word in printed for word in ("measured", "budget", "predicted", "runs/first/best"))
    assert (world.folder / "runs/first/report.html").read_text().startswith("<!doctype html>")


def test_the_package_runs_without_autocompress_as_it_does_with_it(world):
    best = world.folder / "runs/first/best"
    texts = ["the old oak stands near a house", "a cat was seen today", "the very old horse", "fern and river"]
    plain = subprocess.run(
        [sys.executable, "-c", WITHOUT_AUTOCOMPRESS],
        cwd=best,
        input=json.dumps(texts),
        capture_output=True,
        text=True,
        check=True,
    )
    session = (
        "import json, sys, autocompress\n"
        f"for engine in {ENGINES}:\n"
        f"    found = autocompress.Session({str(best)!r}, engine=engine).classify(json.load(open('texts.json')))\n"
        "    print(*(prediction.label for prediction in found))\n"
        "assert 'torch' not in sys.modules"
    )
    (world.folder / "texts.json").write_text(json.dumps(texts))
    ours = subprocess.run(
        [sys.executable, "-c", session],
        cwd=world.folder,
        env=world.environment,
        capture_output=True,
        text=True,
        check=True,
    )
    labels = plain.stdout.split()
    assert labels == ["plant", "animal", "animal", "plant"]
    assert ours.stdout.splitlines() == [" ".join(labels)] * len(ENGINES)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["status", "runs/first"], ["finished", "Best so far", "search"]),
        (["check", "first.yaml"], ["Feasible", "median latency"]),
        (["predict", "--device", "raspberry-pi-4", "--depth", "3"], ["estimated, not calibrated", "3 layers"]),
        (["device", "list"], ["raspberry-pi-4", "pixel-8", "host"]),
        pytest.param(["doctor"], ["engine tvm", "ok"], marks=pytest.mark.skipif(not LINKER, reason="no C++ compiler")),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else None,
)
def test_other_verbs_answer_in_processes_of_their_own(world, arguments, expected):
    done = world.run(*arguments)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in expected), done.stdout


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["report", "runs/first"], ["PASS", "report.html"]),
        (["check", "first.yaml", "device.profile=raspberry-pi-4"], ["estimated, not calibrated"]),
        (["finetune", "first.yaml"], ["accuracy"]),
        (
            ["predict", "--device", "raspberry-pi-4", "--hidden-keep", "0.5", "--tokens-keep", "0.5"],
            ["6 layers x 192", "tokens left 1-58"],
        ),
        (
            ["predict", "--device", "raspberry-pi-4", "--bits", "3"],
            ["bits 3/3/4", "stores and multiplies them as 4-bit"],
        ),
        (
            ["predict", "--device", "raspberry-pi-4", "--engine", "tvm"],
            ["estimated, not calibrated", "are activations"],
        ),
        (
            ["predict", "--device", "raspberry-pi-4", "--bits", "8", "--activations", "static"],
            ["static activations"],
        ),
        (
            ["predict", "--device", "raspberry-pi-4", "--bits", "4", "--weight-group", "64", "--zero-points"],
            ["groups of 64, zero points"],
        ),
        (["device", "show", "raspberry-pi-4"], ["Cortex-A72"]),
        (["device", "detect"], ["host.yaml"]),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else None,
)
def test_every_other_verb_and_option_answers(world, arguments, expected):
    done = world.answer(*arguments)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in expected), done.stdout


def test_any_candidate_can_be_exported(world):
    storage = f"journal:{world.folder}/runs/first/study.log"
    scored = [r for r in records(open_study(storage, "first", resume=True)) if r.score is not None]
    chosen = min(scored, key=lambda record: record.score)
    done = world.answer("export", "runs/first", "--pick", f"trial:{chosen.number}", "--to", "tvm", "--out", "any")
    assert done.returncode == 0, done.stderr
    manifest = json.loads((world.folder / "any/manifest.json").read_text())
    assert tuple(manifest["artifacts"]) == ENGINES
    assert manifest["student"] == chosen.label


def test_what_cannot_be_picked_is_answered_with_what_can(world):
    done = world.answer("export", "runs/first", "--pick", "nicest")
    assert done.returncode == 2 and "best, fastest, smallest or trial:NUMBER" in done.stderr


def test_a_search_that_is_killed_and_resumed_tries_the_same_candidates_and_keeps_each(world):
    process = world.start("search", "first.yaml", "name=killed", *QUICK)
    wait_for(world, "killed", process, stage="search", done=2)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    before = params(world, "killed")
    assert len(before) >= 2
    done = world.run("search", "first.yaml", "name=killed", *QUICK, "--resume")
    assert done.returncode == 0, done.stderr
    after = params(world, "killed")
    assert after[: len(before)] == before
    assert after == params(world, "first")


def test_a_run_that_is_killed_while_it_refines_trains_no_student_twice(world):
    command = ("search", "first.yaml", "name=refining", "search.refine_steps=60", *QUICK[1:])
    process = world.start(*command)
    wait_for(world, "refining", process, stage="refine candidate 1", done=1)
    process.kill()
    process.communicate()
    students = world.folder / "runs/refining/students"
    kept = {path: path.stat().st_mtime_ns for path in students.glob("*.safetensors")}
    assert kept  # the alternatives were finished before
    assert world.answer(*command, "--resume").returncode == 0
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def test_ctrl_c_ends_with_what_to_do_and_the_run_can_be_resumed(world):
    process = world.start("search", "first.yaml", "name=stopped", *QUICK)
    wait_for(world, "stopped", process, stage="search", done=1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 130
    assert "Stopped" in err and "--resume" in err and "Traceback" not in err
    assert world.answer("search", "first.yaml", "name=stopped", *QUICK, "--resume").returncode == 0
    assert params(world, "stopped") == params(world, "first")


def test_an_impossible_budget_ends_with_the_closest_attempt_and_what_is_reachable(world):
    assert world.answer("check", "first.yaml", "budget.latency_p50=1 us").returncode == 3
    done = world.answer("search", "first.yaml", "name=impossible", "budget.latency_p50=1 us", *QUICK)
    assert done.returncode == 3
    assert "INFEASIBLE" in done.stdout and "median latency" in done.stdout and "Reachable" in done.stdout
    assert (world.folder / "runs/impossible/closest/model.onnx").is_file()
    assert not Path(world.folder / "runs/impossible/best").exists()
