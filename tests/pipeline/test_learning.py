"""What is measured at the end of a search flows back into the predictor."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest
from transformers import BertConfig, BertForSequenceClassification

from autocompress.compression.heads import HeadStep
from autocompress.compression.methods import reshape_plan
from autocompress.config import load_config
from autocompress.cost import Measurement
from autocompress.devices.load import load_profile
from autocompress.errors import ConfigError
from autocompress.pipeline.known import best_known, identity
from autocompress.pipeline.learning import adopt, learn, next_best
from autocompress.plan import CompressionPlan
from autocompress.predictors.roofline import Peak, Roofline
from autocompress.predictors.store import load, save
from autocompress.search.records import Record
from tests.predictors.synthetic import TEACHER, TOKENS, fitted, samples, true_ms


@dataclass(frozen=True)
class Setting:
    """As much of a setting as learning reads."""

    predictor: object
    start: object = field(default_factory=lambda: SimpleNamespace(shape=TEACHER))
    config: object = field(default_factory=lambda: SimpleNamespace(task=SimpleNamespace(max_tokens=TOKENS)))


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    return tmp_path


def bert(layers: int) -> BertForSequenceClassification:
    """A model of the shape of ``TEACHER``, with so many layers."""
    config = BertConfig(
        vocab_size=TEACHER.vocabulary,
        max_position_embeddings=TEACHER.positions,
        hidden_size=TEACHER.hidden,
        num_hidden_layers=layers,
        num_attention_heads=TEACHER.layers[0].heads,
        intermediate_size=TEACHER.layers[0].ffn,
        num_labels=TEACHER.classes,
    )
    return BertForSequenceClassification(config)


def taken(predictor, layers: int, factor: float) -> Measurement:
    """A measurement that takes ``factor`` times what is foreseen."""
    cost = predictor.predict(replace(TEACHER, layers=TEACHER.layers[:layers]), TOKENS)
    return Measurement(
        samples_ms=(factor * cost.latency_p50_ms.value,) * 18 + (factor * cost.latency_p95_ms.value,) * 2,
        peak_memory_bytes=round(cost.peak_memory_bytes.value),
        base_memory_bytes=1,
        size_bytes=round(cost.size_bytes.value),
        device="my-board",
        engine="onnxruntime",
        threads=2,
    )


def made(name: str, layers: int):
    return SimpleNamespace(name=name, student=bert(layers))


def test_what_was_measured_is_fitted_again_and_kept(home):
    predictor = fitted(samples(40, noise=0.01))
    three = replace(TEACHER, layers=TEACHER.layers[:3])
    measured = {"candidate 1": taken(predictor, 3, 1.02)}
    learnt = learn(
        Setting(predictor), [made("candidate 1", 3)], measured, home / "learnt", lambda *event: None
    ).predictor
    assert len(learnt.samples) == 41
    assert learnt.samples[-1].shape == three
    assert load(home / "learnt/my-board-onnxruntime-2t.json") == learnt
    assert not (home / "latency_models").exists()  # Equal runs are to try equal candidates.
    again = learn(Setting(learnt), [made("candidate 1", 3)], measured, home / "learnt", lambda *event: None).predictor
    assert len(again.samples) == 41  # The newer measurement of a shape takes the place of the older one.


def test_a_violated_interval_is_told_and_only_that(home):
    predictor, told = fitted(samples(40, noise=0.01)), []
    measured = {"candidate 1": taken(predictor, 3, 1.0), "candidate 2": taken(predictor, 2, 1.5)}
    everything = [made("candidate 1", 3), made("candidate 2", 2)]
    learn(Setting(predictor), everything, measured, home, lambda *event: told.append(event[-1]))
    assert [note.split(" is ")[0] for note in told] == ["candidate 2: latency_p50_ms", "candidate 2: latency_p95_ms"]
    assert all("were foreseen" in note for note in told)


def test_a_roofline_and_a_device_that_was_not_there_learn_nothing(home):
    roofline = Setting(Roofline("my-board", "onnxruntime", 1, Peak(4, 1.8, 16, 16, 4.0)))
    assert learn(roofline, [], {"teacher": taken(fitted(), 4, 1.0)}, home, lambda *event: None) is roofline
    absent = Setting(fitted())
    assert learn(absent, [made("teacher", 4)], {}, home, lambda *event: None) is absent
    assert not list(home.rglob("*.json"))


def record(number: int, score: float | None, heads: int) -> Record:
    plan = CompressionPlan((HeadStep(keep=(heads,) * 4),))
    cost = {"latency_p50_ms": {"value": float(heads)}}
    return Record(number, number, "scored", {}, plan.to_json(), cost, "", {}, score=score)


def test_the_next_finalists_are_the_best_of_those_that_fit_as_it_is_known_now():
    predictor = fitted(samples(40))
    found = [record(0, 0.9, 4), record(1, 0.8, 3), record(2, 0.7, 2), record(3, 0.6, 1), record(4, None, 1)]
    shapes = [reshape_plan(TEACHER, CompressionPlan((HeadStep(keep=(heads,) * 4),))) for heads in (4, 3, 2, 1)]
    limit_ms = predictor.predict(shapes[1], TOKENS).held()["latency_p50_ms"] + 1e-6
    assert true_ms(shapes[0]) > true_ms(shapes[1])
    limits = {"latency_p50_ms": limit_ms}
    assert [each.number for each in next_best(Setting(predictor), found, limits, 2)] == [1, 2]
    assert next_best(Setting(predictor), found, {"latency_p50_ms": 1e-6}, 2) == []
    assert next_best(Setting(predictor), [], limits, 2) == []


def test_what_a_run_has_learnt_is_added_to_what_the_device_knows(world, home, tmp_path):
    run = tmp_path / "runs/first"
    (run / "learnt").mkdir(parents=True)
    (run / "run.yaml").write_text(world.run_file.read_text())
    config, profile = load_config(run / "run.yaml"), load_profile("host")
    device = {"device": "host", "engine": config.device.engine, "threads": config.device.threads}
    provenance = identity(profile, config.device.engine)
    some = samples(40)
    known = replace(fitted(some[:30]), **device, provenance=provenance)
    save(replace(fitted(some[20:]), **device, provenance=provenance), run / "learnt")
    assert len(adopt(run)[0].samples) == 20
    save(known, home / "latency_models")
    assert {sample.shape for sample in adopt(run)[0].samples} == {sample.shape for sample in some}
    assert len(best_known(profile, config.device.engine, config.device.threads).samples) == 40


def test_a_run_that_measured_nothing_has_nothing_to_add(world, tmp_path):
    (tmp_path / "run.yaml").write_text(world.run_file.read_text())
    with pytest.raises(ConfigError, match="has learnt nothing about host"):
        adopt(tmp_path)
