"""○ adapter · `perdure services` (click): what can be called."""

from __future__ import annotations

import click

from perdure_server.cli import tables
from perdure_server.cli.client import AdminClient, admin_option, json_option


@click.group()
def services() -> None:
    """Show the services that can be called, and their handlers.

    \b
    Example:
      perdure services list
    """


@services.command("list")
@admin_option
@json_option
def list_services(admin: AdminClient, wants_json: bool) -> None:
    """List the latest revision of each service.

    \b
    Examples:
      perdure services list
      perdure services list --json
    """
    answer = admin.get("services", field="services")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    if not answer["services"]:
        click.echo("There are none yet. Register a deployment with: perdure deployments register URL")
        return
    rows = [
        (
            service["name"],
            service["ty"],
            service["revision"],
            service["public"],
            service["deployment_id"],
            ", ".join(sorted(handler["name"] for handler in service["handlers"])),
        )
        for service in sorted(answer["services"], key=lambda service: str(service["name"]))
    ]
    click.echo(tables.table(("SERVICE", "TYPE", "REVISION", "PUBLIC", "DEPLOYMENT", "HANDLERS"), rows))


@services.command()
@click.argument("name")
@admin_option
@json_option
def describe(name: str, admin: AdminClient, wants_json: bool) -> None:
    """Show one service: its handlers, timeouts, retries, and how long results are kept.

    \b
    Example:
      perdure services describe Greeter
    """
    answer = admin.get("services", name, field="handlers")
    if wants_json:
        click.echo(tables.as_json(answer))
        return
    pairs = [
        ("Service", answer["name"]),
        ("Type", answer["ty"]),
        ("Revision", answer["revision"]),
        ("Public", answer["public"]),
        ("Deployment", answer["deployment_id"]),
        ("Inactivity timeout", answer.get("inactivity_timeout")),
        ("Abort timeout", answer.get("abort_timeout")),
        ("Journal kept for", answer.get("journal_retention")),
        ("Idempotent results kept for", answer.get("idempotency_retention")),
        ("Workflow results kept for", answer.get("workflow_completion_retention")),
        ("Retries", _retries(answer.get("retry_policy") or {})),
        ("Documentation", answer.get("documentation")),
    ]
    rows = [
        (
            handler["name"],
            handler.get("ty"),
            handler.get("public"),
            handler.get("input_description"),
            handler.get("output_description"),
        )
        for handler in sorted(answer["handlers"], key=lambda handler: str(handler["name"]))
    ]
    handlers = tables.table(("HANDLER", "TYPE", "PUBLIC", "INPUT", "OUTPUT"), rows)
    click.echo(f"{tables.details(pairs)}\n\n{handlers}")


def _retries(policy: dict[str, object]) -> str | None:
    """A retry policy as a phrase; None where the server says nothing about it."""
    if "initial_interval" not in policy:
        return None
    attempts = policy.get("max_attempts")
    ending = (
        "without end" if attempts is None else f"{attempts} attempts, then {str(policy.get('on_max_attempts')).lower()}"
    )
    return (
        f"after {policy['initial_interval']}, each wait {policy.get('exponentiation_factor')} times longer,"
        f" at most {policy.get('max_interval')}; {ending}"
    )
