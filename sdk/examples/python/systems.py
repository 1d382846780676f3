"""The systems outside, played by files: a system is a file in SYSTEMS_DIR, a change is a line in it.

Create `<system>.down` to make one of them fail, and remove it to bring it back.
"""

import os
import uuid
from pathlib import Path

DIRECTORY = Path(os.environ.get("SYSTEMS_DIR", "systems"))


def write(system: str, who: str, what: str) -> str:
    """Tell a system something about somebody; returns a receipt. Raises if the system is down."""
    if (DIRECTORY / f"{system}.down").exists():
        raise RuntimeError(f"{system} is down")
    receipt = uuid.uuid4().hex[:8]
    DIRECTORY.mkdir(parents=True, exist_ok=True)
    with (DIRECTORY / f"{system}.log").open("a") as log:
        log.write(f"{who} {what} {receipt}\n")
    return receipt
