"""One event, one line, and nothing in it that could be taken for another line or another field."""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Iterator

import pytest

from perdure_server import logs


@pytest.fixture(autouse=True)
def root_logger_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_an_event_is_a_line_of_pairs() -> None:
    stream = io.StringIO()
    logs.set_up("info", stream)
    logging.getLogger("perdure.node").info("listening on %s", "8080", extra={"ingress": "127.0.0.1:8080", "n": 3})
    assert re.fullmatch(
        r'time=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z level=info logger=perdure\.node msg="listening on 8080"'
        r" ingress=127\.0\.0\.1:8080 n=3\n",
        stream.getvalue(),
    )


def test_what_others_wrote_cannot_leave_its_field() -> None:
    stream = io.StringIO()
    logs.set_up("info", stream)
    logging.getLogger("x").error('key "a"\nlevel=info \x1b[2J', extra={"key": "a b=c", "empty": ""})
    (line,) = stream.getvalue().splitlines()
    assert line.endswith(r'msg="key \"a\"\nlevel=info \x1b[2J" key="a b=c" empty=""')


def test_only_from_the_level_on_and_set_up_again_replaces() -> None:
    first, second = io.StringIO(), io.StringIO()
    logs.set_up("debug", first)
    logs.set_up("warning", second)
    logging.getLogger("x").info("quiet")
    logging.getLogger("x").warning("heard")
    assert first.getvalue() == ""
    assert second.getvalue().count("\n") == 1


def test_libraries_are_heard_from_warnings_on() -> None:
    stream = io.StringIO()
    logs.set_up("debug", stream)
    logging.getLogger("asyncio").info("Using selector")
    logging.getLogger("asyncio").warning("slow callback")
    assert "selector" not in stream.getvalue()
    assert "slow callback" in stream.getvalue()


def test_a_traceback_follows_its_line() -> None:
    stream = io.StringIO()
    logs.set_up("info", stream)
    try:
        raise ValueError("bad offset")
    except ValueError:
        logging.getLogger("x").exception("stopped")
    lines = stream.getvalue().splitlines()
    assert lines[0].endswith('msg="stopped"')
    assert lines[1].startswith("Traceback")
    assert lines[-1] == "ValueError: bad offset"
