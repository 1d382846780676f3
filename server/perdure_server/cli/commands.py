"""○ adapter · The command group `perdure` (click); each subcommand is in the file of its name."""

from __future__ import annotations

import click

from perdure_server.cli.deployments import deployments
from perdure_server.cli.invocations import invocations
from perdure_server.cli.partitions import partitions
from perdure_server.cli.promises import promises
from perdure_server.cli.server import server
from perdure_server.cli.services import services
from perdure_server.cli.sql import sql
from perdure_server.cli.state import state


@click.group(
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Each command has a --help of its own, with an example.",
)
@click.version_option(package_name="perdure", message="perdure %(version)s")
def perdure() -> None:
    """Perdure runs ordinary handlers durably: once accepted, a call ends exactly once.

    \b
    A first session, in two terminals:
      perdure server                                        start a server, and leave it running
      perdure deployments register http://localhost:9080    tell it where your handlers are served
      perdure services list                                 see what can be called
      curl localhost:8080/Greeter/greet --json '"Ada"'      call a handler
      perdure invocations list                              see what ran
    """


perdure.add_command(server)
perdure.add_command(deployments)
perdure.add_command(partitions)
perdure.add_command(services)
perdure.add_command(invocations)
perdure.add_command(state)
perdure.add_command(promises)
perdure.add_command(sql)
