import pytest

from autocompress.errors import MissingDependencyError
from tests.boards import build_arm64


def test_all_missing_tools_are_named_with_their_packages(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: None if command.startswith(("debootstrap", "qemu")) else "here")
    with pytest.raises(MissingDependencyError) as error:
        build_arm64.build(tmp_path)
    assert error.value.wrong == "Not installed: debootstrap, qemu-aarch64-static."
    assert error.value.next_step.endswith("debootstrap qemu-user-static")


def test_who_may_not_build_a_root_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: "here")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(build_arm64.BoardError, match="sudo"):
        build_arm64.build(tmp_path)


def test_a_root_that_was_not_finished_is_no_board(tmp_path):
    (tmp_path / "arm64" / "usr").mkdir(parents=True)
    with pytest.raises(MissingDependencyError, match="no emulated board"):
        build_arm64.finished(tmp_path)


def test_a_failed_step_leaves_no_root_and_says_where_its_log_is(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda command: "here")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "debootstrap").write_text("#!/bin/sh\nfor last; do :; done\nmkdir -p $last\necho no mirror\nexit 3\n")
    (tools / "debootstrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:/usr/bin:/bin")
    (tmp_path / "arm64" / "usr").mkdir(parents=True)
    with pytest.raises(build_arm64.BoardError, match="ended with 3: no mirror") as error:
        build_arm64.build(tmp_path)
    assert str(tmp_path / "arm64.log") in error.value.next_step
    assert not (tmp_path / "arm64").exists()


def test_a_finished_root_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(build_arm64, "is_finished", lambda root: True)
    monkeypatch.setattr(build_arm64, "_build", lambda *_: pytest.fail("built again"))
    assert build_arm64.build(tmp_path) == tmp_path / "arm64"
