"""● core · Configuration: `Config`, one frozen value with everything that a server can be told.

    one setting     --admin-port, PERDURE_ADMIN__PORT, port in [admin]
    names           `__` between levels and `_` for `-` in the environment; `-` or `_` in the file

The fields of `Config` are the only list of settings: names, help texts, flags, error messages and the file
that `--print-config` shows are derived from it. How a Config comes about is in config_load.py.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from perdure_processor.model.ids import SLOTS
from perdure_processor.model.limits import (
    ABORT_TIMEOUT_MS,
    ATTEMPTS_MAX,
    ATTEMPTS_PER_DEPLOYMENT_MAX,
    CLEANUP_MS,
    CONNECT_TIMEOUT_S,
    EAGER_STATE_BYTES_MAX,
    EFFECT_BYTES_IN_FLIGHT_MAX,
    INACTIVITY_TIMEOUT_MS,
    MIB,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_MS_FIRST,
    RETRY_DELAY_MS_MAX,
    RETRY_FACTOR,
)
from perdure_processor.model.resolution import Defaults
from perdure_processor.model.schema import RetryPolicy
from perdure_processor.model.value import value
from perdure_server.config_kinds import (
    BOOLEAN,
    FSYNC,
    IP_ADDRESS,
    NAME,
    PATH,
    PORT,
    Fsync,
    Kind,
    attempts,
    choice,
    duration,
    factor,
    optional,
    size,
    whole_number,
)
from perdure_server.limits import (
    CLEANUP_INTERVAL_MS_MIN,
    CONCURRENCY_LIMIT_MAX,
    DISK_FREE_BYTES_MIN,
    DISK_FREE_LIMIT_BYTES_MAX,
    EAGER_STATE_SIZE_LIMIT_MAX,
    IDENTITY_VALIDITY_MS_MIN,
    INGRESS_BODY_BYTES_MAX,
    MEMORY_LIMIT_BYTES_MAX,
    MESSAGE_SIZE_LIMIT_MAX,
)

T = TypeVar("T")

PREFIX = "PERDURE_"

# Every partition owns at least one of the slots that partition keys fall into.
PARTITIONS_MAX = SLOTS

_SETTING = "setting"
_DAY_MS = 86_400_000


class Origin(enum.Enum):
    """Where a value was given, from the strongest to the weakest."""

    FLAG = "flag"
    ENVIRONMENT = "environment"
    FILE = "file"
    DEFAULT = "default"


@value
class Source:
    """Where one value came from: the origin, and the name of the flag, the variable or the file."""

    origin: Origin
    name: str = ""

    def __str__(self) -> str:
        return f"{self.origin.value} {self.name}".rstrip()


@value
class About:
    """What is said about a setting beside its field in `Config`."""

    path: str
    kind: Kind[Any]
    help: str
    flag: str | None
    ignored: str | None


def _setting(
    path: str,
    kind: Kind[T],
    default: T,
    help: str,
    *,
    flag: str | None = None,
    ignored: str | None = None,
) -> T:
    """A field of Config. `ignored` says why a value for it has no effect."""
    return dataclasses.field(default=default, metadata={_SETTING: About(path, kind, help, flag, ignored)})


@value
class Config:
    """Everything that a server can be told. `Config()` has the defaults throughout, as tests like it."""

    data_dir: str = _setting(
        "data-dir",
        PATH,
        "./perdure-data",
        "Directory for the log and the tables; made at the first start, and locked while a server runs.",
        flag="--data-dir",
    )
    bind_ip: str = _setting(
        "bind-ip",
        IP_ADDRESS,
        "127.0.0.1",
        "Address to listen on. 127.0.0.1 is reached from this machine only, 0.0.0.0 from everywhere.",
        flag="--bind-ip",
    )
    cluster_name: str = _setting(
        "cluster-name",
        NAME,
        "localcluster",
        "Name of the cluster, sent to handlers in x-restate-cluster-name.",
    )
    request_identity_private_key_pem_file: str | None = _setting(
        "request-identity-private-key-pem-file",
        optional(PATH),
        None,
        "PEM file with the Ed25519 private key that signs requests to deployments; read again on SIGHUP.",
    )
    request_identity_expiration_ms: int = _setting(
        "request-identity-expiration",
        duration(IDENTITY_VALIDITY_MS_MIN),
        60_000,
        "How far a signed request's clock may be from that of its deployment.",
    )

    ingress_port: int = _setting(
        "ingress.port", PORT, 8080, "Port of the ingress, where services are called.", flag="--ingress-port"
    )
    ingress_request_size_limit_bytes: int = _setting(
        "ingress.request-size-limit",
        size(MESSAGE_SIZE_LIMIT_MAX),
        INGRESS_BODY_BYTES_MAX,
        "Largest request body; a larger one gets 413.",
    )

    admin_port: int = _setting(
        "admin.port",
        PORT,
        9070,
        "Port of the admin API, where deployments are registered.",
        flag="--admin-port",
    )

    node_port: int = _setting(
        "node.port", PORT, 5122, "Port for metrics, and for the other nodes of a cluster.", flag="--node-port"
    )
    node_name: str = _setting("node.name", NAME, "localhost", "Name of this node; the host's name by default.")

    log_partitions: int = _setting(
        "log.partitions",
        whole_number(1, PARTITIONS_MAX),
        8,
        "Number of partitions. Fixed at the first start.",
        flag="--partitions",
    )
    log_fsync: Fsync = _setting(
        "log.fsync",
        FSYNC,
        "always",
        "When records are synced to the disk: always (nothing acknowledged is lost), interval:MS, or never.",
        flag="--fsync",
    )
    log_level: str = _setting(
        "log.level",
        choice("debug", "info", "warning", "error"),
        "info",
        "What the server writes to its standard error: debug, info, warning or error.",
        flag="--log-level",
    )

    storage_memory_bytes: int = _setting(
        "storage.memory",
        size(MEMORY_LIMIT_BYTES_MAX),
        512_000_000,
        "Memory for caches and write buffers of the tables.",
    )
    storage_disk_free_min_bytes: int = _setting(
        "storage.disk-free-min",
        size(DISK_FREE_LIMIT_BYTES_MAX),
        DISK_FREE_BYTES_MIN,
        "With less than this free on the disk, new requests get 503; what was accepted is still finished.",
    )

    worker_cleanup_interval_ms: int = _setting(
        "worker.cleanup-interval",
        duration(CLEANUP_INTERVAL_MS_MIN),
        CLEANUP_MS,
        "How often records whose retention is over are removed.",
    )
    worker_timers_in_memory: int | None = _setting(
        "worker.timers-in-memory",
        optional(whole_number(0, 0xFFFF_FFFF)),
        None,
        "Accepted, and without effect: timers wait in the tables, however many there are.",
        ignored="has no effect: timers wait in the tables, however many there are",
    )

    invoker_inactivity_timeout_ms: int = _setting(
        "invoker.inactivity-timeout",
        duration(),
        INACTIVITY_TIMEOUT_MS,
        "A handler that says nothing for so long is asked to suspend.",
    )
    invoker_abort_timeout_ms: int = _setting(
        "invoker.abort-timeout",
        duration(),
        ABORT_TIMEOUT_MS,
        "An attempt that was asked to suspend and says nothing for so long is cut off, and retried.",
    )
    invoker_connect_timeout_ms: int = _setting(
        "invoker.connect-timeout",
        duration(1),
        int(CONNECT_TIMEOUT_S * 1000),
        "How long a connection to a deployment may take to open.",
    )
    invoker_concurrency_limit: int = _setting(
        "invoker.concurrency-limit",
        whole_number(1, CONCURRENCY_LIMIT_MAX),
        ATTEMPTS_MAX,
        "Attempts that run at the same time.",
    )
    invoker_deployment_concurrency_limit: int = _setting(
        "invoker.deployment-concurrency-limit",
        whole_number(1, CONCURRENCY_LIMIT_MAX),
        ATTEMPTS_PER_DEPLOYMENT_MAX,
        "The same for one deployment, so that none can take every place; by default 3/5 of the limit.",
    )
    invoker_memory_limit_bytes: int = _setting(
        "invoker.memory-limit",
        size(MEMORY_LIMIT_BYTES_MAX),
        EFFECT_BYTES_IN_FLIGHT_MAX,
        "Memory for what is on its way to and from handlers; beyond it, streams wait.",
    )
    invoker_invocation_memory_limit_bytes: int | None = _setting(
        "invoker.invocation-memory-limit",
        optional(size(MEMORY_LIMIT_BYTES_MAX)),
        None,
        "Accepted, and without effect: one invocation is bounded by invoker.message-size-limit.",
        ignored="has no effect: one invocation is bounded by invoker.message-size-limit",
    )
    invoker_message_size_limit_bytes: int = _setting(
        "invoker.message-size-limit",
        size(MESSAGE_SIZE_LIMIT_MAX),
        32 * MIB,
        "Largest message from or to a handler.",
    )
    invoker_eager_state_size_limit_bytes: int = _setting(
        "invoker.eager-state-size-limit",
        size(EAGER_STATE_SIZE_LIMIT_MAX, low=0),
        EAGER_STATE_BYTES_MAX,
        "State of an object up to this size is sent along with a call; the rest is read when asked for.",
    )
    invoker_disable_eager_state: bool = _setting(
        "invoker.disable-eager-state", BOOLEAN, False, "Send no state along; handlers ask for each value."
    )
    invoker_protocol_v7: bool = _setting(
        "invoker.protocol-v7",
        BOOLEAN,
        False,
        "Offer version 7 of the service protocol to deployments that speak it.",
    )
    invoker_ca_file: str | None = _setting(
        "invoker.ca-file",
        optional(PATH),
        None,
        "PEM file of the authorities that https deployments are checked against, in place of the system's.",
    )

    retry_initial_interval_ms: int = _setting(
        "retry.initial-interval", duration(1), RETRY_DELAY_MS_FIRST, "Wait before the first retry of a failed attempt."
    )
    retry_factor: float = _setting(
        "retry.exponentiation-factor", factor(), RETRY_FACTOR, "Each further wait is longer by this factor."
    )
    retry_max_interval_ms: int = _setting(
        "retry.max-interval", duration(1), RETRY_DELAY_MS_MAX, "Longest wait between two attempts."
    )
    retry_max_attempts: int | None = _setting(
        "retry.max-attempts",
        attempts(),
        RETRY_ATTEMPTS_MAX,
        "Attempts in all, the first one included, or the word unlimited.",
    )
    retry_on_max_attempts: str = _setting(
        "retry.on-max-attempts",
        choice("pause", "kill"),
        "pause",
        "After the last attempt: pause (an operator may resume it) or kill (it fails).",
    )

    retention_journal_ms: int = _setting(
        "retention.journal", duration(), _DAY_MS, "How long the journal of a completed invocation is kept."
    )
    retention_idempotency_ms: int = _setting(
        "retention.idempotency",
        duration(),
        _DAY_MS,
        "How long the result is kept for a repeated idempotency key.",
    )
    retention_workflow_ms: int = _setting(
        "retention.workflow",
        duration(),
        _DAY_MS,
        "How long a completed workflow, its state and promises are kept.",
    )

    # Field name to source, for what was given; whatever is not here has its default.
    sources: Mapping[str, Source] = dataclasses.field(default_factory=dict, compare=False, hash=False, repr=False)

    def source_of(self, field: str) -> Source:
        """Where the value of a field came from; two configs with other sources are equal all the same."""
        return self.sources.get(field, Source(Origin.DEFAULT))

    def was_given(self, field: str) -> bool:
        """Whether somebody asked for this value, rather than left the default in place."""
        return field in self.sources

    @property
    def defaults(self) -> Defaults:
        """What holds for handlers and services that say nothing of their own."""
        return Defaults(
            inactivity_timeout_ms=self.invoker_inactivity_timeout_ms,
            abort_timeout_ms=self.invoker_abort_timeout_ms,
            journal_retention_ms=self.retention_journal_ms,
            idempotency_retention_ms=self.retention_idempotency_ms,
            workflow_retention_ms=self.retention_workflow_ms,
            retry_policy=self.retry_policy,
        )

    @property
    def retry_policy(self) -> RetryPolicy:
        """How failed attempts are retried where neither handler nor service says it."""
        return RetryPolicy(
            initial_interval_ms=self.retry_initial_interval_ms,
            factor=self.retry_factor,
            max_interval_ms=self.retry_max_interval_ms,
            max_attempts=self.retry_max_attempts,
            kill_on_max_attempts=self.retry_on_max_attempts == "kill",
        )


@value
class Setting:
    """One field of Config with everything that is said about it."""

    field: str
    default: Any
    about: About

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return PREFIX + self.about.path.upper().replace(".", "__").replace("-", "_")


SETTINGS: tuple[Setting, ...] = tuple(
    Setting(field.name, field.default, field.metadata[_SETTING])
    for field in dataclasses.fields(cast(Any, Config))
    if _SETTING in field.metadata
)
