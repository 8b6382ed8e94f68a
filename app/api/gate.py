"""What one API process takes in at a time: bodies, connections. Beyond that it refuses, before it grows."""

from aiohttp import web

from app.errors import Overloaded

_LEAST = 64 * 1024  # bytes that a request takes whatever its body; so submits in flight are bounded, too


class BodyGate:
    """Room for the bodies of requests that are being worked on. One instance a process."""

    def __init__(self, room: int) -> None:
        self._free = room  # bytes

    def admit(self, size: int) -> int:
        """Take room for a body of at most ``size`` bytes; return how much to let go of once it was worked on.

        Raise Overloaded when there is none.
        """
        size = max(size, _LEAST)
        if size > self._free:
            raise Overloaded
        self._free -= size
        return size

    def let_go(self, size: int) -> None:
        """Give room back."""
        self._free += size


class BoundedRunner(web.AppRunner):
    """Serves an application on no more than so many connections; one more is reset at once."""

    def __init__(self, app: web.Application, *, most_connections: int, **options: object) -> None:
        super().__init__(app, **options)  # type: ignore[arg-type]  # aiohttp passes them on
        self._most_connections = most_connections

    async def setup(self) -> None:
        """Get ready to serve."""
        await super().setup()
        server = self.server
        assert server is not None  # noqa: S101  # setup has made it
        admit = server.connection_made

        def connection_made(handler: web.RequestHandler, transport: object) -> None:
            admit(handler, transport)  # type: ignore[arg-type]  # whatever it is, it is passed on
            if len(server.connections) > self._most_connections:
                transport.abort()  # type: ignore[attr-defined]  # a transport of a socket

        server.connection_made = connection_made  # type: ignore[method-assign]  # aiohttp has no option for it
