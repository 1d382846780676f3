"""○ adapter · `perdure partitions` (click): how far each partition is, and how to go on past a poisonous record."""

from __future__ import annotations

import click

from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, admin_option, json_option


@click.group()
def partitions() -> None:
    """Show the partitions of a server, and mend a stopped one.

    \b
    Example:
      perdure partitions list
    """


@partitions.command("list")
@admin_option
@json_option
def list_partitions(admin: AdminClient, wants_json: bool) -> None:
    """List the partitions: what each has applied, and why it stopped if it did.

    \b
    Examples:
      perdure partitions list
      perdure partitions list --json
    """
    answer = admin.get("partitions", field="partitions")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    rows = [
        (
            partition["id"],
            partition["position"],
            partition.get("leader_epoch"),
            partition.get("stopped_at"),
            partition.get("failure"),
        )
        for partition in answer["partitions"]
    ]
    click.echo(tables.table(("PARTITION", "POSITION", "LEADER EPOCH", "STOPPED AT", "FAILURE"), rows))


@partitions.command()
@click.argument("partition", type=click.IntRange(min=0))
@click.argument("offset", type=click.IntRange(min=0))
@admin_option
def skip(partition: int, offset: int, admin: AdminClient) -> None:
    """Go on without the record at OFFSET that stopped PARTITION.

    The record's effect is lost for good; that it was skipped is recorded. Please report the fault first, with
    the lines that the server logged when it stopped.

    \b
    Example:
      perdure partitions skip 3 1742
    """
    admin.post("partitions", str(partition), "skip", field="id", body={"offset": offset})
    click.echo(f"Partition {partition} goes on without the record at offset {offset}.")
