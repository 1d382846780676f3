"""Configuration as an operator meets it: what wins, what is refused, and in which words."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path

import pytest

from perdure_processor.model.limits import ATTEMPTS_MAX, ATTEMPTS_PER_DEPLOYMENT_MAX, MIB
from perdure_processor.model.schema import RetryPolicy
from perdure_server.config import SETTINGS, Config, Origin, Source
from perdure_server.config_kinds import format_size, parse_size
from perdure_server.config_load import ConfigError, ConfigFile, Loaded, load, to_toml

CONFORMANCE_SETTINGS = Path(__file__).parents[2] / "conformance" / "settings" / "perdure.json"
# Every setting: its variable, its default, a text an operator may write, and the value that it means.
SETTING_TABLE = [
    ("PERDURE_DATA_DIR", "data_dir", "./perdure-data", "/var/lib/perdure", "/var/lib/perdure"),
    ("PERDURE_BIND_IP", "bind_ip", "127.0.0.1", "0.0.0.0", "0.0.0.0"),
    ("PERDURE_CLUSTER_NAME", "cluster_name", "localcluster", "eu-1", "eu-1"),
    (
        "PERDURE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE",
        "request_identity_private_key_pem_file",
        None,
        "/etc/perdure/key.pem",
        "/etc/perdure/key.pem",
    ),
    ("PERDURE_REQUEST_IDENTITY_EXPIRATION", "request_identity_expiration_ms", 60_000, "5m", 300_000),
    ("PERDURE_INGRESS__PORT", "ingress_port", 8080, "18080", 18080),
    ("PERDURE_INGRESS__REQUEST_SIZE_LIMIT", "ingress_request_size_limit_bytes", 32 * MIB, "64KiB", 65_536),
    ("PERDURE_ADMIN__PORT", "admin_port", 9070, "19070", 19070),
    ("PERDURE_NODE__PORT", "node_port", 5122, "15122", 15122),
    ("PERDURE_NODE__NAME", "node_name", "host-7", "conformance", "conformance"),
    ("PERDURE_LOG__PARTITIONS", "log_partitions", 8, "4", 4),
    ("PERDURE_LOG__FSYNC", "log_fsync", "always", "interval:50", ("interval", 50)),
    ("PERDURE_LOG__FSYNC", "log_fsync", "always", "never", "never"),
    ("PERDURE_LOG__LEVEL", "log_level", "info", "DEBUG", "debug"),
    ("PERDURE_STORAGE__MEMORY", "storage_memory_bytes", 512_000_000, "1.5 GiB", 1536 * MIB),
    ("PERDURE_STORAGE__DISK_FREE_MIN", "storage_disk_free_min_bytes", 192 * MIB, "64MiB", 64 * MIB),
    ("PERDURE_WORKER__CLEANUP_INTERVAL", "worker_cleanup_interval_ms", 1000, "1h", 3_600_000),
    ("PERDURE_WORKER__TIMERS_IN_MEMORY", "worker_timers_in_memory", None, "1", 1),
    ("PERDURE_INVOKER__INACTIVITY_TIMEOUT", "invoker_inactivity_timeout_ms", 60_000, "0s", 0),
    ("PERDURE_INVOKER__ABORT_TIMEOUT", "invoker_abort_timeout_ms", 600_000, "PT5M", 300_000),
    ("PERDURE_INVOKER__CONNECT_TIMEOUT", "invoker_connect_timeout_ms", 10_000, "500ms", 500),
    ("PERDURE_INVOKER__CONCURRENCY_LIMIT", "invoker_concurrency_limit", ATTEMPTS_MAX, "10", 10),
    (
        "PERDURE_INVOKER__DEPLOYMENT_CONCURRENCY_LIMIT",
        "invoker_deployment_concurrency_limit",
        ATTEMPTS_PER_DEPLOYMENT_MAX,
        "7",
        7,
    ),
    ("PERDURE_INVOKER__MEMORY_LIMIT", "invoker_memory_limit_bytes", 1536 * MIB, "1MiB", MIB),
    (
        "PERDURE_INVOKER__INVOCATION_MEMORY_LIMIT",
        "invoker_invocation_memory_limit_bytes",
        None,
        "256KiB",
        262_144,
    ),
    ("PERDURE_INVOKER__MESSAGE_SIZE_LIMIT", "invoker_message_size_limit_bytes", 32 * MIB, "1MB", 1_000_000),
    ("PERDURE_INVOKER__EAGER_STATE_SIZE_LIMIT", "invoker_eager_state_size_limit_bytes", 32 * MIB, "0", 0),
    ("PERDURE_INVOKER__DISABLE_EAGER_STATE", "invoker_disable_eager_state", False, "true", True),
    ("PERDURE_INVOKER__PROTOCOL_V7", "invoker_protocol_v7", False, "on", True),
    ("PERDURE_INVOKER__CA_FILE", "invoker_ca_file", None, "/etc/ca.pem", "/etc/ca.pem"),
    ("PERDURE_RETRY__INITIAL_INTERVAL", "retry_initial_interval_ms", 500, "1ms", 1),
    ("PERDURE_RETRY__EXPONENTIATION_FACTOR", "retry_factor", 2.0, "1.5", 1.5),
    ("PERDURE_RETRY__MAX_INTERVAL", "retry_max_interval_ms", 60_000, "500 millis", 500),
    ("PERDURE_RETRY__MAX_ATTEMPTS", "retry_max_attempts", 70, "unlimited", None),
    ("PERDURE_RETRY__MAX_ATTEMPTS", "retry_max_attempts", 70, "1", 1),
    ("PERDURE_RETRY__ON_MAX_ATTEMPTS", "retry_on_max_attempts", "pause", "kill", "kill"),
    ("PERDURE_RETENTION__JOURNAL", "retention_journal_ms", 86_400_000, "7d", 7 * 86_400_000),
    ("PERDURE_RETENTION__IDEMPOTENCY", "retention_idempotency_ms", 86_400_000, "0s", 0),
    ("PERDURE_RETENTION__WORKFLOW", "retention_workflow_ms", 86_400_000, "1h 30m", 5_400_000),
]


def loaded(
    flags: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, toml: str | None = None
) -> Loaded:
    file = None if toml is None else ConfigFile("perdure.toml", toml)
    return load(flags or {}, env or {}, file, host_name="host-7")


def problems(
    flags: Mapping[str, str] | None = None, env: Mapping[str, str] | None = None, toml: str | None = None
) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        loaded(flags, env, toml)
    return caught.value.problems


@pytest.mark.parametrize(("variable", "field", "default", "text", "meaning"), SETTING_TABLE)
def test_every_setting_has_its_default_and_reads_its_variable(
    variable: str, field: str, default: object, text: str, meaning: object
) -> None:
    untouched = loaded().config
    assert getattr(untouched, field) == default
    assert untouched.source_of(field) == Source(Origin.DEFAULT)
    given = loaded(env={variable: text}).config
    assert getattr(given, field) == meaning
    assert given.source_of(field) == Source(Origin.ENVIRONMENT, variable)


def test_the_table_above_leaves_no_setting_out() -> None:
    assert {setting.variable for setting in SETTINGS} == {row[0] for row in SETTING_TABLE}


def test_the_conformance_suite_asks_only_for_settings_that_exist() -> None:
    asked = json.loads(CONFORMANCE_SETTINGS.read_text())
    assert {name for name in asked.values() if name} <= {setting.variable for setting in SETTINGS}


def test_flag_beats_environment_beats_file_beats_default() -> None:
    toml = "[admin]\nport = 3\n[ingress]\nport = 3\n[node]\nport = 3\n"
    env = {"PERDURE_ADMIN__PORT": "2", "PERDURE_INGRESS__PORT": "2"}
    config = loaded({"admin_port": "1"}, env, toml).config
    assert (config.admin_port, config.source_of("admin_port")) == (1, Source(Origin.FLAG, "--admin-port"))
    assert (config.ingress_port, str(config.source_of("ingress_port"))) == (
        2,
        "environment PERDURE_INGRESS__PORT",
    )
    assert (config.node_port, str(config.source_of("node_port"))) == (3, "file perdure.toml")
    assert (config.log_partitions, str(config.source_of("log_partitions"))) == (8, "default")
    assert config.was_given("node_port")
    assert not config.was_given("log_partitions")


def test_a_value_that_lost_is_not_judged() -> None:
    assert loaded({"admin_port": "1"}, {"PERDURE_ADMIN__PORT": "nonsense"}).config.admin_port == 1


def test_an_empty_variable_is_not_set() -> None:
    config = loaded(env={"PERDURE_ADMIN__PORT": ""}, toml="[admin]\nport = 4").config
    assert config.admin_port == 4


def test_a_file_may_write_names_and_values_in_its_own_types() -> None:
    toml = """
        data-dir = "/data"
        bind_ip = "::1"
        [ingress]
        port = 18080
        request_size_limit = 1024
        [invoker]
        protocol-v7 = true
        [retry]
        exponentiation-factor = 3
        max-attempts = "unlimited"
        max-interval = "PT2S"
    """
    config = loaded(toml=toml).config
    assert (config.data_dir, config.bind_ip) == ("/data", "::1")
    assert (config.ingress_port, config.ingress_request_size_limit_bytes) == (18080, 1024)
    assert config.invoker_protocol_v7 is True
    assert config.retry_policy == RetryPolicy(500, 3.0, 2000, None, False)


def test_the_defaults_for_handlers_come_from_here() -> None:
    env = {
        "PERDURE_RETRY__ON_MAX_ATTEMPTS": "kill",
        "PERDURE_RETENTION__WORKFLOW": "2s",
        "PERDURE_INVOKER__ABORT_TIMEOUT": "3s",
    }
    defaults = loaded(env=env).config.defaults
    assert defaults.retry_policy.kill_on_max_attempts
    assert (defaults.workflow_retention_ms, defaults.abort_timeout_ms) == (2_000, 3_000)
    assert defaults.journal_retention_ms == 86_400_000


def test_a_deployment_gets_its_share_of_whatever_the_limit_is() -> None:
    assert loaded(env={"PERDURE_INVOKER__CONCURRENCY_LIMIT": "10"}).config.invoker_deployment_concurrency_limit == 6
    assert loaded(env={"PERDURE_INVOKER__CONCURRENCY_LIMIT": "1"}).config.invoker_deployment_concurrency_limit == 1


@pytest.mark.parametrize(
    ("variable", "text", "expected"),
    [
        ("PERDURE_ADMIN__PORT", "http", "expected a port number from 0 to 65535, where 0 lets the system choose"),
        ("PERDURE_ADMIN__PORT", "65536", "expected a port number"),
        ("PERDURE_ADMIN__PORT", "-1", "expected a port number"),
        ("PERDURE_BIND_IP", "localhost", "expected an IP address such as 127.0.0.1"),
        ("PERDURE_LOG__PARTITIONS", "0", "expected a whole number from 1 to 4096"),
        ("PERDURE_LOG__PARTITIONS", "4097", "expected a whole number from 1 to 4096"),
        ("PERDURE_LOG__PARTITIONS", "8.0", "expected a whole number"),
        ("PERDURE_LOG__FSYNC", "interval", "expected always, never, or interval:MS"),
        ("PERDURE_LOG__FSYNC", "interval:0", "expected always, never, or interval:MS"),
        ("PERDURE_LOG__FSYNC", "always:5", "expected always, never, or interval:MS"),
        ("PERDURE_LOG__LEVEL", "loud", "expected one of debug, info, warning, error"),
        ("PERDURE_WORKER__CLEANUP_INTERVAL", "999ms", "expected a duration with its unit"),
        ("PERDURE_RETRY__MAX_INTERVAL", "30", "such as 500ms, 10s, 1h 30m or PT10S"),
        ("PERDURE_RETRY__INITIAL_INTERVAL", "0s", "at least 1ms"),
        ("PERDURE_RETRY__EXPONENTIATION_FACTOR", "0.5", "expected a number from 1.0"),
        ("PERDURE_RETRY__EXPONENTIATION_FACTOR", "nan", "expected a number from 1.0"),
        ("PERDURE_RETRY__MAX_ATTEMPTS", "0", "expected a number of attempts, at least 1, or the word unlimited"),
        ("PERDURE_RETRY__ON_MAX_ATTEMPTS", "fail", "expected one of pause, kill"),
        ("PERDURE_INGRESS__REQUEST_SIZE_LIMIT", "1PiB", "expected a size such as 64KiB, 32MiB or 512MB"),
        ("PERDURE_INGRESS__REQUEST_SIZE_LIMIT", "1GiB", "from 1B to 36MiB"),
        ("PERDURE_INVOKER__PROTOCOL_V7", "perhaps", "expected true or false"),
        ("PERDURE_CLUSTER_NAME", "two words", "expected a name of letters, digits"),
        ("PERDURE_DATA_DIR", "a\nb", "expected a path"),
    ],
)
def test_a_wrong_value_names_the_setting_its_source_and_what_is_expected(
    variable: str, text: str, expected: str
) -> None:
    (problem,) = problems(env={variable: text})
    path = next(setting.about.path for setting in SETTINGS if setting.variable == variable)
    assert problem.startswith(f"{path} = {text!r} (from environment {variable}): ")
    assert expected in problem


@pytest.mark.parametrize(
    ("toml", "problem"),
    [
        ("[admin]\nport = true", "admin.port = True (from file perdure.toml): expected a port number"),
        ("[admin]\nport = 90.7", "admin.port = 90.7 (from file perdure.toml): expected a port number"),
        ("[node]\nname = 7", "node.name = 7 (from file perdure.toml): expected a name"),
        ("[retry]\nmax-interval = 30", "retry.max-interval = 30 (from file perdure.toml): expected a duration"),
        ("[log]\nfsync = ['always']", "log.fsync = ['always'] (from file perdure.toml): expected always, never"),
        ("ingress = 8080", "ingress = 8080 (from file perdure.toml): expected a table, as in [ingress]"),
        ("data-dir = 'a'\ndata_dir = 'b'", "data-dir is given twice in perdure.toml"),
        ("port = ", "perdure.toml is not TOML: Invalid value (at end of document)"),
    ],
)
def test_a_wrong_file_is_told_apart_the_same_way(toml: str, problem: str) -> None:
    (found,) = problems(toml=toml)
    assert found.startswith(problem)


def test_a_wrong_flag_is_named_as_it_was_written() -> None:
    (problem,) = problems({"log_fsync": "sometimes"})
    assert problem.startswith("log.fsync = 'sometimes' (from flag --fsync): expected always")


def test_an_endless_wrong_value_is_not_repeated_in_full() -> None:
    (problem,) = problems(env={"PERDURE_ADMIN__PORT": "9" * 100_000})
    assert len(problem) < 300


def test_all_wrong_values_are_reported_at_once() -> None:
    env = {"PERDURE_ADMIN__PORT": "x", "PERDURE_LOG__FSYNC": "y"}
    assert [problem.partition(" ")[0] for problem in problems(env=env, toml="[node]\nport = 'z'")] == [
        "admin.port",
        "node.port",
        "log.fsync",
    ]


def test_two_servers_cannot_share_a_port_but_may_all_leave_the_choice_to_the_system() -> None:
    (problem,) = problems(env={"PERDURE_ADMIN__PORT": "8080"})
    assert problem == (
        "admin.port (from environment PERDURE_ADMIN__PORT) is 8080, and so is ingress.port (from default):"
        " expected three different ports"
    )
    zeros = {"ingress_port": "0", "admin_port": "0", "node_port": "0"}
    assert loaded(zeros).config.admin_port == 0


def test_a_setting_without_effect_says_so() -> None:
    (warning,) = loaded(env={"PERDURE_WORKER__TIMERS_IN_MEMORY": "1"}).warnings
    assert warning.startswith(
        "worker.timers-in-memory (from environment PERDURE_WORKER__TIMERS_IN_MEMORY) has no effect"
    )


@pytest.mark.parametrize(
    ("written", "nearest"),
    [
        ("PERDURE_INGRESS_PORT", "PERDURE_INGRESS__PORT"),
        ("PERDURE_LOG__FYSNC", "PERDURE_LOG__FSYNC"),
        ("PERDURE_DATADIR", "PERDURE_DATA_DIR"),
        ("PERDURE_CONFIG", "PERDURE_CONFIG_FILE"),
    ],
)
def test_an_unknown_variable_is_reported_with_the_nearest_known_one(written: str, nearest: str) -> None:
    (warning,) = loaded(env={written: "1"}).warnings
    assert warning == f"environment variable {written} is not known and has no effect; did you mean {nearest}?"


def test_a_variable_like_none_of_ours_is_reported_without_a_guess() -> None:
    (warning,) = loaded(env={"PERDURE_XYZZY_QUUX": "1"}).warnings
    assert warning == "environment variable PERDURE_XYZZY_QUUX is not known and has no effect"


def test_other_peoples_variables_and_those_of_the_command_line_are_none_of_its_business() -> None:
    env = {
        "PATH": "/bin",
        "CONFORMANCE_ID": "c1",
        "RESTATE_ADMIN__PORT": "1",
        "PERDURE_ADMIN_URL": "http://a",
        "PERDURE_CONFIG_FILE": "perdure.toml",
    }
    assert loaded(env=env).warnings == ()


@pytest.mark.parametrize(
    ("toml", "written", "nearest"),
    [
        ("[ingress]\nprot = 1", "ingress.prot", "ingress.port"),
        ("[ingres]\nport = 1", "ingres", "ingress"),
        ("datadir = '/data'", "datadir", "data-dir"),
        ("[invoker]\nabort_timeouts = '1s'", "invoker.abort_timeouts", "invoker.abort-timeout"),
    ],
)
def test_an_unknown_key_of_the_file_is_reported_with_the_nearest_known_one(
    toml: str, written: str, nearest: str
) -> None:
    (warning,) = loaded(toml=toml).warnings
    assert warning == f"{written} in perdure.toml is not known and has no effect; did you mean {nearest}?"


def test_the_printed_configuration_is_a_file_that_says_the_same() -> None:
    without_effect = ("PERDURE_WORKER__TIMERS_IN_MEMORY", "PERDURE_INVOKER__INVOCATION_MEMORY_LIMIT")
    env = {row[0]: row[3] for row in SETTING_TABLE if row[0] not in without_effect}
    config = loaded(env=env).config
    printed = to_toml(config)
    again = loaded(toml=printed)
    assert again == Loaded(config, ())
    assert again.config != Config()
    assert {again.config.source_of(field).origin for field in again.config.sources} == {Origin.FILE}


def test_the_printed_configuration_of_defaults_mentions_what_is_not_set() -> None:
    printed = to_toml(loaded().config)
    assert tomllib.loads(printed)["log"]["fsync"] == "always"
    assert "# ca-file is not set" in printed
    assert loaded(toml=printed).config == loaded().config


def test_the_printed_configuration_shows_where_each_value_came_from() -> None:
    flags, env = {"admin_port": "1"}, {"PERDURE_NODE__PORT": "2"}
    lines = to_toml(loaded(flags, env, "[ingress]\nport = 3").config).splitlines()
    origins = {line.partition("#")[0].strip(): line.partition("#")[2].strip() for line in lines if "port = " in line}
    assert origins == {
        "port = 1": "flag --admin-port; PERDURE_ADMIN__PORT",
        "port = 2": "environment PERDURE_NODE__PORT",
        "port = 3": "file perdure.toml; PERDURE_INGRESS__PORT",
    }


@pytest.mark.parametrize(
    ("text", "size"),
    [("0", 0), ("7B", 7), ("64KiB", 65_536), ("64kib", 65_536), ("512MB", 512_000_000), ("1.5GiB", 1536 * MIB)],
)
def test_sizes_are_read_exactly(text: str, size: int) -> None:
    assert parse_size(text) == size
    assert parse_size(format_size(size)) == size


@pytest.mark.parametrize("text", ["", "KiB", "1K", "1.5B", "-1", "1 000", "1e3", "٣MB", "9" * 5000])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_size(text)
