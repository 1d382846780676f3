"""◐ shell · One node, wired: the only place where adapters meet ports."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib.metadata
import logging
import os
import random
import secrets
import shutil
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from perdure_processor.clock import Clock, SystemClock
from perdure_processor.cluster.metadata import LayoutRefused, Metadata
from perdure_processor.cluster.metadata_machine import Layout
from perdure_processor.host import Host
from perdure_processor.invoker.http2 import Http2Options
from perdure_processor.invoker.identity import Signer, SigningTransport
from perdure_processor.invoker.invoker import Invoker, InvokerOptions
from perdure_processor.invoker.pool import DeploymentTransport
from perdure_processor.invoker.transport import Transport
from perdure_processor.leader.leader import LeaderServices
from perdure_processor.log.local import LocalLog
from perdure_processor.metrics import Metrics
from perdure_processor.model.errors import DirectoryLocked, LogDamaged, PartitionStopped
from perdure_processor.model.ids import NodeId, PartitionId
from perdure_processor.model.limits import ATTEMPT_SWEEP_MS, ATTEMPT_SWEEP_MS_MIN, MESSAGE_ENVELOPE_MAX
from perdure_processor.processor import MACHINE_VERSION, Processor
from perdure_processor.storage.records import StoreIdentity
from perdure_processor.storage.rocks import RocksKeyValue, RocksMemory
from perdure_server.admin.app import AdminServer
from perdure_server.admin.discovery import discover
from perdure_server.admin.sql.node_tables import NodeTables
from perdure_server.admin.sql.service import SqlService
from perdure_server.admin.store_queries import StoreQueries
from perdure_server.config import Config
from perdure_server.identity_key import KeyUnusable, load_signer
from perdure_server.ingress.app import IngressServer
from perdure_server.ingress.dispatcher import LogDispatcher
from perdure_server.limits import NODE_STOP_GRACE_S, NODE_WATCH_S
from perdure_server.metrics_text import Family
from perdure_server.node_metrics import ingress_families, processor_families
from perdure_server.nodeport import NodePort

logger = logging.getLogger("perdure.node")


class StartRefused(Exception):
    """The node cannot start as it was asked to; the message says what to do."""


def run(config: Config) -> int:
    """Run a node until SIGINT or SIGTERM; the exit code of the process."""
    if not __debug__:
        logger.critical("assertions are part of the server: start it without -O and PYTHONOPTIMIZE")
        return 2
    try:
        return asyncio.run(_serve(config))
    except (DirectoryLocked, LogDamaged, PartitionStopped, LayoutRefused, StartRefused) as error:
        logger.error("cannot start: %s", error)
        return 1


async def _serve(config: Config) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    node = Node(config)
    loop.add_signal_handler(signal.SIGHUP, node.reload_identity_key)
    try:
        await node.start(fatal=stop.set)
        await stop.wait()
    finally:
        await node.stop()
    return 1 if node.failed else 0


class Node:
    """Everything one process runs, on the embedded log."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._clock: Clock = SystemClock()
        self._id = NodeId(config.node_name, secrets.randbits(63))
        self._metrics = Metrics()
        self._stops = contextlib.AsyncExitStack()
        self._fatal: Callable[[], None] = lambda: None
        self._disk_full: str | None = None
        self._signing: SigningTransport | None = None
        self.failed = False

    def _read_identity_key(self) -> Signer | None:
        path = self._config.request_identity_private_key_pem_file
        if path is None:
            return None
        try:
            signer = load_signer(path)
        except KeyUnusable as error:
            raise StartRefused(str(error)) from error
        logger.info("requests to deployments are signed", extra={"identity_key": signer.key_id})
        return signer

    def reload_identity_key(self) -> None:
        """Read the key file again; one that cannot be used changes nothing."""
        if self._signing is not None:
            try:
                self._signing.signer = self._read_identity_key()
            except StartRefused as error:
                logger.error("the key in use is kept: %s", error)

    async def start(self, fatal: Callable[[], None]) -> None:
        """Open the data, catch up, lead, then listen. Raises what makes a start impossible."""
        config = self._config
        self._fatal = fatal
        data_dir = Path(config.data_dir)
        try:
            log = LocalLog.open(data_dir / "log", clock=self._clock, fsync=config.log_fsync)
        except OSError as error:
            raise StartRefused(f"the data directory {data_dir} cannot be used: {error}") from error
        self._stops.push_async_callback(log.close)
        memory = RocksMemory(
            block_cache_bytes=config.storage_memory_bytes // 2, write_buffers_bytes=config.storage_memory_bytes // 2
        )
        metadata_store = RocksKeyValue(data_dir / "metadata", memory)
        self._stops.callback(metadata_store.close)
        metadata = Metadata(log, metadata_store, self._id, config.defaults, run_blocking=_run_in_thread)
        layout = await self._lay_out(metadata)
        self._stops.push_async_callback(metadata.stop)
        deployments = DeploymentTransport(
            ca_file=config.invoker_ca_file,
            options=Http2Options(connect_timeout_s=config.invoker_connect_timeout_ms / 1000),
        )
        transport = SigningTransport(
            deployments, self._clock, config.request_identity_expiration_ms, self._read_identity_key()
        )
        self._signing = transport
        invoker = Invoker(
            transport,
            lambda: metadata.schema,
            self._clock,
            self._invoker_options(),
            random=random.random,
            metrics=self._metrics,
        )
        self._stops.push_async_callback(invoker.close)
        host = Host(layout.partitions)
        dispatcher = LogDispatcher(
            host,
            self._id,
            self._clock,
            random_bits=secrets.randbits,
            metrics=self._metrics,
            refusal=lambda: self._disk_full,
        )
        services = LeaderServices(invoker, host.append, dispatcher.respond, config.worker_cleanup_interval_ms)
        self._stops.push_async_callback(host.stop)
        self._stops.callback(dispatcher.close)
        log_id = log.log_id.hex()

        def build(partition: PartitionId) -> Processor:
            return Processor(
                partition,
                StoreIdentity(layout.cluster_id, log_id, partition, layout.partitions, MACHINE_VERSION),
                node=self._id,
                log=log,
                store=RocksKeyValue(data_dir / "partitions" / f"{partition:04d}", memory),
                clock=self._clock,
                services=services,
                run_blocking=_run_in_thread,
                random_bytes=secrets.token_bytes,
                skipped=metadata.skipped(partition),
                stopped=self._on_stopped,
                metrics=self._metrics,
            )

        await host.start(build)
        watch = asyncio.get_running_loop().create_task(self._watch(log, metadata, data_dir), name="watch")
        self._stops.callback(watch.cancel)
        # Start-up's garbage is kept out of every later collection; what lives per request is counted, not cyclic.
        gc.collect()
        gc.freeze()
        gc.set_threshold(50_000, 20, 100)
        await self._listen(metadata, transport, host, invoker, dispatcher)

    async def _lay_out(self, metadata: Metadata) -> Layout:
        """The layout of the data; an explicit other number of partitions is refused with the reason."""
        config = self._config
        try:
            return await metadata.start(config.cluster_name, config.log_partitions)
        except LayoutRefused:
            found = metadata.state.layout
            if found is None or config.was_given("log_partitions"):
                raise
            return await metadata.start(config.cluster_name, found.partitions)

    def _invoker_options(self) -> InvokerOptions:
        config = self._config
        shortest_ms = min(config.invoker_inactivity_timeout_ms, config.invoker_abort_timeout_ms)
        return InvokerOptions(
            cluster_name=config.cluster_name,
            protocol_v7=config.invoker_protocol_v7,
            disable_eager_state=config.invoker_disable_eager_state,
            eager_state_bytes_max=config.invoker_eager_state_size_limit_bytes,
            message_size_max=config.invoker_message_size_limit_bytes + MESSAGE_ENVELOPE_MAX,
            attempts_max=config.invoker_concurrency_limit,
            attempts_per_deployment_max=config.invoker_deployment_concurrency_limit,
            effect_bytes_in_flight_max=config.invoker_memory_limit_bytes,
            sweep_ms=max(ATTEMPT_SWEEP_MS_MIN, min(ATTEMPT_SWEEP_MS, shortest_ms // 4)),
            default_policy=config.retry_policy,
        )

    async def _listen(
        self,
        metadata: Metadata,
        transport: Transport,
        host: Host,
        invoker: Invoker,
        dispatcher: LogDispatcher,
    ) -> None:
        config = self._config
        ingress = IngressServer(
            dispatcher,
            lambda: metadata.schema,
            request_size_limit=config.ingress_request_size_limit_bytes,
            clock=self._clock,
        )
        ingress_port = await _bind(
            "ingress", "PERDURE_INGRESS__PORT", ingress.start, config.bind_ip, config.ingress_port
        )
        self._stops.push_async_callback(ingress.stop, NODE_STOP_GRACE_S)
        queries = StoreQueries(host, invoker, metadata)
        sql = SqlService(NodeTables(host, invoker, metadata), importlib.metadata.version("perdure"))
        self._stops.callback(sql.close)
        admin = AdminServer(
            metadata,
            discover(transport),
            queries,
            queries,
            dispatcher,
            sql,
            clock=self._clock,
            version=importlib.metadata.version("perdure"),
            ingress_endpoint=f"http://{config.bind_ip}:{ingress_port}/",
            features={"protocol_v7": config.invoker_protocol_v7},
        )
        admin_port = await _bind("admin API", "PERDURE_ADMIN__PORT", admin.start, config.bind_ip, config.admin_port)
        self._stops.push_async_callback(admin.stop)

        def families() -> list[Family]:
            counters = ingress.counters
            others = {name: getattr(counters, name) for name in counters.__slots__ if name != "answers_by_class"}
            return processor_families(self._metrics) + ingress_families(counters.answers_by_class, others)

        node_port = NodePort(families, lambda: host.unhealthy() is None and metadata.failure is None)
        bound = await _bind("node port", "PERDURE_NODE__PORT", node_port.start, config.bind_ip, config.node_port)
        self._stops.push_async_callback(node_port.stop)
        logger.info(
            "serving",
            extra={
                "ingress": f"http://{config.bind_ip}:{ingress_port}",
                "admin": f"http://{config.bind_ip}:{admin_port}",
                "metrics": f"http://{config.bind_ip}:{bound}/metrics",
                "data_dir": os.path.abspath(config.data_dir),
                "partitions": host.partitions,
                "fsync": config.log_fsync,
            },
        )
        if config.bind_ip == "127.0.0.1":
            logger.info("only this machine can connect; other interfaces: --bind-ip 0.0.0.0 or PERDURE_BIND_IP")

    async def stop(self) -> None:
        """Close in the reverse order of opening: first the doors, last the log."""
        logger.info("stopping")
        await self._stops.aclose()

    async def _watch(self, log: LocalLog, metadata: Metadata, data_dir: Path) -> None:
        """Once a second: is there room on the disk, does the log still take records?"""
        least = self._config.storage_disk_free_min_bytes
        while True:
            free = shutil.disk_usage(data_dir).free
            full = free < least
            if full and self._disk_full is None:
                logger.error("disk nearly full: new requests are refused", extra={"free": free, "least": least})
            elif not full and self._disk_full is not None:
                logger.info("there is room on the disk again", extra={"free": free})
            self._disk_full = f"disk full: {free} bytes are free in {data_dir}, {least} are needed" if full else None
            failure = log.failure or metadata.failure
            if failure is not None and not self.failed:
                logger.critical("the node stops, start it again: %s", failure)
                self.failed = True
                self._fatal()
            await asyncio.sleep(NODE_WATCH_S)

    def _on_stopped(self, partition: PartitionId, error: BaseException) -> None:
        """What a restart may mend (a store, a log) takes the node with it.

        A record that makes apply raise would do so again: the node stays up, serves the other partitions,
        and an operator can skip it."""
        if isinstance(error, PartitionStopped):
            self.failed = True
            self._fatal()


async def _run_in_thread(work: Callable[[], None]) -> None:
    await asyncio.to_thread(work)


async def _bind(what: str, setting: str, start: Callable[[str, int], Awaitable[int]], host: str, port: int) -> int:
    try:
        return await start(host, port)
    except OSError as error:
        raise StartRefused(
            f"the {what} cannot listen on {host}:{port}: {error.strerror or error}; "
            f"stop what listens there, or choose another port with {setting}"
        ) from error
