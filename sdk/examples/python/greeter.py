"""A virtual object: one greeter per name, which remembers how often it greeted."""

from restate import ObjectContext, ObjectSharedContext, VirtualObject

greeter = VirtualObject("Greeter")


@greeter.handler()
async def greet(ctx: ObjectContext, greeting: str) -> str:
    """One call per key at a time: nothing is read that another call is about to change."""
    count = (await ctx.get("count", type_hint=int) or 0) + 1
    ctx.set("count", count)
    return f"{greeting}, {ctx.key()}! That makes {count}."


@greeter.handler(kind="shared")
async def count(ctx: ObjectSharedContext) -> int:
    """Shared handlers only read, and run beside anything else."""
    return await ctx.get("count", type_hint=int) or 0
