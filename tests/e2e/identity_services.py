"""A service that only answers who signs with one of the keys it knows (official Python SDK)."""

from __future__ import annotations

import os

import restate

greeter = restate.Service("Greeter")


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


app = restate.app([greeter], identity_keys=os.environ["IDENTITY_KEYS"].split(","))
