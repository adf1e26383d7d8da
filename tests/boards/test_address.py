from __future__ import annotations

import pytest

from autocompress.boards.address import Direct, Place, Ssh, Tracked, added, load, parse_place, save
from autocompress.errors import ConfigError

ADDRESSES = [Direct(Place("10.0.0.7", 9190)), Tracked(Place("tracker", 9000), "rpi4"), Ssh("pi@rpi4", "bin/python")]


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOCOMPRESS_HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_an_address_is_kept(address):
    save("rpi4", address)
    assert load("rpi4") == address
    assert added() == {"rpi4": address}


def test_a_board_that_was_never_added_has_none():
    assert load("rpi4") is None
    assert added() == {}


@pytest.mark.parametrize("text", ["10.0.0.7", ":9190", "10.0.0.7:", "10.0.0.7:nine", "10.0.0.7:70000", "a:0"])
def test_a_place_is_a_host_and_a_port(text):
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_place(text)


def test_a_place_is_read_as_it_is_written():
    assert parse_place("10.0.0.7:9190") == Place("10.0.0.7", 9190)
    assert str(parse_place("10.0.0.7:9190")) == "10.0.0.7:9190"
    assert parse_place("[::1]:9190") == Place("::1", 9190)


@pytest.mark.parametrize("name", ["host", "Rpi 4", "../rpi4", ""])
def test_a_name_that_no_profile_could_have_is_refused(name):
    with pytest.raises(ConfigError, match="called"):
        save(name, ADDRESSES[0])


def test_a_destination_is_never_an_option_of_ssh():
    with pytest.raises(ConfigError, match="USER@HOST"):
        save("rpi4", Ssh("-oProxyCommand=reboot"))


@pytest.mark.parametrize(
    "text", ["", "[]", '{"kind": "pigeon"}', '{"kind": "direct"}', '{"kind": "direct", "place": 3}']
)
def test_a_spoilt_file_is_named_with_the_command_that_writes_it(folder, text):
    save("rpi4", ADDRESSES[0]).write_text(text)
    with pytest.raises(ConfigError, match="device add rpi4"):
        load("rpi4")
