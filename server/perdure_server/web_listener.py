"""○ adapter · An aiohttp application that listens: what the admin API and the node port have in common."""

from __future__ import annotations

from aiohttp import web


class WebListener:
    """Binds an application to one address, and lets go of it again."""

    def __init__(self, application: web.Application, stop_grace_s: float) -> None:
        self._runner = web.AppRunner(application, access_log=None, handle_signals=False, shutdown_timeout=stop_grace_s)

    async def start(self, host: str, port: int) -> int:
        """Listen; the answer is the port that was bound (for port 0, one that was free). OSError if it is taken."""
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, host, port).start()
        except BaseException:
            await self._runner.cleanup()
            raise
        bound: int = self._runner.addresses[0][1]
        return bound

    async def stop(self) -> None:
        """Finish what is under way, for a moment, and close; doing it again does nothing."""
        await self._runner.cleanup()
