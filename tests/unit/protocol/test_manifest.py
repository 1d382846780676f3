"""The endpoint manifest: what registers, what it means, and how the rest is refused."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure.protocol.manifest import (
    DISCOVERY_ACCEPT,
    MANIFEST_OPTIONS,
    EndpointManifest,
    HandlerManifest,
    HandlerType,
    InputPayload,
    ManifestError,
    OnMaxAttempts,
    OutputPayload,
    ProtocolMode,
    ServiceManifest,
    ServiceType,
    accepted_range,
    choose_manifest_version,
    manifest_content_type,
    negotiate,
    parse_manifest,
)
from perdure.protocol.manifest_writer import to_json

V4 = "application/vnd.restate.endpointmanifest.v4+json"


def endpoint(*services: Any, **members: Any) -> dict[str, Any]:
    return {
        "protocolMode": "BIDI_STREAM",
        "minProtocolVersion": 5,
        "maxProtocolVersion": 7,
        "services": list(services),
        **members,
    }


def service(*handlers: Any, name: str = "Greeter", ty: str = "SERVICE", **members: Any) -> dict[str, Any]:
    return {"name": name, "ty": ty, "handlers": list(handlers), **members}


def handler(name: str = "greet", **members: Any) -> dict[str, Any]:
    return {"name": name, **members}


def parse(document: Any, content_type: str | None = V4, server: str | None = None) -> EndpointManifest:
    return parse_manifest(content_type, json.dumps(document).encode(), server)


def refusal(document: Any, content_type: str | None = V4, server: str | None = None) -> tuple[str | None, int, str]:
    with pytest.raises(ManifestError) as caught:
        parse(document, content_type, server)
    return caught.value.code, caught.value.status, caught.value.message


def one_handler(service_type: str, **members: Any) -> HandlerManifest:
    return parse(endpoint(service(handler(**members), ty=service_type))).services[0].handlers[0]


# --- what registers ----------------------------------------------------------------------------------------


def test_the_python_sdk_s_manifest() -> None:
    document = json.loads("""
        {"protocolMode": "REQUEST_RESPONSE", "minProtocolVersion": 5, "maxProtocolVersion": 7, "services": [
         {"name": "H11", "ty": "SERVICE", "handlers": [
          {"name": "go",
           "input": {"required": false, "contentType": "application/json", "jsonSchema": {"type": "string"}},
           "output": {"contentType": "application/json", "setContentTypeIfEmpty": false,
                      "jsonSchema": {"type": "string"}}}]}]}""")
    go = HandlerManifest(
        name="go",
        type=None,
        input=InputPayload(required=False, content_type="application/json", json_schema={"type": "string"}),
        output=OutputPayload("application/json", set_content_type_if_empty=False, json_schema={"type": "string"}),
    )
    assert parse(document) == EndpointManifest(
        protocol_mode=ProtocolMode.REQUEST_RESPONSE,
        min_protocol_version=5,
        max_protocol_version=7,
        services=(ServiceManifest(name="H11", type=ServiceType.SERVICE, handlers=(go,)),),
    )


def test_every_option_of_a_service() -> None:
    [parsed] = parse(
        endpoint(
            service(
                handler(ty="WORKFLOW", workflowCompletionRetention=6),
                name="Flow",
                ty="WORKFLOW",
                documentation="what it does",
                metadata={"team": "a"},
                inactivityTimeout=0,
                abortTimeout=1,
                journalRetention=2,
                idempotencyRetention=3,
                enableLazyState=True,
                ingressPrivate=True,
                retryPolicyInitialInterval=4,
                retryPolicyMaxInterval=5,
                retryPolicyMaxAttempts=2,
                retryPolicyExponentiationFactor=1.5,
                retryPolicyOnMaxAttempts="KILL",
            )
        )
    ).services
    assert parsed == ServiceManifest(
        name="Flow",
        type=ServiceType.WORKFLOW,
        handlers=(HandlerManifest(name="greet", type=HandlerType.WORKFLOW, workflow_completion_retention_ms=6),),
        documentation="what it does",
        metadata={"team": "a"},
        inactivity_timeout_ms=0,
        abort_timeout_ms=1,
        journal_retention_ms=2,
        idempotency_retention_ms=3,
        enable_lazy_state=True,
        ingress_private=True,
        retry_initial_interval_ms=4,
        retry_max_interval_ms=5,
        retry_max_attempts=2,
        retry_exponentiation_factor=1.5,
        retry_on_max_attempts=OnMaxAttempts.KILL,
    )


@pytest.mark.parametrize(
    ("service_type", "given", "meant"),
    [
        ("SERVICE", None, None),
        ("SERVICE", "SHARED", None),
        ("VIRTUAL_OBJECT", None, HandlerType.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "EXCLUSIVE", HandlerType.EXCLUSIVE),
        ("VIRTUAL_OBJECT", "SHARED", HandlerType.SHARED),
        ("WORKFLOW", None, HandlerType.SHARED),
        ("WORKFLOW", "SHARED", HandlerType.SHARED),
        ("WORKFLOW", "WORKFLOW", HandlerType.WORKFLOW),
    ],
)
def test_what_a_handler_s_type_means(service_type: str, given: str | None, meant: HandlerType | None) -> None:
    assert one_handler(service_type, ty=given).type is meant


def test_no_input_and_an_empty_input_are_different() -> None:
    assert one_handler("SERVICE").input is None
    assert one_handler("SERVICE", input={}).input == InputPayload()
    assert one_handler("SERVICE").output is None
    assert one_handler("SERVICE", output={}).output == OutputPayload()


def test_zero_attempts_are_one() -> None:
    assert one_handler("SERVICE", retryPolicyMaxAttempts=0).retry_max_attempts == 1


def test_null_is_absent() -> None:
    parsed = one_handler("SERVICE", ty=None, input=None, documentation=None, metadata=None, journalRetention=None)
    assert parsed == HandlerManifest(name="greet", type=None)


def test_little_is_needed() -> None:
    assert parse(endpoint()).services == ()
    assert parse(endpoint(service())).services[0].handlers == ()


def test_the_members_of_any_version_are_read_in_any_version() -> None:
    v1 = "application/vnd.restate.endpointmanifest.v1+json"
    parsed = parse(endpoint(service(documentation="said early")), content_type=v1)
    assert parsed.services[0].documentation == "said early"


@pytest.mark.parametrize("content_type", ["*/*", "application/*", "text/plain; charset=utf-8", "a/b+c;q"])
def test_media_types(content_type: str) -> None:
    parsed = one_handler("SERVICE", input={"contentType": content_type})
    assert parsed.input is not None
    assert parsed.input.content_type == content_type


# --- what does not -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content_type", [None, "", "application/json", V4 + "; charset=utf-8", V4.upper(), V4.replace("v4", "v5")]
)
def test_the_content_type_is_exactly_one_that_was_offered(content_type: str | None) -> None:
    code, status, message = refusal(endpoint(), content_type)
    assert (code, status) == ("META0013", 500)
    assert repr(content_type) in message


def test_more_than_the_wire_allows() -> None:
    assert refusal(endpoint(minProtocolVersion=7, maxProtocolVersion=6))[:2] == ("META0013", 500)
    assert refusal(endpoint(protocolMode=None)) == (
        "META0013",
        500,
        "bad discovery answer: missing protocol mode",
    )


@pytest.mark.parametrize(("low", "high"), [(1, 4), (8, 9), (2147483647, 2147483647)])
def test_a_range_without_a_common_version(low: int, high: int) -> None:
    code, status, message = refusal(endpoint(minProtocolVersion=low, maxProtocolVersion=high))
    assert (code, status) == ("META0012", 500)
    assert f"{low} to {high}" in message


@pytest.mark.parametrize("version", ["1.0.0", "1.1.3", "1.2.9"])
def test_the_first_typescript_sdks_are_too_old(version: str) -> None:
    assert refusal(endpoint(), server=f"restate-sdk-typescript/{version}")[:2] == ("META0012", 500)


@pytest.mark.parametrize("server", ["restate-sdk-typescript/1.17.2", "restate-sdk-typescript/1.3.0", "other/1.0.0"])
def test_later_ones_and_others_are_not(server: str) -> None:
    assert parse(endpoint(), server=server).max_protocol_version == 7


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b"[]",
        b"null",
        b"NaN",
        b'{"minProtocolVersion": ' + b"9" * 5000 + b"}",
        b"[" * 100_000,
        b'{"documentation": "\\ud800"}',
    ],
    ids=lambda body: repr(body[:20]),
)
def test_what_is_no_json_object(body: bytes) -> None:
    with pytest.raises(ManifestError) as caught:
        parse_manifest(V4, body)
    assert (caught.value.code, caught.value.status) == (None, 500)


UNDECODABLE = [
    (endpoint(extra=1), "the manifest: unknown member 'extra'"),
    (endpoint(minProtocolVersion=0), "minProtocolVersion: expected a number from 1 to 2147483647, found 0"),
    (endpoint(maxProtocolVersion=True), "maxProtocolVersion: expected a whole number, found a boolean"),
    (endpoint(maxProtocolVersion=7.0), "maxProtocolVersion: expected a whole number, found a number"),
    (endpoint(minProtocolVersion=None), "minProtocolVersion is missing"),
    (endpoint(services={}), "services: expected an array, found an object"),
    (endpoint(protocolMode="HALF"), "protocolMode: expected BIDI_STREAM or REQUEST_RESPONSE, found 'HALF'"),
    (endpoint(lambdaCompression="gzip"), "lambdaCompression: expected zstd, found 'gzip'"),
    (endpoint("x"), "service 0: expected an object, found a string"),
    (endpoint({"ty": "SERVICE", "handlers": []}), "service 0: name is missing"),
    (endpoint(service(name="")), "service '': the name does not match"),
    (endpoint(service(name="_")), "service '_': the name does not match"),
    (endpoint(service(name="1a")), "the name does not match"),
    (endpoint(service(name="Größe")), "the name does not match"),
    (endpoint(service(name="a\n")), "the name does not match"),
    (endpoint(service(ty="ACTOR")), "service 'Greeter': ty: expected SERVICE or VIRTUAL_OBJECT or WORKFLOW"),
    (endpoint(service(eagerStateKeysWhitelist=[])), "service 'Greeter': unknown member 'eagerStateKeysWhitelist'"),
    (endpoint(service(workflowCompletionRetention=1)), "unknown member 'workflowCompletionRetention'"),
    (endpoint(service(journalRetention=-1)), "service 'Greeter': journalRetention: expected a number from 0"),
    (endpoint(service(journalRetention=2**63)), "service 'Greeter': journalRetention: expected a number from 0"),
    (endpoint(service(metadata={"a": 1})), "service 'Greeter': metadata: expected a string, found a number"),
    (endpoint(service(enableLazyState="yes")), "enableLazyState: expected true or false, found a string"),
    (endpoint(service(retryPolicyExponentiationFactor=0)), "expected a positive number, found 0"),
    (endpoint(service(retryPolicyExponentiationFactor="2")), "expected a number, found a string"),
    (endpoint(service(retryPolicyOnMaxAttempts="RETRY")), "expected PAUSE or KILL, found 'RETRY'"),
    (endpoint(service(handler(name="a.b"))), "service 'Greeter', handler 'a.b': the name does not match"),
    (endpoint(service(handler(name="a-b"))), "service 'Greeter', handler 'a-b': the name does not match"),
    (endpoint(service(handler(inputs={}))), "service 'Greeter', handler 'greet': unknown member 'inputs'"),
    (endpoint(service({})), "service 'Greeter', handler 0: name is missing"),
    (endpoint(service(handler(input={"schema": 1}))), "handler 'greet', input: unknown member 'schema'"),
    (endpoint(service(handler(input=[]))), "service 'Greeter', handler 'greet': input: expected an object"),
    (endpoint(service(handler(output={"required": True}))), "handler 'greet', output: unknown member 'required'"),
]


@pytest.mark.parametrize(("document", "words"), UNDECODABLE, ids=[words for _, words in UNDECODABLE])
def test_what_does_not_have_the_shape(document: Any, words: str) -> None:
    code, status, message = refusal(document)
    assert (code, status) == (None, 500)
    assert words in message


@pytest.mark.parametrize("name", ["restate", "RestateThing", "restate.x", "OpenAPI", "openapi"])
def test_names_that_are_reserved(name: str) -> None:
    code, status, message = refusal(endpoint(service(name=name)))
    assert (code, status) == ("META0005", 400)
    assert f"service '{name}'" in message


@pytest.mark.parametrize("name", ["openapi2", "my-restate", "_0", "a.b-c_d", "Z"])
def test_names_that_look_so_and_are_not(name: str) -> None:
    assert parse(endpoint(service(name=name))).services[0].name == name


FLOW = {"name": "Flow", "ty": "WORKFLOW"}
INVALID = [
    (endpoint(service(handler(ty="EXCLUSIVE"))), "handler 'greet': a SERVICE has no handlers of type EXCLUSIVE"),
    (endpoint(service(handler(ty="WORKFLOW"))), "handler 'greet': a SERVICE has no handlers of type WORKFLOW"),
    (
        endpoint(service(handler(ty="WORKFLOW"), ty="VIRTUAL_OBJECT")),
        "handler 'greet': a VIRTUAL_OBJECT has no handlers of type WORKFLOW",
    ),
    (
        endpoint(service(handler(ty="EXCLUSIVE"), **FLOW)),
        "service 'Flow', handler 'greet': a WORKFLOW has no handlers of type EXCLUSIVE",
    ),
    (
        endpoint(service(handler(ty="WORKFLOW", idempotencyRetention=1), **FLOW)),
        "service 'Flow', handler 'greet': idempotencyRetention is not for the WORKFLOW handler",
    ),
    (
        endpoint(service(handler(ty="SHARED", workflowCompletionRetention=1), **FLOW)),
        "service 'Flow', handler 'greet': workflowCompletionRetention is only for",
    ),
    (
        endpoint(service(handler(workflowCompletionRetention=1))),
        "service 'Greeter', handler 'greet': workflowCompletionRetention is only for",
    ),
    (
        endpoint(service(handler(ingressPrivate=False), ingressPrivate=True)),
        "service 'Greeter', handler 'greet': a handler of a private service cannot be public",
    ),
    (endpoint(service(handler(), handler())), "service 'Greeter', handler 'greet' is given twice"),
    (endpoint(service(), service()), "service 'Greeter' is given twice"),
    (
        endpoint(service(handler("a", ty="WORKFLOW"), handler("b", ty="WORKFLOW"), **FLOW)),
        "service 'Flow': handlers 'a' and 'b' are both of type WORKFLOW",
    ),
    (
        endpoint(service(handler(input={"contentType": "json"}))),
        "service 'Greeter', handler 'greet', input: contentType 'json' is not a media type",
    ),
    (
        endpoint(service(handler(output={"contentType": "a/b\r\nx: y"}))),
        "service 'Greeter', handler 'greet', output: contentType",
    ),
    (
        endpoint(service(handler(input={"contentType": "a/b", "jsonSchema": {"type": "text"}}))),
        "service 'Greeter', handler 'greet', input: jsonSchema is not a valid JSON Schema: #/type",
    ),
]


@pytest.mark.parametrize(("document", "words"), INVALID, ids=[words for _, words in INVALID])
def test_what_breaks_a_rule(document: Any, words: str) -> None:
    code, status, message = refusal(document)
    assert (code, status) == (None, 400)
    assert words in message


def test_a_private_service_s_handler_may_repeat_that_it_is_private() -> None:
    [parsed] = parse(endpoint(service(handler(ingressPrivate=True), ingressPrivate=True))).services
    assert parsed.handlers[0].ingress_private is True


# --- versions ----------------------------------------------------------------------------------------------


def test_what_discovery_asks_for() -> None:
    versions = [f"application/vnd.restate.endpointmanifest.v{n}+json" for n in (1, 2, 3, 4)]
    assert ", ".join(versions) == DISCOVERY_ACCEPT


@pytest.mark.parametrize(
    ("accept", "version"),
    [
        (DISCOVERY_ACCEPT, 4),
        (manifest_content_type(3) + "," + manifest_content_type(2), 3),
        (manifest_content_type(2) + ";q=0.5, " + manifest_content_type(99), 2),
        (None, 2),
        ("application/json", None),
        (manifest_content_type(5), None),
        (manifest_content_type(12), None),
    ],
)
def test_which_manifest_version_is_answered(accept: str | None, version: int | None) -> None:
    assert choose_manifest_version(accept) == version


@pytest.mark.parametrize(
    ("low", "high", "accepted"), [(1, 4, False), (1, 5, True), (5, 7, True), (7, 7, True), (7, 9, True), (8, 8, False)]
)
def test_which_ranges_register(low: int, high: int, accepted: bool) -> None:
    assert accepted_range(low, high) is accepted


@pytest.mark.parametrize(
    ("low", "high", "default", "with_v7"),
    [(5, 7, 6, 7), (1, 5, 5, 5), (6, 6, 6, 6), (7, 7, None, 7), (5, 9, 6, 7), (8, 9, None, None), (1, 4, None, None)],
)
def test_which_version_an_invocation_gets(low: int, high: int, default: int | None, with_v7: int | None) -> None:
    assert negotiate(low, high, protocol_v7=False) == default
    assert negotiate(low, high, protocol_v7=True) == with_v7


# --- writing -----------------------------------------------------------------------------------------------


def test_what_is_written_is_read_again() -> None:
    given = parse(
        endpoint(
            service(handler("a", ty="SHARED"), handler("b"), name="Object", ty="VIRTUAL_OBJECT", metadata={"k": "ü"}),
            service(handler("run", ty="WORKFLOW"), handler("ask", idempotencyRetention=1), name="Flow", ty="WORKFLOW"),
            service(
                handler(input={"required": True, "contentType": "a/b", "jsonSchema": False}, output={}),
                ingressPrivate=True,
            ),
            lambdaCompression="zstd",
        )
    )
    assert parse_manifest(V4, to_json(given, 4)) == given


def test_a_handler_s_type_is_always_said_where_it_has_one() -> None:
    given = parse(endpoint(service(handler(), ty="VIRTUAL_OBJECT"), service(handler(), name="S")))
    [keyed, plain] = json.loads(to_json(given, 1))["services"]
    assert keyed["handlers"] == [{"name": "greet", "ty": "EXCLUSIVE"}]
    assert plain["handlers"] == [{"name": "greet"}]


EXAMPLES = {
    "documentation": "text",
    "metadata": {"a": "b"},
    "enableLazyState": False,
    "ingressPrivate": False,
    "retryPolicyExponentiationFactor": 2.0,
    "retryPolicyOnMaxAttempts": "PAUSE",
}


@pytest.mark.parametrize(("member", "since"), [(option[1], option[3]) for option in MANIFEST_OPTIONS])
def test_a_member_is_not_written_before_its_version(member: str, since: int) -> None:
    given = parse(endpoint(service(handler(**{member: EXAMPLES.get(member, 1)}))))
    [written] = json.loads(to_json(given, since))["services"][0]["handlers"]
    assert written == {"name": "greet", member: EXAMPLES.get(member, 1)}

    with pytest.raises(ManifestError, match=f"service 'Greeter', handler 'greet': {member} needs manifest version"):
        to_json(given, since - 1)
