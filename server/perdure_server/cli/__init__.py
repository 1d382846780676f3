"""○ adapter · The command `perdure`; says what to install where only `pip install perdure` was done."""

from __future__ import annotations

from perdure_server.cli.extras import exit_for_missing_extra


def main() -> None:
    """Entry point of the console script. Never returns normally: the exit code says how it went."""
    try:
        # Imported here, not above: without the extra there is no click, and the answer must be a sentence.
        from perdure_server.cli.commands import perdure
    except ModuleNotFoundError as error:
        exit_for_missing_extra(error)
    perdure(prog_name="perdure")
