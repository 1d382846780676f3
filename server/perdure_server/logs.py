"""◐ shell · Logging, set up once: one line an event, `key=value` all along, for people and for grep.

    time=2026-11-24T02:24:24.494Z level=info logger=perdure.node msg="listening" ingress=127.0.0.1:8080

Fields come as `extra`: ``log.info("listening", extra={"ingress": address})``. A traceback follows its line.
"""

from __future__ import annotations

import logging
import re
import time
from typing import TextIO

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# Libraries that tell of every connection; below a warning that is for their authors.
_TALKATIVE = ("asyncio", "aiohttp", "aiokafka", "jh2")

_OWN_ATTRIBUTES = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN = re.compile(r"[^\s\"=\\]+")


class KeyValueFormatter(logging.Formatter):
    """One record as `key=value` pairs in one line; a value is quoted when it could be misread."""

    def format(self, record: logging.LogRecord) -> str:
        seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs = [
            f"time={seconds}.{int(record.msecs):03}Z",
            f"level={record.levelname.lower()}",
            f"logger={record.name}",
            f"msg={_quoted(record.getMessage())}",
        ]
        pairs += [f"{key}={_shown(field)}" for key, field in vars(record).items() if key not in _OWN_ATTRIBUTES]
        line = " ".join(pairs)
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        if record.stack_info:
            line += "\n" + self.formatStack(record.stack_info)
        return line


def set_up(level: str, stream: TextIO) -> None:
    """Send everything from `level` on to `stream`; whatever was set up before is replaced."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(KeyValueFormatter())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    logging.captureWarnings(True)
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(max(LEVELS[level], logging.WARNING))


def _shown(field: object) -> str:
    text = str(field)
    return text if _PLAIN.fullmatch(text) and text.isprintable() else _quoted(text)


def _quoted(text: str) -> str:
    """In double quotes; whatever would end the quotes or the line, or move the cursor, is escaped."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    if not escaped.isprintable():
        escaped = "".join(
            character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
            for character in escaped
        )
    return f'"{escaped}"'
