"""○ adapter · `perdure sql` (click): ask the server's tables."""

from __future__ import annotations

import json

import click

from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, admin_option, json_option


@click.command()
@click.argument("query")
@click.option("--jsonl", "as_lines", is_flag=True, help="Print each row as a line of JSON.")
@admin_option
@json_option
def sql(query: str, as_lines: bool, admin: AdminClient, wants_json: bool) -> None:
    """Ask about invocations, journals, state and what is registered, in SQL.

    \b
    Examples:
      perdure sql "SELECT status, count(*) AS n FROM sys_invocation GROUP BY status"
      perdure sql "SELECT * FROM state WHERE service_name = 'Counter' AND service_key = 'alice'" --json
      perdure sql "SHOW TABLES"
    """
    answer = admin.post("query", field="rows", body={"query": query})[1]
    rows = answer["rows"]
    if wants_json:
        click.echo(tables.as_json(answer))
    elif as_lines:
        for row in rows:
            click.echo(json.dumps(row, ensure_ascii=False))
    elif not rows:
        click.echo("There are no rows.")
    else:
        # A row leaves its nulls out, so every row has a say in which columns there are.
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[tables.in_one_cell(row.get(name)) for name in columns] for row in rows]
        click.echo(tables.table([name.upper() for name in columns], cells))
        click.echo(f"\n{len(rows)} row{'' if len(rows) == 1 else 's'}")
