"""Reads the recorded streams: which bytes went which way on each HTTP stream."""

from __future__ import annotations

import ast
import json
from pathlib import Path

DIRECTORY = Path(__file__).parent
HTTP2_FILES = ("v6.jsonl", "v7.jsonl", "ts7.jsonl")


class Capture:
    """One direction of one exchange: its body's pieces as they were cut on the wire."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = ""
        self.headers: dict[str, str] = {}
        self.pieces: list[bytes] = []

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)

    def __repr__(self) -> str:
        return self.name


def invocation_streams() -> list[Capture]:
    """Every direction of every /invoke request of all recordings."""
    return [capture for capture in _all() if "/invoke/" in capture.path]


def manifests() -> list[Capture]:
    """Every discovery answer of all recordings."""
    return [c for c in _all() if c.path.endswith("/discover") and c.name.endswith("D>S")]


def _all() -> list[Capture]:
    found = [capture for file in HTTP2_FILES for capture in _http2(file)]
    return [*found, *_http1("h11.log")]


def _http2(file: str) -> list[Capture]:
    captures: dict[tuple[int, int, str], Capture] = {}
    paths: dict[tuple[int, int], str] = {}
    for line in (DIRECTORY / file).read_text().splitlines():
        frame = json.loads(line)
        if frame.get("frame") not in ("HeadersFrame", "DataFrame"):
            continue
        stream = (frame["conn"], frame["stream"])
        capture = captures.setdefault((*stream, frame["dir"]), Capture(f"{file}:{stream} {frame['dir']}"))
        if frame["frame"] == "HeadersFrame":
            capture.headers |= dict(frame["headers"])
            if ":path" in capture.headers:
                paths[stream] = capture.headers[":path"]
        elif frame.get("data"):
            capture.pieces.append(bytes.fromhex(frame["data"]))
    for (connection, stream_id, _), capture in captures.items():
        capture.path = paths[connection, stream_id]
    return list(captures.values())


def _http1(file: str) -> list[Capture]:
    """HTTP/1.1 with chunked bodies: each direction of a connection is read as one text."""
    directions: dict[tuple[str, str], bytes] = {}
    for line in (DIRECTORY / file).read_text().splitlines():
        _, connection, direction, rest = line.split(" ", 3)
        if rest != "EOF":
            key = (connection, direction)
            directions[key] = directions.get(key, b"") + ast.literal_eval(rest)
    captures = []
    paths: dict[tuple[str, int], str] = {}
    for (connection, direction), data in sorted(directions.items(), key=lambda item: item[0][1] != "S>D"):
        number = 0
        while data:
            head, _, data = data.partition(b"\r\n\r\n")
            first, *lines = head.decode().split("\r\n")
            capture = Capture(f"{file}:{connection} {number} {direction}")
            capture.headers = {name.lower(): text for name, _, text in (line.partition(": ") for line in lines)}
            if direction == "S>D":
                paths[connection, number] = first.split(" ")[1]
            capture.path = paths[connection, number]
            if "transfer-encoding" in capture.headers:
                while (size := int(data[: data.index(b"\r\n")], 16)) > 0:
                    start = data.index(b"\r\n") + 2
                    capture.pieces.append(data[start : start + size])
                    data = data[start + size + 2 :]
                data = data.partition(b"\r\n\r\n")[2]
            captures.append(capture)
            number += 1
    return captures
