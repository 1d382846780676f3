"""`perdure server` up to the point where a node would start, and the command itself."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from perdure_server.cli.commands import perdure

OURS = ("PERDURE_CONFIG_FILE", "PERDURE_ADMIN__PORT", "PERDURE_NODE__PORT", "PERDURE_ADMIN_URL")


def run(*arguments: str, env: Mapping[str, str] | None = None) -> Result:
    environment = {**dict.fromkeys(OURS), **(env or {})}
    return CliRunner().invoke(perdure, ["server", *arguments], env=environment, prog_name="perdure")


def test_print_config_shows_values_and_sources_of_all_three_kinds(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text("[ingress]\nport = 18080\n")
    result = run(
        "--config-file", str(file), "--admin-port", "19070", "--print-config", env={"PERDURE_NODE__PORT": "15122"}
    )
    assert result.exit_code == 0
    document = tomllib.loads(result.stdout)
    assert [document[section]["port"] for section in ("ingress", "admin", "node")] == [18080, 19070, 15122]
    assert f"# file {file}; PERDURE_INGRESS__PORT" in result.stdout
    assert "# flag --admin-port; PERDURE_ADMIN__PORT" in result.stdout
    assert "# environment PERDURE_NODE__PORT" in result.stdout


def test_the_file_may_be_named_by_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text("[log]\nfsync = 'never'\n")
    result = run("--print-config", env={"PERDURE_CONFIG_FILE": str(file)})
    assert tomllib.loads(result.stdout)["log"]["fsync"] == "never"


def test_what_is_printed_can_be_given_back(tmp_path: Path) -> None:
    file = tmp_path / "perdure.toml"
    file.write_text(run("--partitions", "3", "--print-config").stdout)
    again = run("--config-file", str(file), "--print-config")
    assert tomllib.loads(again.stdout) == tomllib.loads(file.read_text())
    assert again.stderr == ""


def test_unknown_names_are_told_beside_the_configuration() -> None:
    result = run("--print-config", env={"PERDURE_ADMIN_PORT": "1"})
    assert result.exit_code == 0
    assert result.stderr == (
        "Warning: environment variable PERDURE_ADMIN_PORT is not known and has no effect;"
        " did you mean PERDURE_ADMIN__PORT?\n"
    )
    tomllib.loads(result.stdout)


def test_a_wrong_value_is_one_sentence_and_starts_nothing() -> None:
    result = run("--admin-port", "http")
    assert result.exit_code == 1
    assert result.stderr == (
        "Error: admin.port = 'http' (from flag --admin-port): expected a port number from 0 to 65535,"
        " where 0 lets the system choose\n"
    )


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(None, "No such file or directory"), (b"\xff\xfe", "not UTF-8"), (b"#" * (1 << 20) + b"#", "larger than")],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    file = tmp_path / "perdure.toml"
    if content is not None:
        file.write_bytes(content)
    result = run("--config-file", str(file))
    assert result.exit_code == 1
    assert str(file) in result.stderr
    assert complaint in result.stderr


def all_commands(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    inner = command.commands.items() if isinstance(command, click.Group) else ()
    return [path, *(each for name, child in inner for each in all_commands(child, (*path, name)))]


@pytest.mark.parametrize("path", all_commands(perdure), ids=" ".join)
def test_every_help_has_an_example(path: tuple[str, ...]) -> None:
    result = CliRunner().invoke(perdure, [*path, "--help"], prog_name="perdure")
    assert result.exit_code == 0
    assert " ".join(("perdure", *path)) in result.output.partition("\n")[2]


def test_the_version_is_that_of_the_distribution() -> None:
    assert CliRunner().invoke(perdure, ["--version"]).output.startswith("perdure ")


def test_without_the_extra_the_command_says_what_to_install() -> None:
    program = "import sys; sys.modules['click'] = None; from perdure_server.cli import main; main()"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert result.returncode == 1
    assert "pip install 'perdure[server]'" in result.stderr
    assert "Traceback" not in result.stderr


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "perdure_server", "--help"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    assert result.stdout.startswith("Usage: perdure [OPTIONS] COMMAND")
