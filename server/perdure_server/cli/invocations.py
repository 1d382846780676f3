"""○ adapter · `perdure invocations` (click): what runs, what waits, and what ended."""

from __future__ import annotations

from typing import Any

import click

from perdure_server.admin.queries import STATUSES
from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, admin_option, json_option
from perdure_server.cli.invocation_verbs import add_verbs
from perdure_server.limits import INVOCATIONS_LISTED_DEFAULT, INVOCATIONS_LISTED_MAX

# Told first, in this order; whatever else the server says about an invocation follows by name.
_FIRST = ("id", "target", "status", "completion_result", "completion_failure", "retry_count", "last_failure")


@click.group()
def invocations() -> None:
    """Look at invocations, calls of handlers that run, wait or have ended, and act on them.

    \b
    Example:
      perdure invocations list --status backing-off
    """


@invocations.command("list")
@click.option("--service", metavar="NAME", help="Only those of this service.")
@click.option("--handler", metavar="NAME", help="Only those of this handler.")
@click.option("--key", metavar="KEY", help="Only those of this object or workflow key.")
@click.option("--status", type=click.Choice(STATUSES), help="Only those in this state.")
@click.option(
    "--limit",
    type=click.IntRange(1, INVOCATIONS_LISTED_MAX),
    default=INVOCATIONS_LISTED_DEFAULT,
    show_default=True,
    help="List no more than these.",
)
@admin_option
@json_option
def list_invocations(
    service: str | None,
    handler: str | None,
    key: str | None,
    status: str | None,
    limit: int,
    admin: AdminClient,
    wants_json: bool,
) -> None:
    """List invocations, with what each is doing.

    \b
    Examples:
      perdure invocations list
      perdure invocations list --service Counter --key alice
      perdure invocations list --status suspended --json
    """
    filters = {"service": service, "handler": handler, "key": key, "status": status, "limit": str(limit)}
    query = {name: given for name, given in filters.items() if given is not None}
    answer = admin.get("invocations", field="invocations", query=query)
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    found = answer["invocations"]
    if not found:
        click.echo("There are none like that." if len(query) > 1 else "There are none yet.")
        return
    rows = [
        (each["id"], each.get("target"), each.get("status"), each.get("created_at"), _remark(each)) for each in found
    ]
    click.echo(tables.table(("ID", "TARGET", "STATUS", "CREATED", "REMARK"), rows))
    if len(found) == limit:
        click.echo(f"\nThese are the first {limit}; there may be more (see --limit).")


@invocations.command()
@click.argument("invocation_id", metavar="ID")
@admin_option
@json_option
def describe(invocation_id: str, admin: AdminClient, wants_json: bool) -> None:
    """Show one invocation: its state, its last failure if there was one, and its journal.

    \b
    Example:
      perdure invocations describe inv_1gabxA3iqxx52nIbNcWBhqNqUGlzjz7YQy
    """
    answer = admin.get("invocations", invocation_id, field="invocation")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    columns: dict[str, Any] = answer["invocation"]
    names = [name for name in _FIRST if name in columns] + sorted(name for name in columns if name not in _FIRST)
    click.echo(tables.details([(name.replace("_", " "), tables.in_one_cell(columns[name])) for name in names]))
    journal = answer["journal"]
    if not journal:
        click.echo("\nThe journal is empty, or no longer kept.")
        return
    rows = [
        (
            entry.get("index"),
            entry.get("entry_type"),
            entry.get("name"),
            entry.get("appended_at"),
            entry.get("raw_length"),
        )
        for entry in journal
    ]
    click.echo("\n" + tables.table(("INDEX", "ENTRY", "NAME", "APPENDED", "BYTES"), rows))


add_verbs(invocations)


def _remark(invocation: dict[str, Any]) -> str | None:
    """Why it is not getting on, or how it ended, where there is something to say."""
    if "completion_failure" in invocation:
        return str(invocation["completion_failure"])
    if "last_failure" in invocation:
        retries = f"after {invocation['retry_count']} attempts: " if "retry_count" in invocation else ""
        return f"{retries}{str(invocation['last_failure']).splitlines()[0]}"
    if "scheduled_start_at" in invocation and invocation.get("status") == "scheduled":
        return f"starts at {invocation['scheduled_start_at']}"
    return None
