"""○ adapter · `perdure deployments` (click): where handlers are served."""

from __future__ import annotations

from typing import Any

import click

from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, Refused, admin_option, json_option

NOT_WITHOUT_FORCE = 501


@click.group()
def deployments() -> None:
    """Register and inspect deployments: the addresses where your handlers are served.

    A server calls handlers at the deployments it knows. Registering one makes the server ask it which
    services it has. The newest registration of a service gets the new calls; what runs already goes on
    where it began.

    \b
    Example:
      perdure deployments register http://localhost:9080
    """


@deployments.command()
@click.argument("url")
@click.option("--force", is_flag=True, help="Ask an address that is registered again, and replace what it said.")
@click.option("--breaking", is_flag=True, help="Allow a service to change its type.")
@click.option("--dry-run", is_flag=True, help="Show what would be registered, and register nothing.")
@click.option("--use-http1.1", "use_http_11", is_flag=True, help="Speak HTTP/1.1 to it rather than HTTP/2.")
@click.option(
    "--extra-header",
    "extra_headers",
    metavar="NAME=VALUE",
    multiple=True,
    help="Header for every request to the deployment; may be repeated.",
)
@click.option(
    "--metadata",
    metavar="NAME=VALUE",
    multiple=True,
    help="A note to keep with the deployment; may be repeated.",
)
@admin_option
@json_option
def register(
    url: str,
    force: bool,
    breaking: bool,
    dry_run: bool,
    use_http_11: bool,
    extra_headers: tuple[str, ...],
    metadata: tuple[str, ...],
    admin: AdminClient,
    wants_json: bool,
) -> None:
    """Tell the server where handlers are served. The server must be able to reach URL.

    \b
    Examples:
      perdure deployments register http://localhost:9080
      perdure deployments register http://localhost:9080 --force
      perdure deployments register https://greeter.example.com --extra-header authorization='Bearer …'
    """
    body: dict[str, Any] = {
        "uri": url if "://" in url else f"http://{url}",
        "force": force,
        "breaking": breaking,
        "dry_run": dry_run,
        "use_http_11": use_http_11,
    }
    if extra_headers:
        body["additional_headers"] = _pairs(extra_headers, "--extra-header")
    if metadata:
        body["metadata"] = _pairs(metadata, "--metadata")
    status, answer = admin.post("deployments", field="services", body=body)
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    if dry_run:
        done = "Nothing was registered. This would be:"
    elif status == 201:
        done = f"Registered as {answer['id']}:"
    elif force:
        done = f"Asked again; {answer['id']} is now:"
    else:
        done = f"Known already as {answer['id']}, nothing has changed (--force asks it again):"
    click.echo(f"{done}\n\n{_services_table(answer['services'])}")


@deployments.command("list")
@admin_option
@json_option
def list_deployments(admin: AdminClient, wants_json: bool) -> None:
    """List the deployments that the server knows.

    \b
    Examples:
      perdure deployments list
      perdure deployments list --json
    """
    answer = admin.get("deployments", field="deployments")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    if not answer["deployments"]:
        click.echo("There are none yet. Register one with: perdure deployments register URL")
        return
    rows = [
        (
            deployment["id"],
            deployment.get("uri", deployment.get("arn")),
            deployment.get("created_at"),
            ", ".join(sorted(f"{each['name']} (revision {each['revision']})" for each in deployment["services"])),
        )
        for deployment in answer["deployments"]
    ]
    click.echo(tables.table(("ID", "ADDRESS", "CREATED", "SERVICES"), rows))


@deployments.command()
@click.argument("deployment_id", metavar="ID")
@admin_option
@json_option
def describe(deployment_id: str, admin: AdminClient, wants_json: bool) -> None:
    """Show one deployment: its address, what it speaks, and its services with their handlers.

    \b
    Example:
      perdure deployments describe dp_14wkrT95ZN2gf4yXNYMUPUA
    """
    answer = admin.get("deployments", deployment_id, field="services")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    lowest, highest = answer.get("min_protocol_version"), answer.get("max_protocol_version")
    headers: dict[str, str] = answer.get("additional_headers") or {}
    notes: dict[str, str] = answer.get("metadata") or {}
    pairs = [
        ("ID", answer["id"]),
        ("Address", answer.get("uri", answer.get("arn"))),
        ("Created", answer.get("created_at")),
        ("SDK", answer.get("sdk_version")),
        (
            "Transport",
            " ".join(filter(None, (answer.get("http_version"), answer.get("protocol_type")))) or None,
        ),
        ("Protocol versions", f"{lowest} to {highest}" if lowest is not None else None),
        # Names only: what headers carry are often credentials, and terminals are looked at by others.
        ("Extra headers", ", ".join(sorted(headers)) or None),
        *((f"Note {name}", note) for name, note in sorted(notes.items())),
    ]
    click.echo(f"{tables.details(pairs)}\n\n{_services_table(answer['services'])}")


@deployments.command()
@click.argument("deployment_id", metavar="ID")
@admin_option
@json_option
def activate(deployment_id: str, admin: AdminClient, wants_json: bool) -> None:
    """Make a deployment the latest of its services again: new calls go there from now on.

    The way back from a bad release. The deployment is not asked anything, it serves what it was registered with.
    Invocations that have begun elsewhere go on there.

    \b
    Example:
      perdure deployments activate dp_14wkrT95ZN2gf4yXNYMUPUA
    """
    answer = admin.change("POST", "deployments", deployment_id, "activate", field="services")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    click.echo(f"New calls go to {answer['id']}:\n\n{_services_table(answer['services'])}")


@deployments.command()
@click.argument("deployment_id", metavar="ID")
@admin_option
@json_option
def drain(deployment_id: str, admin: AdminClient, wants_json: bool) -> None:
    """Show how many invocations began at a deployment and have not ended. At 0 it can be removed.

    \b
    Example:
      perdure deployments drain dp_14wkrT95ZN2gf4yXNYMUPUA
    """
    answer = admin.get("deployments", deployment_id, "drain", field="in_flight")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    if not answer["in_flight"]:
        click.echo(f"Nothing that began at {deployment_id} still runs: it can be removed.")
        return
    rows = [(name, count) for name, count in sorted(answer["by_service"].items())]
    click.echo(
        f"{answer['in_flight']} invocations began at {deployment_id} and have not ended, the oldest was created at "
        f"{answer['oldest_created_at']}:\n\n{tables.table(('SERVICE', 'IN FLIGHT'), rows)}"
    )


@deployments.command()
@click.argument("deployment_id", metavar="ID")
@click.option("--url", help="Reach it there from now on. The new address must answer.")
@click.option("--use-http1.1/--use-http2", "use_http_11", default=None, help="Speak this version of HTTP to it.")
@click.option(
    "--extra-header",
    "extra_headers",
    metavar="NAME=VALUE",
    multiple=True,
    help="Header for every request to the deployment, instead of those it has; may be repeated.",
)
@click.option("--overwrite", is_flag=True, help="Ask it which services it has now, and replace what it said.")
@click.option("--dry-run", is_flag=True, help="Show what it would be, and change nothing.")
@admin_option
@json_option
def update(
    deployment_id: str,
    url: str | None,
    use_http_11: bool | None,
    extra_headers: tuple[str, ...],
    overwrite: bool,
    dry_run: bool,
    admin: AdminClient,
    wants_json: bool,
) -> None:
    """Change how a deployment is reached, for the invocations that run there too.

    \b
    Examples:
      perdure deployments update dp_14wkrT95ZN2gf4yXNYMUPUA --url http://greeter:9080
      perdure deployments update dp_14wkrT95ZN2gf4yXNYMUPUA --extra-header authorization='Bearer …'
    """
    body: dict[str, Any] = {"overwrite": overwrite, "dry_run": dry_run}
    if url is not None:
        body["uri"] = url if "://" in url else f"http://{url}"
    if use_http_11 is not None:
        body["use_http_11"] = use_http_11
    if extra_headers:
        body["additional_headers"] = _pairs(extra_headers, "--extra-header")
    if len(body) == 2 and not overwrite:
        raise click.UsageError("Nothing to update: give --url, --extra-header, --use-http1.1 or --overwrite.")
    answer = admin.change("PATCH", "deployments", deployment_id, field="services", body=body)
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    done = "Nothing was changed. This would be:" if dry_run else f"{answer['id']} is now at {answer.get('uri')}:"
    click.echo(f"{done}\n\n{_services_table(answer['services'])}")


@deployments.command()
@click.argument("deployment_id", metavar="ID")
@click.option("--force", is_flag=True, help="Remove it now, even if invocations that began there still run.")
@admin_option
def remove(deployment_id: str, force: bool, admin: AdminClient) -> None:
    """Forget a deployment. Its services are called at the deployment before it, or no more.

    Invocations that began at the deployment and have not ended cannot go on without it. See
    `perdure deployments drain` for how many there are.

    \b
    Example:
      perdure deployments remove dp_14wkrT95ZN2gf4yXNYMUPUA --force
    """
    try:
        admin.delete("deployments", deployment_id, query={"force": "true"} if force else None)
    except Refused as error:
        if error.status != NOT_WITHOUT_FORCE or force:
            raise
        raise click.ClickException(
            "the server does not check whether invocations still run there, so it removes a deployment only"
            " with --force.\nSee `perdure deployments drain` first."
        ) from error
    click.echo(f"Removed {deployment_id}.")


def _pairs(written: tuple[str, ...], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in written:
        name, equals, given = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"expected NAME=VALUE, not {text!r}", param_hint=option)
        if name in pairs:
            raise click.BadParameter(f"{name} is given twice", param_hint=option)
        pairs[name] = given
    return pairs


def _services_table(services: list[dict[str, Any]]) -> str:
    rows = [
        (
            service["name"],
            service["ty"],
            service["revision"],
            ", ".join(sorted(_handler_names(service["handlers"]))),
        )
        for service in sorted(services, key=lambda service: str(service["name"]))
    ]
    return tables.table(("SERVICE", "TYPE", "REVISION", "HANDLERS"), rows)


def _handler_names(handlers: list[dict[str, Any]]) -> list[str]:
    return [str(handler["name"]) for handler in handlers]
