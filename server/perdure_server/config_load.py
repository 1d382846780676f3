"""● core · How a Config comes about: flags over environment over TOML file over defaults, and back to TOML.

Nothing is read here: the caller gives the flags, the environment and the text of the file. An empty
environment variable counts as not set, since that is what `${NAME:-}` in a compose file leaves behind.
A value that cannot be understood is an error, and every such error is reported at once; a name that is
not known is a warning, because an orchestrator may put variables of its own with our prefix there.
"""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from perdure_processor.model.limits import ATTEMPTS_MAX, ATTEMPTS_PER_DEPLOYMENT_MAX
from perdure_processor.model.value import value
from perdure_server.config import PREFIX, SETTINGS, Config, Origin, Source
from perdure_server.config_kinds import Kind
from perdure_server.limits import CONFIG_SHOWN_CHARACTERS_MAX

CONFIG_FILE_VARIABLE = "PERDURE_CONFIG_FILE"
ADMIN_URL_VARIABLE = "PERDURE_ADMIN_URL"


class ConfigError(Exception):
    """What is wrong with the configuration, one problem a line: the setting, its source, what is expected."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


@value
class ConfigFile:
    """A TOML file that was read: its name for messages, and its text."""

    name: str
    text: str


@value
class Loaded:
    """A configuration that holds, and what its owner should hear about it all the same."""

    config: Config
    warnings: tuple[str, ...]


def load(flags: Mapping[str, str], environment: Mapping[str, str], file: ConfigFile | None, host_name: str) -> Loaded:
    """The configuration for a server; raises ConfigError with every problem found.

    `flags` are keyed by the field of Config that they set. `host_name` is the default name of the node."""
    problems: list[str] = []
    warnings = _unknown_variables(environment)
    in_file = _values_of_file(file, problems, warnings) if file is not None else {}
    values: dict[str, Any] = {}
    sources: dict[str, Source] = {}
    for setting in SETTINGS:
        about = setting.about
        given: object
        if setting.field in flags:
            given, source = flags[setting.field], Source(Origin.FLAG, about.flag or "")
        elif environment.get(setting.variable):
            given, source = environment[setting.variable], Source(Origin.ENVIRONMENT, setting.variable)
        elif file is not None and about.path in in_file:
            given, source = in_file[about.path], Source(Origin.FILE, file.name)
        else:
            continue
        sources[setting.field] = source
        try:
            values[setting.field] = _parse(about.kind, given)
        except ValueError:
            problems.append(f"{about.path} = {_shown(given)} (from {source}): expected {about.kind.expected}")
            continue
        if about.ignored is not None:
            warnings.append(f"{about.path} (from {source}) {about.ignored}")
    values.setdefault("node_name", host_name)
    if "invoker_concurrency_limit" in values:
        share = values["invoker_concurrency_limit"] * ATTEMPTS_PER_DEPLOYMENT_MAX // ATTEMPTS_MAX
        values.setdefault("invoker_deployment_concurrency_limit", max(1, share))
    config = Config(**values, sources=sources)
    problems = problems or _conflicts(config)
    if problems:
        raise ConfigError(problems)
    return Loaded(config, tuple(warnings))


def to_toml(config: Config) -> str:
    """The whole configuration as a file that `load` reads back, with the source of each value beside it."""
    lines: list[str] = []
    table = ""
    # Keys of no table come first: in TOML whatever follows a table's heading belongs to it.
    for setting in sorted(SETTINGS, key=lambda setting: "." in setting.about.path):
        section, _, key = setting.about.path.rpartition(".")
        if section != table:
            table = section
            lines += ["", f"[{section}]"]
        current = getattr(config, setting.field)
        kind = setting.about.kind
        literal = (
            f"# {key} is not set" if current is None and setting.default is None else f"{key} = {kind.show(current)}"
        )
        source = config.source_of(setting.field)
        said = str(source) if source.origin is Origin.ENVIRONMENT else f"{source}; {setting.variable}"
        # A comment ends with its line, and a file may have any name.
        lines.append(f"{literal:<44}  # {said if said.isprintable() else ascii(said)}")
    return "\n".join(lines) + "\n"


def _parse(kind: Kind[Any], given: object) -> Any:
    # `type(…) in` rather than isinstance: a bool is an int to Python, and never a port.
    if type(given) not in kind.toml_types:
        raise ValueError(f"not written as {kind.toml_types}: {given!r}")
    if isinstance(given, bool):
        return kind.parse("true" if given else "false")
    return kind.parse(str(given))


def _shown(given: object) -> str:
    text = repr(given)
    return text if len(text) <= CONFIG_SHOWN_CHARACTERS_MAX else text[:CONFIG_SHOWN_CHARACTERS_MAX] + "…"


def _conflicts(config: Config) -> list[str]:
    """Values that are well-formed one by one and cannot be true together."""
    problems = []
    holder_by_port: dict[int, str] = {}
    for field in ("ingress_port", "admin_port", "node_port"):
        port = getattr(config, field)
        path = f"{field.replace('_', '.')} (from {config.source_of(field)})"
        if port and port in holder_by_port:
            problems.append(f"{path} is {port}, and so is {holder_by_port[port]}: expected three different ports")
        holder_by_port[port] = path
    return problems


def _unknown_variables(environment: Mapping[str, str]) -> list[str]:
    known = [setting.variable for setting in SETTINGS] + [CONFIG_FILE_VARIABLE, ADMIN_URL_VARIABLE]
    return [
        f"environment variable {name} is not known and has no effect{_nearest(name, known)}"
        for name in sorted(environment)
        if name.startswith(PREFIX) and name not in known
    ]


def _nearest(name: str, known: Sequence[str]) -> str:
    matches = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {matches[0]}?" if matches else ""


def _values_of_file(file: ConfigFile, problems: list[str], warnings: list[str]) -> dict[str, object]:
    """The settings that a file gives, by path; whatever else it holds becomes a warning or a problem."""
    try:
        document = tomllib.loads(file.text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError([f"{file.name} is not TOML: {error}"]) from error
    paths = [setting.about.path for setting in SETTINGS]
    sections = [path.rpartition(".")[0] for path in paths if "." in path]
    values: dict[str, object] = {}
    for written, given in _leaves(document, sections):
        path = written.replace("_", "-")
        if path in values:
            problems.append(f"{path} is given twice in {file.name} ('-' and '_' are the same)")
        elif path in paths:
            values[path] = given
        elif path in sections:
            problems.append(f"{path} = {_shown(given)} (from file {file.name}): expected a table, as in [{path}]")
        else:
            hint = _nearest(path, paths + sections)
            warnings.append(f"{written} in {file.name} is not known and has no effect{hint}")
    return values


def _leaves(document: Mapping[str, Any], sections: Sequence[str]) -> Iterable[tuple[str, object]]:
    """The document's values with dotted names, entering only tables that hold settings."""
    for key, given in document.items():
        if isinstance(given, dict) and key.replace("_", "-") in sections:
            for inner_key, inner in given.items():
                yield f"{key}.{inner_key}", inner
        else:
            yield key, given
