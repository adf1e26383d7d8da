"""Several devices in one search, by its real command line: this machine, and a board that is away."""

import json
from pathlib import Path

import pytest

from autocompress.pipeline.joining import work
from autocompress.search.records import finalists, records
from autocompress.search.storage import close, open_study
from tests.cli.world import World

pytestmark = pytest.mark.slow
BOARD = "raspberry-pi-4"
FLEET = (
    f"fleet=[{{profile: {BOARD}, budget: {{size: 0.45x}}}}]",
    "search.baselines=false",
    "search.finalists=1",
    "export.formats=[onnxruntime]",
)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    """A world in which one search for two devices has run to its end."""
    made = World(tmp_path_factory.mktemp("world"))
    done = made.run("search", "first.yaml", *FLEET)
    assert done.returncode == 0, done.stderr + done.stdout
    (made.folder / "printed").write_text(done.stdout)
    return made


@pytest.fixture(scope="module")
def run(world: World) -> Path:
    return world.folder / "runs/first"


def found(run: Path, name: str = "first") -> list:
    study = open_study(f"journal:{run}/study.log", name, resume=True)
    kept = records(study)
    close(study)
    return kept


def test_one_score_serves_all_devices_and_each_has_its_own_costs(run):
    every = found(run)
    scored = [record for record in every if record.score is not None]
    assert len(scored) == 5  # As many as search.trials asks for, however many devices there are.
    assert len({record.key for record in scored}) == len(scored)
    for record in scored:
        assert set(record.costs) == {"host", BOARD}
        assert set(record.violations) == {"host/latency_p50_ms", "host/size_bytes", f"{BOARD}/size_bytes"}
        assert record.on("host").inside or record.on(BOARD).inside
    assert {record.state for record in every if not (record.on("host").inside or record.on(BOARD).inside)} <= {
        "over budget"
    }


def test_each_device_is_given_the_best_that_fits_it_and_all_share_one(run):
    told = json.loads((run / "fleet.json").read_text())
    host, board = told["own"]
    assert (host["device"], host["verdict"]) == ("host", "pass")
    assert (board["device"], board["verdict"]) == (BOARD, "estimated")
    limits = {row["name"]: row for row in board["limits"]}
    assert limits["size_bytes"]["predicted"]["high"] <= limits["size_bytes"]["budget"]
    assert limits["size_bytes"]["measured"] is None and limits["latency_p50_ms"]["budget"] is None
    every = found(run)
    for row in told["own"]:
        on_device = [seen for record in every if (seen := record.on(row["device"])).inside]
        assert row["front"][-1]["score"] == finalists(on_device, 1)[0].score
        assert [point["latency_p50_ms"] for point in row["front"]] == sorted(p["latency_p50_ms"] for p in row["front"])
    (shared,) = {row["model"] for row in told["shared"]}
    assert shared in {host["model"], board["model"]}
    for row in (*told["own"], *told["shared"]):
        manifest = json.loads((run / row["package"] / "manifest.json").read_text())
        assert manifest["device"] == row["device"] and (run / row["page"]).is_file()
        assert manifest["scores"]["teacher"]["count"] == row["goal"]["examples"]
        assert bool(manifest["measured"]) == (row["device"] == "host")
    packages = {row["device"]: row["package"] for row in told["own"]}
    assert packages == {"host": "best", BOARD: f"best-{BOARD}"}


def test_each_distinct_plan_is_trained_once(run):
    notes = [json.loads(path.read_text()) for path in (run / "students").glob("*.json")]
    made = {row["model"] for part in ("own", "shared") for row in json.loads((run / "fleet.json").read_text())[part]}
    assert made <= {note["name"] for note in notes}
    assert len({json.dumps(note["plan"]) for note in notes}) == len(notes) <= 3
    events = (run / "events.jsonl").read_text()
    assert events.count('"done": 8, "total": 8') == sum(f'"refine {note["name"]}"' in events for note in notes)


def test_the_fleet_is_told_in_the_terminal_and_in_each_report(world, run):
    printed = (world.folder / "printed").read_text()
    assert all(text in printed for text in ("Best model of each device", "Best model for all 2 devices", BOARD, "PASS"))
    for page in ("report.html", f"report-{BOARD}.html"):
        html = (run / page).read_text()
        assert "The best model of each device" in html and f'href="report-{BOARD}.html"' in html
    again = world.answer("report", "runs/first")
    assert again.returncode == 0 and f"best-{BOARD}" in again.stdout
    status = world.answer("status", "runs/first")
    assert status.returncode == 0 and "finished" in status.stdout


def test_checking_says_what_each_device_reaches_and_is_no_error_while_one_can_be_served(world):
    done = world.answer("check", "first.yaml", *FLEET)
    assert done.returncode == 0, done.stderr
    assert "for host" in done.stdout and f"for {BOARD}" in done.stdout and "for all meet every limit" in done.stdout
    one = world.answer("check", "first.yaml", f"fleet=[{{profile: {BOARD}, budget: {{size: 1 KB}}}}]")
    assert one.returncode == 0 and f"on {BOARD} blocked by size" in one.stdout
    none = world.answer("check", "first.yaml", f"fleet=[{{profile: {BOARD}}}]", "budget={size: 1 KB}")
    assert none.returncode == 3
    assert "on host blocked by" in none.stderr and f"on {BOARD} blocked by" in none.stderr


def test_a_device_that_nothing_fits_gets_the_closest_attempt_and_keeps_none_from_the_others(world):
    hard = f"fleet=[{{profile: {BOARD}, budget: {{size: 1 KB}}}}]"
    done = world.answer("search", "first.yaml", *FLEET, hard, "search.trials=2", "name=half")
    assert done.returncode == 3, done.stderr
    told = json.loads((world.folder / "runs/half/fleet.json").read_text())
    assert [row["verdict"] for row in told["own"]] == ["pass", "infeasible"]
    assert told["own"][1]["package"] == f"closest-{BOARD}" and told["shared"] == []
    assert "No model that was made fits every device" in done.stdout and f"{BOARD}: Blocked by size" in done.stdout


def test_a_package_of_any_candidate_can_be_made_for_any_device(world, run):
    done = world.answer("export", "runs/first", "--device", BOARD, "--pick", "smallest", "--out", "smallest")
    assert done.returncode == 0, done.stderr
    assert json.loads((world.folder / "smallest/manifest.json").read_text())["device"] == BOARD
    absent = world.answer("export", "runs/first", "--device", "raspberry-pi-9")
    assert absent.returncode == 2 and f"host, {BOARD}" in absent.stderr


def test_a_worker_joins_with_the_predictors_of_all_devices(world, run, monkeypatch):
    """What it would try next is what the search would: the fingerprint and the sequence are those of the study."""
    monkeypatch.chdir(world.folder)
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(world.folder / "home"))
    before = found(run)
    assert [record.costs for record in work("runs/first")] == [record.costs for record in before]


def test_a_resumed_fleet_goes_on_with_the_same_candidates(world, run):
    before = found(run)
    done = world.answer("search", "runs/first/run.yaml", "search.trials=7", "--resume")
    assert done.returncode == 0, done.stderr
    after = found(run)
    assert after[: len(before)] == before
    assert sum(record.score is not None for record in after) >= 7
