"""○ adapter · `perdure promises` (click): drop the promises of a workflow key that never ran."""

from __future__ import annotations

import click

from perdure_server.cli.client import AdminClient, admin_option


@click.group()
def promises() -> None:
    """Act on the durable promises of workflows.

    \b
    Example:
      perdure promises purge Order 4711
    """


@promises.command()
@click.argument("workflow", metavar="WORKFLOW")
@click.argument("key", metavar="KEY")
@admin_option
def purge(workflow: str, key: str, admin: AdminClient) -> None:
    """Drop the promises and the state of a key whose workflow never ran.

    Nothing else takes them away. Whoever still waits for one of them is told that it is gone. Those of a workflow
    that ran go with its result, see `perdure invocations purge`.

    \b
    Example:
      perdure promises purge Order 4711
    """
    admin.delete("services", workflow, "promises", key)
    click.echo(f"Dropped the promises of {workflow}/{key}.")
