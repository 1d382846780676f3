"""○ adapter · `perdure server` (click): find the configuration, show it or run a node with it."""

from __future__ import annotations

import logging
import os
import socket
import sys

import click

from perdure_server import logs
from perdure_server.cli.extras import exit_for_missing_extra
from perdure_server.config import SETTINGS, Setting
from perdure_server.config_load import CONFIG_FILE_VARIABLE, ConfigError, ConfigFile, Loaded, load, to_toml
from perdure_server.limits import CONFIG_FILE_BYTES_MAX

HELP = """Run a server until Ctrl-C.

Everything has a default, so `perdure server` alone is enough to begin: it keeps its data in
./perdure-data, and finds it there again next time.

Each setting is taken from its flag, else from its environment variable, else from the TOML file, else it
has its default. The flags below are the most used settings; --print-config shows them all, with their
variables.

\b
Examples:
  perdure server
  perdure server --data-dir /var/lib/perdure --bind-ip 0.0.0.0
  PERDURE_INVOKER__ABORT_TIMEOUT=5m perdure server
  perdure server --print-config > perdure.toml
  perdure server --config-file perdure.toml
"""


def _flag(setting: Setting) -> click.Option:
    """The click option of a setting; the text goes on unparsed, so that all sources share one parser."""
    about = setting.about
    assert about.flag is not None
    default = about.kind.show(setting.default).strip('"')
    return click.Option(
        [about.flag, setting.field],
        metavar="VALUE",
        help=f"{about.help}  [env: {setting.variable}; default: {default}]",
    )


def _run(config_file: str | None, print_config: bool, **flags: str | None) -> None:
    try:
        loaded = load(
            flags={field: text for field, text in flags.items() if text is not None},
            environment=os.environ,
            file=_read(config_file) if config_file is not None else None,
            host_name=socket.gethostname() or "localhost",
        )
    except ConfigError as error:
        raise click.ClickException("\n       ".join(error.problems)) from error
    if print_config:
        for warning in loaded.warnings:
            click.echo(f"Warning: {warning}", err=True)
        click.echo(to_toml(loaded.config), nl=False)
    else:
        click.get_current_context().exit(_run_node(loaded))


def _run_node(loaded: Loaded) -> int:
    logs.set_up(loaded.config.log_level, sys.stderr)
    for warning in loaded.warnings:
        logging.getLogger("perdure.config").warning(warning)
    try:
        # Imported late: the other commands start without the log, the store and the network stack of a node.
        from perdure_server.node import run
    except ModuleNotFoundError as error:
        exit_for_missing_extra(error)
    return run(loaded.config)


def _read(path: str) -> ConfigFile:
    try:
        with open(path, "rb") as file:
            content = file.read(CONFIG_FILE_BYTES_MAX + 1)
        text = content.decode()
    except OSError as error:
        raise click.ClickException(f"cannot read the config file {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise click.ClickException(f"the config file {path} is not UTF-8 text") from error
    if len(content) > CONFIG_FILE_BYTES_MAX:
        raise click.ClickException(f"the config file {path} is larger than {CONFIG_FILE_BYTES_MAX} bytes")
    return ConfigFile(path, text)


server = click.Command(
    "server",
    callback=_run,
    help=HELP,
    short_help="Run a server until Ctrl-C.",
    params=[
        click.Option(
            ["--config-file"],
            metavar="PATH",
            envvar=CONFIG_FILE_VARIABLE,
            show_envvar=True,
            help="TOML file with settings, for example one that --print-config wrote.",
        ),
        *(_flag(setting) for setting in SETTINGS if setting.about.flag is not None),
        click.Option(
            ["--print-config"],
            is_flag=True,
            help="Print every setting with its value and its source as a TOML file, and exit.",
        ),
    ],
)
