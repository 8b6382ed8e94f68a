"""Requests that may be repeated: with an Idempotency-Key, a submit is done once and answered as often as it comes.

Key, answer and rows are committed in one transaction; what is refused leaves no trace, so that the same key
may bring the corrected body.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple

from aiohttp import web

from app.api.endpoint import Call, room_for
from app.api.webhooks import with_webhooks
from app.clock import utc_now
from app.errors import BadRequest, IdempotencyKeyReused, RequestRepeated
from app.history.receipts import Receipt, read_receipt
from app.history.rows import NewJob
from app.orders import Order

KEY = "Idempotency-Key"
REPLAYED = "Idempotency-Replayed"

_MAX_KEY = 255


Judge = Callable[[Call, bytes], Awaitable[Sequence[Order]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Intake:
    """One route that submits: what a body asks for, and what is answered once that is committed."""

    judge: Judge
    answer: Callable[[Call, Sequence[NewJob], Sequence[Order]], bytes]  # JSON; may set the headers of the call
    status: int


class Submit(NamedTuple):
    """One request that submits: its body, and how its route takes it."""

    raw: bytes
    intake: Intake


class Repeats:
    """The requests with a key that this process is answering. One instance a process."""

    def __init__(self) -> None:
        self._in_flight: set[tuple[str, str]] = set()

    async def once(self, call: Call, submit: Submit) -> web.Response:
        """Do a submit, once for its key, and answer it.

        Raise IdempotencyKeyReused for another request under the same key, RequestRepeated while the first is
        being answered in this process. One in another process is waited for by the database.
        """
        key = _key_of(call)
        if key is None:
            orders = await _judged(call, submit)
            async with room_for(call, len(orders)):
                accepted = await call.installation.lifecycle.submit(orders)
            return _answer(call, submit.intake.answer(call, accepted, orders), submit.intake.status)
        place = (call.caller.user_id, key)
        if place in self._in_flight:
            raise RequestRepeated
        self._in_flight.add(place)
        try:
            return await _once(call, submit, key)
        finally:
            self._in_flight.discard(place)


async def _once(call: Call, submit: Submit, key: str) -> web.Response:
    fingerprint = _fingerprint(call, submit.raw)
    if (known := await _known(call, key)) is not None:
        return _replay(known, fingerprint)
    orders = await _judged(call, submit)
    body = b""

    def receipt(accepted: Sequence[NewJob]) -> Receipt:
        nonlocal body
        body = submit.intake.answer(call, accepted, orders)
        return Receipt(
            owner=call.caller.user_id,
            key=key,
            fingerprint=fingerprint,
            status=submit.intake.status,
            location=call.headers.get("Location"),
            body=body.decode(),
            created_at=utc_now(),
        )

    try:
        async with room_for(call, len(orders)):
            await call.installation.lifecycle.submit(orders, receipt=receipt)
    except RequestRepeated:
        if (known := await _known(call, key)) is None:
            raise
        return _replay(known, fingerprint)
    return _answer(call, body, submit.intake.status)


def _answer(call: Call, body: bytes, status: int) -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **call.headers})


async def _judged(call: Call, submit: Submit) -> Sequence[Order]:
    """Return the orders, and note those that only an administrator may give."""
    orders = await submit.intake.judge(call, submit.raw)
    if any(order.webhook for order in orders):
        orders = await with_webhooks(call, orders)
    if call.caller.is_admin:
        call.powers.extend(order.job_type.kind for order in orders if order.job_type.is_admin_only)
    return orders


async def _known(call: Call, key: str) -> Receipt | None:
    return await read_receipt(call.installation.database, call.caller.user_id, key, now=utc_now())


def _key_of(call: Call) -> str | None:
    headers = call.request.headers
    if KEY not in headers:
        return None
    (key, *others) = headers.getall(KEY)
    if others or not 1 <= len(key) <= _MAX_KEY or not key.isprintable():
        raise BadRequest(f"Send one {KEY} of 1 to {_MAX_KEY} printable characters.")
    return key


def _fingerprint(call: Call, raw: bytes) -> str:
    """Tell requests apart by what they are sent to and their bytes; both prefixes are the same place."""
    path = call.request.path.replace("/api/v1/", "/api/", 1).rstrip("/")
    return sha256(b"\n".join([call.request.method.encode(), path.encode(), raw])).hexdigest()


def _replay(receipt: Receipt, fingerprint: str) -> web.Response:
    if receipt.fingerprint != fingerprint:
        raise IdempotencyKeyReused
    headers = {REPLAYED: "true"} | ({"Location": receipt.location} if receipt.location else {})
    return web.Response(
        body=receipt.body.encode(), status=receipt.status, content_type="application/json", headers=headers
    )
