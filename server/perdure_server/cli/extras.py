"""◐ shell · What to say when the server's dependencies are not there: the base install is for writing handlers."""

from __future__ import annotations

import sys
from typing import NoReturn

INSTALL_COMMAND = "pip install 'perdure[server]'"

_OWN_PACKAGES = ("perdure", "perdure_processor", "perdure_server")


def exit_for_missing_extra(error: ModuleNotFoundError) -> NoReturn:
    """Exit 1 with the command that installs what is missing; raise again when the missing module is ours."""
    package = (error.name or "").partition(".")[0]
    if not package or package in _OWN_PACKAGES:
        raise error
    sys.stderr.write(
        f"The command `perdure` needs the package '{package}', which is not installed.\n"
        f"Install the server and its command line with:\n\n    {INSTALL_COMMAND}\n"
    )
    sys.exit(1)
