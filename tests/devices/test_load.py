from pathlib import Path

import pytest
import yaml

from autocompress.devices.detect import detect_host, write_profile
from autocompress.devices.load import list_profiles, load_profile
from autocompress.errors import ConfigError

PI = Path(__file__).parents[2] / "device_profiles" / "raspberry-pi-4.yaml"


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    folder = tmp_path / "device_profiles"
    folder.mkdir()
    return folder


def test_the_users_own_profile_wins(folder: Path) -> None:
    data = yaml.safe_load(PI.read_text()) | {"title": "My overclocked board"}
    (folder / PI.name).write_text(yaml.safe_dump(data))
    assert load_profile("raspberry-pi-4").title == "My overclocked board"
    assert list_profiles()["raspberry-pi-4"] == folder / PI.name


def test_an_unknown_name_is_answered_with_the_nearest(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("raspbery-pi4")
    assert caught.value.right == "Did you mean raspberry-pi-4?"


def test_a_name_like_no_other_is_answered_with_all(folder: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_profile("zzz")
    assert all(name in caught.value.right for name in list_profiles())


@pytest.mark.parametrize(
    ("change", "wrong"),
    [
        ({"ram_bytes": "4 Gib"}, "ram_bytes is '4 Gib'"),
        ({"cpus": 4}, "cpus is not a known key"),
        ({"name": "other"}, "describes 'other'"),
        ({"sources": {}}, "sources lacks cpu"),
    ],
)
def test_a_wrong_profile_is_named_with_its_file_and_field(folder: Path, change: dict[str, object], wrong: str) -> None:
    (folder / PI.name).write_text(yaml.safe_dump(yaml.safe_load(PI.read_text()) | change))
    with pytest.raises(ConfigError) as caught:
        load_profile("raspberry-pi-4")
    assert str(folder / PI.name) in caught.value.wrong
    assert wrong in caught.value.wrong


def test_the_host_is_looked_at_when_it_is_loaded_and_stays_equal(folder: Path) -> None:
    profile = load_profile("host")
    assert profile.name == "host"
    assert profile.calibration == "none"
    assert profile.memory_bandwidth_gb_s is not None
    assert load_profile("host") == profile


def test_a_written_host_wins_over_looking(folder: Path) -> None:
    written = detect_host(measure_bandwidth=False).model_copy(update={"title": "Written down"})
    path = write_profile(written, folder)
    assert path == folder / "host.yaml"
    assert load_profile("host") == written
