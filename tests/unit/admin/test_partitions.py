"""GET /partitions and POST /partitions/{p}/skip: what an operator sees and does of a stopped partition."""

from __future__ import annotations

import asyncio

from support.admin import running_admin


def test_a_stopped_partition_is_shown_and_goes_on_without_its_record() -> None:
    async def scenario() -> None:
        async with running_admin() as admin:
            listed = await admin.json("GET", "/partitions")
            assert listed == {"partitions": [{"id": 3, "position": 17, "stopped_at": 17}]}
            assert await admin.json("POST", "/partitions/3/skip", {"offset": 17}) == {"id": 3, "position": 17}
            assert await admin.json("GET", "/v4/partitions") == {"partitions": [{"id": 3, "position": 17}]}

    asyncio.run(scenario())


def test_what_cannot_be_skipped_is_refused_with_the_reason() -> None:
    async def scenario() -> None:
        async with running_admin() as admin:
            other = await admin.json("POST", "/partitions/3/skip", {"offset": 16}, status=409)
            assert other["message"] == "partition 3 was stopped by the record at offset 17"
            for unknown in ("4", "three"):
                missing = await admin.json("POST", f"/partitions/{unknown}/skip", {"offset": 17}, status=404)
                assert missing["message"] == f"The requested partition '{unknown}' does not exist"
            status, text = await admin.text("POST", "/partitions/3/skip", b'{"offset": -1}')
            assert status == 422
            assert "offset" in text

    asyncio.run(scenario())
