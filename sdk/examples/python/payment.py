"""A workflow: a payment that charges once, and then waits for the word of the bank, however long that takes.

A workflow runs once per key. While `run` waits, nothing of it need be in memory anywhere; the other handlers see its
state and complete its promises.
"""

from datetime import timedelta
from typing import TypedDict

import systems
from restate import RunOptions, TerminalError, Workflow, WorkflowContext, WorkflowSharedContext

payment = Workflow("Payment")

# A bank that cannot be reached is asked again for an hour; then the payment fails.
PATIENTLY = RunOptions[str](
    initial_retry_interval=timedelta(milliseconds=100),
    retry_interval_factor=2,
    max_retry_interval=timedelta(seconds=10),
    max_duration=timedelta(hours=1),
)


class Order(TypedDict):
    account: str
    amount: int


class Result(TypedDict):
    outcome: str
    receipt: str


@payment.main()
async def run(ctx: WorkflowContext, order: Order) -> Result:
    """The whole payment, from the order to the message to the customer."""
    if order["amount"] <= 0:
        raise TerminalError(f"not an amount: {order['amount']}", status_code=400)

    # The key goes along: a bank recognises by it a charge that is repeated because its answer was lost.
    ctx.set("status", "charging")
    receipt = await ctx.run_typed("charge", lambda: systems.write("bank", ctx.key(), str(order["amount"])), PATIENTLY)

    ctx.set("status", "waiting for the bank")
    outcome = await ctx.promise("outcome", type_hint=str).value()

    await ctx.run_typed("notify", lambda: systems.write("mail", order["account"], f"{ctx.key()}:{outcome}"))
    ctx.set("status", outcome)
    return {"outcome": outcome, "receipt": receipt}


@payment.handler()
async def webhook(ctx: WorkflowSharedContext, outcome: str) -> None:
    """The bank calls this, minutes or days later. A second call is refused: a promise has one completion."""
    await ctx.promise("outcome", type_hint=str).resolve(outcome)


@payment.handler()
async def status(ctx: WorkflowSharedContext) -> str:
    return await ctx.get("status", type_hint=str) or "unknown"
