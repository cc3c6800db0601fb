from __future__ import annotations

import subprocess
import sys

import pytest

from batche import cli
from batche.errors import StoreError


def test_version_is_the_distributions(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    with pytest.raises(SystemExit) as exit_:
        cli.main(["--version"])
    assert exit_.value.code == 0
    assert capsys.readouterr().out == f"batche {version('batche')}\n"


@pytest.mark.parametrize("wrong", [[], ["dmeo"], ["demo", "--workers", "0"], ["demo", "--workers", "two"]])
def test_called_wrongly_exits_with_2(wrong: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main(wrong)
    assert exit_.value.code == 2
    assert "usage: batche" in capsys.readouterr().err


@pytest.mark.parametrize("command", [[], ["demo"]])
def test_help_tells_the_exit_codes(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli.main([*command, "--help"])
    assert exit_.value.code == 0
    assert cli.EXIT_CODES in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (StoreError("shm://x", "no room"), 1, "batche: shm://x: no room\n"),
        (OSError("disk gone"), 1, "batche: disk gone\n"),
        (KeyboardInterrupt(), 130, "batche: interrupted\n"),
    ],
)
def test_a_command_that_cannot_finish_says_why_in_one_line(
    error: BaseException, code: int, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from batche import _demo

    def fail(**_: object) -> int:
        raise error

    monkeypatch.setattr(_demo, "main", fail)
    assert cli.main(["demo"]) == code
    assert capsys.readouterr().err == said


def test_the_module_is_the_command() -> None:
    done = subprocess.run([sys.executable, "-m", "batche", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("batche ")
