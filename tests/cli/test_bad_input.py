"""Whatever is wrong ends in one error of three parts, the right exit code, and nothing lost."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.cli import main
from tests.cli.world import World, write_model


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> World:
    return World(tmp_path_factory.mktemp("pristine"))


@pytest.fixture
def world(pristine: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A copy of a world in which nothing ran, as the current folder."""
    shutil.copytree(pristine.folder, tmp_path / "world")
    copy = object.__new__(World)
    copy.folder, copy.run_file = tmp_path / "world", tmp_path / "world/first.yaml"
    monkeypatch.chdir(copy.folder)
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(copy.folder / "home"))
    monkeypatch.setenv("COLUMNS", "160")
    return copy


def refused(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 2) -> str:
    """Run the command line, check the form of its refusal, and return it."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    error = capsys.readouterr().err
    assert caught.value.code == code, error
    assert [line.split(":")[0] for line in error.splitlines() if line.startswith(("Error", "Right", "Next"))] == [
        "Error",
        "Right",
        "Next",
    ]
    assert "Traceback" not in error
    return error


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["search", "nope.yaml"], "nope.yaml"),
        (["search", "first.yaml", "serch.trials=3"], "Did you mean search?"),
        (["search", "first.yaml", "search.trails=3"], "Did you mean search.trials?"),
        (["search", "first.yaml", "budget.latency_p50=60 mss"], "ms"),
        (["search", "first.yaml", "budget.size=60 ms"], "budget.size"),
        (["search", "first.yaml", "device.profile=raspberry-pi4"], "Did you mean raspberry-pi-4?"),
        (["search", "first.yaml", "device.engine=openvino"], "onnxruntime"),
        (["search", "first.yaml", "model.source=nowhere"], "'nowhere' does not exist"),
        (["search", "first.yaml", "task.data.source=nowhere"], "'nowhere' does not exist"),
        (["search", "first.yaml", "task.data.text=sentense"], "column"),
        (["search", "first.yaml", "task.max_tokens=99"], "32"),
        (["search", "first.yaml", "search.storage=study.db"], "search.storage"),
        (["search", "first.yaml", "--resume"], "no study"),
        (["search"], "RUN.yaml"),
        (["serch", "first.yaml"], "serch"),
        (["status", "data"], "run.yaml"),
        (["report", "runs/none"], "run.yaml"),
        (["predict", "--bits", "7"], "2, 3, 4, 8, 16, 32"),
        (["predict", "--device", "toaster"], "toaster"),
        (["predict", "--tokens-keep", "3"], "no share above 0 up to 1"),
        (["predict", "--tokens-keep", "most"], "no share above 0 up to 1"),
        (["predict", "--activations", "fast"], "none of dynamic, static, smoothed, token"),
        (["predict", "--weight-group", "16"], "none of 32, 64, 128"),
        (["profile", "--weight-group", "16"], "none of 32, 64, 128"),
        (["profile", "--activations", "fast"], "none of dynamic, static, smoothed"),
        (["device", "show", "pixel8"], "pixel-8"),
        (["profile", "host", "--engine", "tvm", "--tune", "tile"], "off, tiles, metaschedule"),
        (["profile", "host", "--tune", "tiles"], "--engine tvm"),
        (["link", "model.tar"], "no bundle"),
        (["search", "first.yaml", "export.container=zip"], "'so' or 'tar'"),
        (["search", "first.yaml", "export.container=tar"], "device is this machine"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_word_is_answered_with_what_would_be_right(world, capsys, arguments, said):
    assert said in refused(capsys, *arguments)


def test_a_truncated_model_is_named(world, capsys):
    weights = world.folder / "model/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:500])
    assert "cannot be read" in refused(capsys, "search", "first.yaml")


def test_a_model_without_classifier_is_to_be_fitted_first(world, capsys):
    world.write_run(model={"source": "model"})
    assert "finetune" in refused(capsys, "search", "first.yaml")


def test_classes_that_do_not_match_are_listed_on_both_sides(world, capsys):
    from transformers import BertForSequenceClassification

    model = BertForSequenceClassification.from_pretrained("model", num_labels=2)
    model.config.id2label = {0: "fish", 1: "fowl"}
    model.config.label2id = {"fish": 0, "fowl": 1}
    model.save_pretrained("model")
    world.write_run(model={"source": "model"})
    error = refused(capsys, "search", "first.yaml")
    assert "fish, fowl" in error and "animal, plant" in error


def test_an_empty_split_is_named(world, capsys):
    (world.folder / "data/test.tsv").write_text("text\tlabel\n")
    assert "test" in refused(capsys, "search", "first.yaml")


def test_a_family_without_adapter_is_refused(world, capsys):
    config = world.folder / "model/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "model_type": "gpt2"}))
    error = refused(capsys, "search", "first.yaml")
    assert "gpt2" in error and "distilbert" in error


def test_a_run_that_exists_is_not_overwritten_and_a_corrupted_study_is_left_alone(world, capsys):
    from autocompress.search.storage import open_study
    from autocompress.search.study import search
    from tests.search.synthetic import objective

    log = world.folder / "runs/first/study.log"
    search(open_study(f"journal:{log}", "first", resume=False), objective(), trials=1, seed=0)
    content = log.read_bytes()
    assert "--resume" in refused(capsys, "search", "first.yaml")
    assert log.read_bytes().startswith(content)
    broken = b"\xff\x00" * 40 + content
    log.write_bytes(broken)
    assert "cannot be read" in refused(capsys, "search", "first.yaml", "--resume")
    assert log.read_bytes() == broken


def test_a_full_disk_is_named_before_anything_is_spent(world, capsys, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: shutil._ntuple_diskusage(10**9, 10**9, 0))
    error = refused(capsys, "search", "first.yaml")
    assert "free" in error and "runs_folder" in error


def test_a_crash_of_the_measured_artifact_is_a_device_error(world, capsys, monkeypatch):
    from autocompress.cost import Failure

    monkeypatch.setattr(
        "autocompress.pipeline.profiling.LocalRunner.run", lambda *args, **kwargs: Failure("crash: SIGSEGV")
    )
    assert "measured" in refused(capsys, "search", "first.yaml", code=4)


def test_debug_shows_where_an_error_arose(world, capsys):
    with pytest.raises(SystemExit):
        main(["search", "nope.yaml", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_a_bug_is_owned_as_one(world, capsys, monkeypatch):
    monkeypatch.setattr("autocompress.config.load_config", lambda *args: 1 / 0)
    assert "bug in AutoCompress" in refused(capsys, "search", "first.yaml", code=1)


@pytest.mark.slow
def test_an_artifact_that_computes_something_else_fails_the_run(world, capsys, monkeypatch):
    """The engine is made to add noise to every logit: the gate must see it in the artifact that it runs."""
    from autocompress import engines

    opened = engines.ENGINES["onnxruntime"]

    def noisy(artifact, *, threads):
        run = opened(artifact, threads=threads)
        return replace(run, run=lambda given: run.run(given) + [[0.5, 0.0]])

    monkeypatch.setitem(engines.ENGINES, "onnxruntime", noisy)
    error = refused(capsys, "search", "first.yaml", "search.trials=1", "search.baselines=false", code=5)
    assert "onnxruntime artifact differs" in error
    assert not (world.folder / "runs/first/best").exists()


def test_a_second_model_in_the_same_place_is_another_teacher(world, capsys):
    """A cached teacher is found by content: new weights under the old name are fitted anew."""
    from autocompress.config import load_config
    from autocompress.pipeline.teacher import load_teacher

    world.write_run(model={"source": "model", "finetune": {"epochs": 1}})
    first = load_teacher(load_config("first.yaml"))
    again = load_teacher(load_config("first.yaml"))
    write_model(world.folder / "model", seed=1)
    other = load_teacher(load_config("first.yaml"))
    assert first.folder == again.folder != other.folder
