"""`perdure promises purge`: what is asked of the server, and its refusals in its own words."""

from __future__ import annotations

from .conftest import Admin


def test_the_promises_of_a_key_are_dropped(admin: Admin) -> None:
    admin.answer("DELETE /services/Order/promises/a%2Fb", b"", 202)
    result = admin.run("promises", "purge", "Order", "a/b")
    assert (result.exit_code, result.output) == (0, "Dropped the promises of Order/a/b.\n")


def test_a_workflow_that_has_run_keeps_them(admin: Admin) -> None:
    words = "The workflow 'Order/1' has run: its promises go with its result."
    admin.answer("DELETE /services/Order/promises/1", {"message": words, "restate_code": None}, 409)
    result = admin.run("promises", "purge", "Order", "1")
    assert (result.exit_code, result.output) == (1, f"Error: {words}\n")
