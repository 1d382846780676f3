"""○ adapter · `python -m perdure_server` is the command `perdure`."""

from __future__ import annotations

from perdure_server.cli import main

if __name__ == "__main__":
    main()
