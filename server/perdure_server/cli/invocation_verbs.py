"""○ adapter · `perdure invocations cancel`, `kill`, … (click): one invocation by its id, or all of a target."""

from __future__ import annotations

from typing import Any

import click

from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, AdminError, admin_option, json_option, sql_text
from perdure_server.limits import BATCH_INVOCATIONS_MAX

# Verb → what it does, and which statuses a target prefix selects: the others would only be refused.
_ENDED, _LIVE = "status = 'completed'", "status <> 'completed'"
_VERBS = {
    "cancel": ("Ask invocations to end: a handler that has begun may still compensate.", _LIVE),
    "kill": ("End invocations now, and the calls they wait for; nothing is compensated.", _LIVE),
    "pause": ("Let running invocations wait until they are resumed.", "status IN ('running', 'backing-off')"),
    "resume": ("Go on with paused invocations, or try those that back off at once.", _LIVE),
    "restart": ("Run completed invocations again, under a new id.", _ENDED),
    "purge": ("Forget completed invocations: result, journal, and a workflow's state.", _ENDED),
    "purge-journal": ("Forget the journals of completed invocations; the results stay.", _ENDED),
}
_ROUTES = {"restart": "restart-as-new"}


def add_verbs(group: click.Group) -> None:
    """Add a command for each verb."""
    for verb, (help_text, condition) in _VERBS.items():
        group.add_command(_command(verb, help_text, condition))


def _command(verb: str, help_text: str, condition: str) -> click.Command:
    def act(
        query: str,
        limit: int,
        yes: bool,
        admin: AdminClient,
        wants_json: bool,
        deployment: str | None = None,
        from_index: int | None = None,
    ) -> None:
        options = {"deployment": deployment, "from": from_index}
        body = {name: given for name, given in options.items() if given is not None}
        found = [{"id": query}] if query.startswith("inv_") else _selected(admin, query, condition, limit)
        if not found:
            click.echo(f"There is nothing to {verb} at {query}.")
            return
        if not query.startswith("inv_") and not yes:
            _confirm(verb, found)
        answer = _act(admin, _ROUTES.get(verb, verb), [each["id"] for each in found], body)
        _report(verb, answer, wants_json)

    act.__doc__ = f"""{help_text}

    QUERY is an invocation's id, or a target: Service, Service/handler, Object/key or Object/key/handler.

    \b
    Examples:
      perdure invocations {verb} inv_1gabxA3iqxx52nIbNcWBhqNqUGlzjz7YQy
      perdure invocations {verb} Counter/alice --yes
    """
    command = json_option(admin_option(act))
    command = click.option("--yes", "-y", is_flag=True, help="Do not ask.")(command)
    command = click.option(
        "--limit",
        type=click.IntRange(1, BATCH_INVOCATIONS_MAX),
        default=500,
        show_default=True,
        help="Act on no more than these.",
    )(command)
    if verb in ("resume", "restart"):
        command = click.option(
            "--deployment", metavar="ID", help="Continue on this deployment: latest, keep, or an id."
        )(command)
    if verb == "restart":
        command = click.option(
            "--from", "from_index", type=click.IntRange(0), help="Keep the journal up to this entry."
        )(command)
    command = click.argument("query", metavar="QUERY")(command)
    return click.command(verb)(command)


def _selected(admin: AdminClient, query: str, condition: str, limit: int) -> list[dict[str, Any]]:
    answer = admin.post(
        "query",
        field="rows",
        body={
            "query": f"SELECT id, target, status FROM sys_invocation WHERE {condition} AND ({_targets(query)}) "
            f"ORDER BY created_at LIMIT {limit}"
        },
    )[1]
    rows: list[dict[str, Any]] = answer["rows"]
    return rows


def _targets(query: str) -> str:
    """The condition of a target prefix; `a/b` is a service's handler or an object's key."""
    parts = [sql_text(part) for part in query.split("/")]
    service = f"target_service_name = {parts[0]}"
    match parts[1:]:
        case []:
            return service
        case [second]:
            return (
                f"{service} AND (target_service_key = {second} OR "
                f"(target_service_key IS NULL AND target_handler_name = {second}))"
            )
        case [*key, handler]:
            # A key may have slashes of its own: the last part is a handler's, or all of it is the key.
            whole = sql_text(query.partition("/")[2])
            keyed = sql_text(query.partition("/")[2].rpartition("/")[0])
            assert key
            return (
                f"{service} AND (target_service_key = {whole} OR "
                f"(target_service_key = {keyed} AND target_handler_name = {handler}))"
            )
    raise AssertionError("a query has a first part")


def _confirm(verb: str, found: list[dict[str, Any]]) -> None:
    rows = [(each["id"], each.get("target"), each.get("status")) for each in found]
    click.echo(tables.table(("ID", "TARGET", "STATUS"), rows), err=True)
    what = "this invocation" if len(found) == 1 else f"these {len(found)} invocations"
    click.confirm(f"{verb.capitalize()} {what}?", abort=True, err=True)


def _act(admin: AdminClient, route: str, ids: list[str], body: dict[str, Any]) -> dict[str, Any]:
    """One by its own route, whose refusals say most; many by the batch route."""
    if len(ids) > 1:
        path = ("internal", "invocations_batch_operations", route)
        return admin.post(*path, field="succeeded", body={"invocation_ids": ids, **body})[1]
    query = {name: str(given) for name, given in body.items()}
    created = admin.patch("invocations", ids[0], route, query=query)
    if created is None:
        return {"succeeded": ids, "failed": []}
    return {"succeeded": [{"old_invocation_id": ids[0], **created}], "failed": []}


def _report(verb: str, answer: dict[str, Any], wants_json: bool) -> None:
    if wants_json:
        click.echo(tables.as_json(answer))
    else:
        for each in answer["succeeded"]:
            if isinstance(each, dict):
                click.echo(f"{each['old_invocation_id']} runs again as {each['new_invocation_id']}")
            else:
                click.echo(f"{each}: {verb} accepted")
    failed = answer["failed"]
    if failed:
        reasons = "\n".join(tables.printable(f"{each['invocation_id']}: {each['error']}") for each in failed)
        raise AdminError(f"{len(failed)} of {len(failed) + len(answer['succeeded'])} did not work:\n{reasons}")
