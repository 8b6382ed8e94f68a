"""The switch of a queue: while it is paused nothing is taken from it, and everything in it is kept."""

from collections.abc import Iterator

from app.api.endpoint import Access, Call, Endpoint, endpoint
from app.api.operations import Queue, show_queues
from app.api.redis import asking_redis
from app.clock import utc_now
from app.errors import NotFound
from app.history.pauses import Pause, add_pause, end_pause
from app.jobs.catalogue import QUEUE_ALIASES
from app.live.events import queue_event
from app.log import get_log
from app.queue.connect import OUTAGES

log = get_log()


def queue_endpoints() -> Iterator[Endpoint]:
    """Yield the routes of single queues, for administrators."""
    yield endpoint("POST", "/queues/{queue}/pause", pause_queue, access=Access.ADMIN)
    yield endpoint("POST", "/queues/{queue}/resume", resume_queue, access=Access.ADMIN)


async def pause_queue(call: Call) -> Queue:
    """Take nothing from a queue until it is resumed; what runs goes on, and submits are still accepted."""
    return await _turn(call, is_paused=True)


async def resume_queue(call: Call) -> Queue:
    """Let a paused queue go on, in the order in which its tasks have waited."""
    return await _turn(call, is_paused=False)


async def _turn(call: Call, *, is_paused: bool) -> Queue:
    name, installation = _find(call), call.installation
    async with asking_redis():
        await installation.redis.ping()  # what the answer shows comes from there: refuse before anything is changed
    if is_paused:
        pause = Pause(queue=name, paused_at=utc_now(), paused_by=call.caller.user_id)
        is_news = await add_pause(installation.database, pause)
    else:
        is_news = await end_pause(installation.database, name)
    try:
        await installation.queue.pause(name, is_paused=is_paused)
    except OUTAGES as error:  # the sweep tells it later
        log.warning("pause_not_told", queue=name, reason=str(error))
    if is_news:
        log.info("queue_paused" if is_paused else "queue_resumed", queue=name, by=call.caller.user_id)
        installation.outbox.post(queue_event("queue.paused" if is_paused else "queue.resumed", name))
    return next(queue for queue in (await show_queues(call)).queues if queue.name == name)


def _find(call: Call) -> str:
    asked, known = call.request.match_info["queue"], call.installation.catalogue.queues
    name = QUEUE_ALIASES.get(asked, asked)
    if name not in known:
        raise NotFound(f"There is no queue {asked!r}: not found. Known are: {', '.join(known)}.")
    return name
