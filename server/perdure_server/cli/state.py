"""○ adapter · `perdure state` (click): look at the state of an object or workflow key, and change it."""

from __future__ import annotations

import json
from typing import Any

import click

from perdure_processor.state_machine.state_patch import version_of
from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, AdminError, admin_option, json_option, sql_text


@click.group()
def state() -> None:
    """Look at the state that handlers keep, and change it.

    \b
    Example:
      perdure state get Counter alice
    """


@state.command()
@click.argument("service", metavar="SERVICE")
@click.argument("key", metavar="KEY")
@admin_option
@json_option
def get(service: str, key: str, admin: AdminClient, wants_json: bool) -> None:
    """Show the state of one key.

    \b
    Example:
      perdure state get Counter alice
    """
    found = _read(admin, service, key)
    shown = {name.decode(errors="replace"): _shown(content) for name, content in found.items()}
    if wants_json:
        click.echo(tables.as_json(shown))
    elif not shown:
        click.echo(f"{service}/{key} has no state.")
    else:
        rows = [(name, json.dumps(content, ensure_ascii=False)) for name, content in shown.items()]
        click.echo(tables.table(("NAME", "VALUE"), rows))


@state.command()
@click.argument("service", metavar="SERVICE")
@click.argument("key", metavar="KEY")
@click.argument("document", type=click.File("rb"), metavar="FILE")
@click.option("--force", is_flag=True, help="Also if the state changes meanwhile.")
@admin_option
def put(service: str, key: str, document: Any, force: bool, admin: AdminClient) -> None:
    """Give one key another state, all of it, from a JSON object in FILE (- is standard input).

    Each value is stored as JSON text, as the official SDKs do.

    \b
    Example:
      echo '{"count": 5}' | perdure state put Counter alice -
    """
    before = _read(admin, service, key)
    _write(admin, service, key, before, _encoded(_object(document.read())), force)


@state.command()
@click.argument("service", metavar="SERVICE")
@click.argument("key", metavar="KEY")
@click.argument("changes", metavar="JSON")
@click.option("--force", is_flag=True, help="Also if the state changes meanwhile.")
@admin_option
def patch(service: str, key: str, changes: str, force: bool, admin: AdminClient) -> None:
    """Change some names of one key's state: a JSON object of new values; null takes a name away.

    \b
    Example:
      perdure state patch Counter alice '{"count": 5, "draft": null}'
    """
    before = _read(admin, service, key)
    after = dict(before)
    for name, content in _object(changes.encode()).items():
        if content is None:
            after.pop(name.encode(), None)
        else:
            after |= _encoded({name: content})
    _write(admin, service, key, before, after, force)


def _read(admin: AdminClient, service: str, key: str) -> dict[bytes, bytes]:
    named = f"service_name = {sql_text(service)} AND service_key = {sql_text(key)}"
    query = f"SELECT key, value FROM state WHERE {named} ORDER BY key"
    rows = admin.post("query", field="rows", body={"query": query})[1]["rows"]
    return {row["key"].encode(): bytes.fromhex(row.get("value", "")) for row in rows}


def _write(
    admin: AdminClient, service: str, key: str, before: dict[bytes, bytes], after: dict[bytes, bytes], force: bool
) -> None:
    body: dict[str, Any] = {
        "object_key": key,
        "new_state": {name.decode(): list(content) for name, content in after.items()},
    }
    if not force:
        body["version"] = version_of(before.items())
    admin.send("POST", "services", service, "state", body=body)
    click.echo(f"The next call of {service}/{key} sees {len(after)} name{'' if len(after) == 1 else 's'}.")


def _object(text: bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except ValueError as error:
        raise AdminError(f"the new state is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise AdminError("the new state must be a JSON object: a value for each name")
    return found


def _encoded(names: dict[str, Any]) -> dict[bytes, bytes]:
    return {name.encode(): json.dumps(content, ensure_ascii=False).encode() for name, content in names.items()}


def _shown(content: bytes) -> Any:
    """A value as JSON where it is, else as text, else in hexadecimal."""
    try:
        return json.loads(content)
    except ValueError:
        pass
    try:
        return content.decode()
    except UnicodeDecodeError:
        return f"0x{content.hex()}"
