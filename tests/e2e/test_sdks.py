"""Four official SDKs, one program (tests/sdks), the same questions to each.

Everything is asked twice: of a server that keeps attempts open, and of one that suspends them whenever they wait,
so that handlers are replayed at each of their steps; the second one speaks V7 of the protocol to those who can.
SDK_TEST_SERVER=restate asks the real restate-server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from support.processes import Deployment, Server
from support.sdks import PROGRAMS, NotBuilt

SEEN_TIMEOUT_S = 30.0
SERVER = os.environ.get("SDK_TEST_SERVER", "perdure")
MODES: dict[str, dict[str, str]] = {"open": {}, "suspending": {"inactivity_timeout": "0s", "protocol_v7": "true"}}
# By SDK and mode: V6 unless the operator switched V7 on, and the Java SDK that runs on JDK 17 ends at V6.
VERSIONS = {
    ("python", "open"): 6,
    ("typescript", "open"): 6,
    ("java", "open"): 6,
    ("go", "open"): 6,
    ("python", "suspending"): 7,
    ("typescript", "suspending"): 7,
    ("java", "suspending"): 6,
    ("go", "suspending"): 7,
}
WITHOUT_SIGNALS = {"java"}
WITHOUT_METADATA = {"java"}
WITH_OUTPUT = {"java"}


class World:
    """A server with the program of one SDK on it."""

    def __init__(self, sdk: str, mode: str, server: Server, program: Deployment, http: httpx.Client) -> None:
        self.sdk, self.mode, self.server, self.program, self.http = sdk, mode, server, program, http

    def answer(self, path: str, *body: object, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        """Status and JSON of a call; no body means a handler without input."""
        url = self.server.ingress_url + path
        response = self.http.post(url, json=body[0], headers=headers) if body else self.http.post(url, headers=headers)
        return response.status_code, response.json() if response.content else None

    def ask(self, path: str, *body: object, headers: dict[str, str] | None = None) -> Any:
        status, answer = self.answer(path, *body, headers=headers)
        assert status == 200, f"{path}: {status} {answer}\n{self.server.log_tail()}\n{self.program.log_tail()}"
        return answer

    def send(self, path: str, *body: object, headers: dict[str, str] | None = None) -> str:
        """The id of an invocation that nobody waits for yet."""
        status, answer = self.answer(f"{path}/send", *body, headers=headers)
        assert status == 202, answer
        return str(answer["invocationId"])

    def attach(self, invocation: str) -> Any:
        status, answer = self.attached(invocation)
        assert status == 200, answer
        return answer

    def attached(self, invocation: str) -> tuple[int, Any]:
        response = self.http.get(f"{self.server.ingress_url}/restate/attach/{invocation}")
        return response.status_code, response.json()

    def row(self, invocation: str) -> dict[str, Any]:
        """The invocation in sys_invocation."""
        columns = "status, journal_size, pinned_service_protocol_version"
        query = f"SELECT {columns} FROM sys_invocation WHERE id = '{invocation}'"
        headers = {"accept": "application/json"}
        response = self.http.post(f"{self.server.admin_url}/query", json={"query": query}, headers=headers)
        assert response.status_code == 200, response.text
        [row] = response.json()["rows"]
        return dict(row)

    def until(self, seen: Callable[[], Any], what: str) -> Any:
        """The first answer that is not None or false; another process makes it come true."""
        deadline = time.monotonic() + SEEN_TIMEOUT_S
        while not (answer := seen()):
            if time.monotonic() > deadline:
                pytest.fail(f"not within {SEEN_TIMEOUT_S:.0f} s: {what}\n{self.program.log_tail()}")
            time.sleep(0.02)
        return answer

    def until_waiting(self, invocation: str) -> None:
        """Until it is suspended, or an attempt of it is open and has recorded what it waits for."""

        def waits() -> bool:
            row = self.row(invocation)
            return row["status"] == "suspended" or (row["status"] == "running" and int(row["journal_size"]) > 1)

        self.until(waits, f"{invocation} waits")


@pytest.fixture(scope="module", params=list(PROGRAMS))
def sdk(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=list(MODES))
def world(sdk: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    mode = str(request.param)
    directory = tmp_path_factory.mktemp(f"{sdk}-{mode}")
    try:
        program = PROGRAMS[sdk](directory)
    except NotBuilt as missing:
        pytest.skip(f"missing: {missing} (make tools)")
    settings = {"retry_initial_interval": "50ms", "retry_max_interval": "200ms", **MODES[mode]}
    server = Server(SERVER, directory / "server", settings)
    try:
        program.start()
        server.start()
        server.register(program.uri)
        with httpx.Client(timeout=60, trust_env=False) as http:
            yield World(sdk, mode, server, program, http)
    finally:
        server.kill()
        program.kill()


@pytest.fixture
def key() -> str:
    return uuid4().hex[:12]


def test_the_protocol_version_is_the_newest_that_both_may_speak(world: World) -> None:
    invocation = world.send("/Basics/greet", "Ada")
    assert world.attach(invocation) == "Hello, Ada!"
    assert world.row(invocation)["pinned_service_protocol_version"] == VERSIONS[world.sdk, world.mode]


def test_a_handler_sees_the_headers_of_its_call(world: World) -> None:
    assert world.ask("/Basics/header", headers={"x-color": "green"}) == "green"


def test_a_terminal_error_is_the_answer(world: World) -> None:
    status, answer = world.answer("/Basics/fail", "no tea")
    assert (status, answer["message"], answer["source"]) == (418, "no tea", "invocation")
    assert answer.get("metadata") == (None if world.sdk in WITHOUT_METADATA else {"pot": "small"})


def test_chance_is_the_same_in_every_attempt(world: World) -> None:
    drawn, recorded = world.ask("/Basics/chance")
    assert drawn == recorded
    assert world.ask("/Basics/chance")[0] != drawn


def test_a_sleep_ends(world: World) -> None:
    assert world.ask("/Basics/nap", 20) == "rested"


def test_a_run_gives_its_result(world: World) -> None:
    assert world.ask("/Runs/value", 21) == 42


def test_a_terminal_error_of_a_run_is_not_retried(world: World) -> None:
    status, answer = world.answer("/Runs/refused")
    assert (status, answer["message"]) == (422, "not today")


def test_a_run_is_retried_until_it_works(world: World, key: str) -> None:
    assert world.ask("/Runs/retried", key) == 3


def test_a_run_gives_up_when_its_policy_says_so(world: World, key: str) -> None:
    assert world.ask("/Runs/exhausted", key) == "gave up after 2"


@pytest.mark.parametrize("service", ["Counter", "LazyCounter"])
def test_state_is_per_key_and_survives_a_failure(world: World, key: str, service: str) -> None:
    counter, other = f"/{service}/{key}", f"/{service}/other-{key}"
    assert [world.ask(f"{counter}/add", amount) for amount in (2, 3)] == [2, 5]
    world.ask(f"{counter}/note", "a note")
    assert world.ask(f"{counter}/keys") == ["count", "note"]
    assert world.ask(f"{other}/get") == 0

    world.ask(f"{counter}/clear")
    assert (world.ask(f"{counter}/get"), world.ask(f"{counter}/keys")) == (0, ["note"])
    status, answer = world.answer(f"{counter}/spoil", 7)
    assert (status, answer["message"]) == (400, "spoilt")
    assert world.ask(f"{counter}/get") == 7
    world.ask(f"{counter}/clearAll")
    assert world.ask(f"{counter}/keys") in ([], None)  # Go writes null for no strings


def test_a_call_gives_the_answer_of_the_other_handler(world: World) -> None:
    assert world.ask("/Calls/call", "Ada") == "Hello, Ada!"
    assert world.ask("/Calls/header", "blue") == "blue"


def test_a_failed_call_gives_code_message_and_metadata(world: World) -> None:
    failure = world.ask("/Calls/failing", "no tea")
    assert (failure["code"], failure["message"]) == (418, "no tea")
    if world.sdk not in WITHOUT_METADATA:
        assert failure["metadata"] == {"pot": "small"}


def test_a_send_runs_once_without_its_sender(world: World, key: str) -> None:
    assert world.ask("/Calls/send", key).startswith("inv_")
    world.until(lambda: world.ask(f"/Counter/{key}/get") == 1, "the send arrived")


def test_a_delayed_send_with_a_repeated_key_is_one_invocation(world: World, key: str) -> None:
    first, second = world.ask("/Calls/sendLater", key)
    assert first == second
    assert world.attach(first) == 1
    assert world.ask(f"/Counter/{key}/get") == 1


def test_a_call_has_an_id_and_others_can_attach_to_it(world: World, key: str) -> None:
    invocation, greeting = world.ask("/Calls/identified", key)
    assert greeting == f"Hello, {key}!"
    target = {"target": "idempotentInvocation", "service": "Basics", "handler": "greet", "idempotencyKey": key}
    assert world.ask("/restate/lookup", target) == {"invocationId": invocation}
    assert world.ask("/Calls/attach", invocation) == greeting


def test_attach_from_a_handler_waits_for_the_end(world: World, key: str) -> None:
    mailbox = world.send(f"/Mailbox/{key}/wait")
    attached = world.send("/Calls/attach", mailbox)
    world.until_waiting(attached)
    if world.sdk in WITH_OUTPUT:
        assert world.ask("/Calls/output", mailbox) == "not yet"
    world.ask("/Waits/resolve", {"id": letterbox(world, key), "text": "at last"})
    assert world.attach(attached) == "at last"
    if world.sdk in WITH_OUTPUT:
        assert world.ask("/Calls/output", mailbox) == "at last"


def letterbox(world: World, key: str) -> str:
    """The id of the awakeable that a mailbox waits for."""
    return str(world.until(lambda: world.ask(f"/Mailbox/{key}/address"), "the mailbox waits"))


@pytest.mark.parametrize("completion", ["resolve", "reject"])
@pytest.mark.parametrize("by", ["a handler", "the ingress"])
def test_an_awakeable_is_completed_from_outside(world: World, key: str, by: str, completion: str) -> None:
    mailbox = world.send(f"/Mailbox/{key}/wait")
    address = letterbox(world, key)
    if by == "a handler":
        world.ask(f"/Waits/{completion}", {"id": address, "text": "a letter"})
    else:
        url = f"{world.server.ingress_url}/restate/awakeables/{address}/{completion}"
        # JSON becomes the value, text becomes the message of the failure.
        body = '"a letter"' if completion == "resolve" else "a letter"
        assert world.http.post(url, content=body).status_code == 202
    assert world.attach(mailbox) == ("a letter" if completion == "resolve" else "rejected: a letter")


@pytest.mark.parametrize(
    ("handler", "answer"),
    [("sendSignal", "go on"), ("rejectSignal", "rejected: go on")],
    ids=["resolved", "rejected"],
)
def test_a_signal_by_name_reaches_an_invocation(world: World, handler: str, answer: str) -> None:
    if world.sdk in WITHOUT_SIGNALS:
        assert world.answer("/Waits/signal")[0] == 404
        return
    waiting = world.send("/Waits/signal")
    world.ask(f"/Waits/{handler}", {"id": waiting, "text": "go on"})
    assert world.attach(waiting) == answer


@pytest.mark.parametrize("by", ["a handler", "an operator"])
def test_a_cancelled_handler_can_clean_up(world: World, key: str, by: str) -> None:
    """And the handler that called it hears of it: a cancellation goes to whatever is waited for first."""
    parent = world.send("/Waits/parent", key)
    world.until_waiting(parent)
    if by == "a handler":
        world.ask("/Calls/cancel", parent)
    else:
        url = f"{world.server.admin_url}/invocations/{parent}/cancel"
        assert world.http.patch(url).status_code in (200, 202)
    status, answer = world.attached(parent)
    assert (status, answer["source"]) == (409, "invocation")
    world.until(lambda: world.ask(f"/Counter/{key}/get") == 1, "the child was cancelled too, and cleaned up")


def test_waiting_for_all_of_several(world: World) -> None:
    assert world.ask("/Combine/all", ["Ada", "Bob", "Eve"]) == ["Hello, Ada!", "Hello, Bob!", "Hello, Eve!"]


def test_waiting_for_the_first_of_several(world: World) -> None:
    assert world.ask("/Combine/race", "Ada") == "Hello, Ada!"
    assert world.ask("/Combine/timeout") == "timed out"


def test_waiting_for_the_first_that_succeeds(world: World) -> None:
    assert world.ask("/Combine/any", "Ada") == "Hello, Ada!"


def test_a_workflow_waits_for_a_promise(world: World, key: str) -> None:
    flow = f"/Flow/{key}"
    run = world.send(f"{flow}/run", "cake")
    world.until(lambda: world.ask(f"{flow}/status") == "waiting", "the workflow waits")
    assert world.ask(f"{flow}/peek") is None
    beside = world.send(f"{flow}/wait")
    world.until_waiting(beside)

    world.ask(f"{flow}/approve", "yes")
    assert world.attach(run) == "cake: yes"
    assert world.attach(beside) == "yes"
    assert (world.ask(f"{flow}/peek"), world.ask(f"{flow}/status")) == ("yes", "done")
    assert world.answer(f"{flow}/run", "cake")[0] == 409
    # A promise has one completion.
    assert world.answer(f"{flow}/approve", "again")[0] == 409


def test_a_rejected_promise_is_a_terminal_error(world: World, key: str) -> None:
    run = world.send(f"/Flow/{key}/run", "cake")
    world.ask(f"/Flow/{key}/refuse", "too sweet")
    assert world.attach(run) == "cake: refused, too sweet"


def test_a_workflow_survives_the_death_of_the_server(world: World, key: str) -> None:
    flow = f"/Flow/{key}"
    run = world.send(f"{flow}/run", "cake")
    world.until(lambda: world.ask(f"{flow}/status") == "waiting", "the workflow waits")
    beside = world.send(f"{flow}/wait")
    world.until_waiting(beside)

    world.server.kill()
    world.server.start()

    assert world.ask(f"{flow}/status") == "waiting"
    world.ask(f"{flow}/approve", "still")
    assert (world.attach(run), world.attach(beside)) == ("cake: still", "still")
