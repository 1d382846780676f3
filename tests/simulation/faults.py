"""Every fault by name, with its probability and its bound; all of them drawn from the seed."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

from perdure_processor.log.memory import LogFaults


@dataclass(frozen=True)
class Options:
    """What one seed does. A probability of 0 switches a fault off; `calm` switches all of them off."""

    seed: int
    # -- the node ----------------------------------------------------------------------------------------
    partitions: int = 2
    protocol_v7: bool = False
    attempts_max: int = 1000
    # Attempts that may wait in memory for a slot; what exceeds them waits in the table.
    attempts_waiting_max: int = 20_000
    effect_bytes_in_flight_max: int = 1 << 30
    eager_state_bytes_max: int = 1 << 20
    outbox_in_flight_max: int = 1024
    # -- crashes: the process dies between two callbacks, the store keeps a prefix of its unflushed batches
    crash_every_s: float = 0.0
    crash_count_max: int = 12
    flush_bytes: int = 1 << 26
    # -- the log ------------------------------------------------------------------------------------------
    # A broker forgets an unknown append and goes on; the embedded log refuses everything until a restart.
    broker: bool = False
    append_delay_ms_max: int = 3
    slow_sync: float = 0.0
    slow_sync_ms_max: int = 400
    refused: float = 0.0
    disk_full_every_s: float = 0.0
    disk_full_s_max: float = 4.0
    unknown: float = 0.0
    gap: float = 0.0
    empty_read: float = 0.0
    # -- between node and deployment ----------------------------------------------------------------------
    latency_ms_max: int = 3
    window: int = 1 << 20
    stream_cut: float = 0.0
    stream_cut_s_max: float = 1.5
    response_cut: float = 0.0
    response_cut_bytes_max: int = 400
    unreachable: float = 0.0
    status_503: float = 0.0
    hang: float = 0.0
    # -- the deployment -----------------------------------------------------------------------------------
    # The share of services that answer one request at a time, and suspend instead of waiting.
    turns: float = 0.3
    slow: float = 0.0
    slow_ms_max: int = 4_000
    late_end: float = 0.0
    late_end_ms_max: int = 800
    die_before_proposal: float = 0.0
    run_fails: float = 0.0
    run_fails_max: int = 3
    # -- clients and clocks ---------------------------------------------------------------------------------
    lost_reply: float = 0.0
    duplicate_request: float = 0.0
    client_gone: float = 0.0
    clock_step_every_s: float = 0.0
    clock_step_s_max: float = 20.0
    # -- the work -------------------------------------------------------------------------------------------
    clients: int = 6
    requests: int = 60
    objects: int = 3
    safety_s: float = 30.0
    large: float = 0.0
    # Names of Clients' requests, comma between them, to draw from; empty for all.
    focus: str = ""

    @classmethod
    def of(cls, seed: int) -> Options:
        """The options of a seed: each fault is there in some seeds, rare in some and frequent in others."""
        draw = random.Random(f"{seed}/options")

        def some(*values: float) -> float:
            return draw.choice((0.0, *values))

        large = some(0.0, 0.06)
        return cls(
            seed=seed,
            partitions=draw.choice((1, 2, 3, 4)),
            protocol_v7=draw.random() < 0.5,
            attempts_max=draw.choice((1000, 1000, 6, 3)),
            attempts_waiting_max=draw.choice((20_000, 20_000, 2)),
            effect_bytes_in_flight_max=draw.choice((1 << 30, 1 << 30, 4096)),
            eager_state_bytes_max=draw.choice((1 << 20, 1 << 20, 24, 0)),
            outbox_in_flight_max=draw.choice((1024, 3)),
            crash_every_s=some(2.0, 5.0, 12.0),
            flush_bytes=draw.choice((1 << 26, 20_000)),
            broker=draw.random() < 0.4,
            append_delay_ms_max=draw.choice((0, 3, 20)),
            slow_sync=some(0.02),
            refused=some(0.0, 0.02),
            disk_full_every_s=some(0.0, 6.0),
            unknown=some(0.002, 0.02),
            gap=some(0.1),
            empty_read=some(0.2),
            latency_ms_max=draw.choice((1, 5, 40)),
            # Megabytes through a keyhole would take a minute.
            window=draw.choice((1 << 20, 1 << 20, 64)) if not large else 1 << 20,
            stream_cut=some(0.05, 0.3),
            response_cut=some(0.05, 0.2),
            unreachable=some(0.05),
            status_503=some(0.05),
            hang=some(0.03),
            slow=some(0.1),
            late_end=some(0.1),
            die_before_proposal=some(0.1, 0.3),
            run_fails=some(0.3),
            lost_reply=some(0.05, 0.3),
            duplicate_request=some(0.2),
            client_gone=some(0.05),
            clock_step_every_s=some(0.0, 5.0),
            clients=draw.choice((3, 6, 12)),
            requests=draw.choice((40, 60, 90)),
            objects=draw.choice((1, 3, 6)),
            large=large,
        )

    def log_faults(self) -> LogFaults:
        """The log's share of them."""
        return LogFaults(
            gap=self.gap if self.broker else 0.0,
            empty_read=self.empty_read,
            short_read=self.empty_read,
            refused=self.refused,
            unknown=self.unknown,
            unknown_is_final=not self.broker,
            delay_ms_max=self.append_delay_ms_max,
        )

    def calm(self) -> Options:
        """The same run with nothing going wrong any more: from here on everything must come to its end."""
        return dataclasses.replace(
            self,
            crash_every_s=0.0,
            slow_sync=0.0,
            refused=0.0,
            disk_full_every_s=0.0,
            unknown=0.0,
            gap=0.0,
            empty_read=0.0,
            stream_cut=0.0,
            response_cut=0.0,
            unreachable=0.0,
            status_503=0.0,
            hang=0.0,
            slow=0.0,
            late_end=0.0,
            die_before_proposal=0.0,
            run_fails=0.0,
            lost_reply=0.0,
            duplicate_request=0.0,
            client_gone=0.0,
            clock_step_every_s=0.0,
        )

    def changed(self, assignments: Sequence[str]) -> Options:
        """The same with `name=value` for each of some; raises ValueError for what cannot be."""
        values: dict[str, object] = {}
        for assignment in assignments:
            name, _, text = assignment.partition("=")
            if not hasattr(self, name):
                raise ValueError(f"there is no option {name!r}")
            before = getattr(self, name)
            values[name] = text == "True" if isinstance(before, bool) else type(before)(text)
        return dataclasses.replace(self, **values)

    def describe(self) -> str:
        """One line of what differs from a quiet run."""
        quiet = Options(self.seed)
        names = [field.name for field in dataclasses.fields(self) if field.name != "seed"]
        said = [f"{name}={getattr(self, name)}" for name in names if getattr(self, name) != getattr(quiet, name)]
        return " ".join(said) or "no faults"
