"""One seed from beginning to end: storm, calm, forgetting, proof."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from simulation import loop
from simulation.faults import Options
from simulation.workload import Clients
from simulation.world import EXPIRED_AFTER_S, LIVENESS_S, World, bounds, register


@dataclass
class Report:
    """What came of a seed."""

    options: Options
    violations: list[str] = field(default_factory=list)
    digest: str = ""
    records: int = 0
    virtual_s: float = 0.0
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        return not self.violations


def run_seed(seed: int) -> Report:
    """Run one seed; says how it ended, and never raises for what the node did."""
    return run_options(Options.of(seed))


def run_options(options: Options) -> Report:
    report = Report(options)
    # Terms end and partitions warn by the hundred here; what matters ends up as a violation.
    logging.disable(logging.CRITICAL)
    try:
        with bounds(options):
            loop.run(_run(options, report))
    except loop.Stuck as stuck:
        report.violations.append(f"stuck: {stuck}")
    finally:
        logging.disable(logging.NOTSET)
    return report


async def _run(options: Options, report: Report) -> None:
    world = World(options)
    clients = Clients(world)
    background = [asyncio.create_task(world.keep_up())]
    main = asyncio.create_task(_phases(world, clients, background))
    broken = asyncio.create_task(world.checker.broken.wait())
    try:
        await asyncio.wait({main, broken}, return_when=asyncio.FIRST_COMPLETED)
        if main.done():
            main.result()
    finally:
        for task in (main, broken, *background):
            task.cancel()
        await asyncio.gather(main, broken, *background, return_exceptions=True)
        for life in world.lives:
            life.die()
            life.bury()
        report.violations = list(world.checker.violations)
        report.digest = world.digest
        report.records = sum(map(len, world.history.all.values()))
        report.virtual_s = world.loop.time()
        report.counts = {
            **world.counts,
            **dict(sorted(world.network.counts.items())),
            **dict(sorted(world.history.counts.items())),
            "commits": world.checker.commits,
            "closures": world.checker.closures_run,
            "answers": clients.done,
            "asked_again": clients.asked_again,
        }


async def _phases(world: World, clients: Clients, background: list[asyncio.Task[None]]) -> None:
    await world.up.wait()
    await register(world)
    world.storm()
    storm = [asyncio.create_task(world.crash_now_and_then()), asyncio.create_task(world.change_weather())]
    background.extend(storm)
    work = asyncio.create_task(clients.run())
    background.append(work)
    await asyncio.wait([work], timeout=world.options.safety_s * 1.3)
    for task in storm:
        task.cancel()
    world.calm()
    await asyncio.wait([work], timeout=LIVENESS_S)
    if not work.done():
        world.checker.violated(
            f"clients wait {LIVENESS_S:g} s after the last fault; {world.unended() or 'all has ended'}"
        )
        return
    work.result()
    deadline = world.loop.time() + LIVENESS_S
    while (left := world.unended()) and world.loop.time() < deadline:
        await asyncio.sleep(1.0)
    if left:
        world.checker.violated(f"has not ended {LIVENESS_S:g} s after the last fault: {left[0]}")
        return
    await asyncio.sleep(0.5)
    clients.check()
    await asyncio.sleep(EXPIRED_AFTER_S)
    world.check_idle()
    stores = world.partition_stores()
    world.checker.check_leftovers(stores)
    try:
        world.checker.check_replay(world.history.all, stores, world.options.partitions)
    except AssertionError as error:
        world.checker.violated(f"replay of the log fails: {error}")
