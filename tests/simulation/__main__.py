"""Run one seed and say what happened: `python -m simulation SEED [option=value …]` from tests/."""

from __future__ import annotations

import sys
import time

from simulation.faults import Options
from simulation.run import run_options


def main() -> int:
    if len(sys.argv) < 2 or not sys.argv[1].isdigit():
        print("which seed? python -m simulation SEED [option=value ...]", file=sys.stderr)
        return 2
    options = Options.of(int(sys.argv[1])).changed(sys.argv[2:])
    print(f"seed {options.seed}: {options.describe()}", flush=True)
    began = time.perf_counter()
    report = run_options(options)
    took = time.perf_counter() - began
    counts = " ".join(f"{name}={count}" for name, count in report.counts.items())
    print(f"{report.records} records, {report.virtual_s:.0f} virtual seconds in {took:.2f} s; {counts}")
    print(f"trace {report.digest}")
    for violation in report.violations:
        print(f"VIOLATION {violation}")
    return 0 if report.ok else 1


sys.exit(main())
