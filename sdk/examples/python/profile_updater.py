"""A service that changes several systems, one after the other.

Each change is a `ctx.run`: once it has succeeded its result is recorded, and when a later one fails, or this
program or the server dies, the handler goes on after the last one recorded instead of starting over.
"""

from typing import TypedDict

import systems
from restate import Context, Service, TerminalError

profile_updater = Service("ProfileUpdater")


class Profile(TypedDict):
    user: str
    email: str


@profile_updater.handler()
async def update(ctx: Context, profile: Profile) -> dict[str, str]:
    if "@" not in profile["email"]:
        # A TerminalError is an answer: it goes to the caller and is not retried.
        raise TerminalError(f"not an e-mail address: {profile['email']}", status_code=400)

    # Any other error is retried. If billing is down, the CRM is not written a second time.
    receipts = {}
    for system in ("crm", "billing", "newsletter"):
        receipts[system] = await ctx.run_typed(
            f"update {system}", lambda system=system: systems.write(system, profile["user"], profile["email"])
        )
    return receipts
