"""Asking an OpenAI-compatible service for a decomposition. Whatever goes wrong, the templates do instead.

The service is the operator's own choice, and may well be on this machine; so its address is not guarded as those
that users give are. What it sends is as little trusted as theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson
from pydantic import ValidationError

from app.jobs.ffe_planning import Planner, PlanSource
from app.records.ffe_goals import FfeGoal
from app.settings import Settings
from workers.context import Context
from workers.families.ffe.decomposition import PARTS, PRIOR_MINUTES, Leaf, find_flaws
from workers.families.ffe.proposal import Proposal, leaves_of_proposal, response_format, stretched

MAX_BODY = 1 << 20  # bytes of an answer
PAUSES_S = (1.0, 4.0)  # between requests; there is one more of these than pauses
MAX_PAUSE_S = 30.0  # that a Retry-After may ask for

_WORTH_ANOTHER = (408, 429, 500, 502, 503, 504)
_MAX_REASON = 500

_TASK = """You break a goal down into blocks of work, each of which one person finishes in one sitting of 15 to 90 \
minutes. Give each block a done criterion that somebody else could check, and name the blocks that must be done \
before it. Blocks never wait for each other in a circle. Answer with JSON of the given schema alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came of asking; without leaves the templates have to do."""

    leaves: Sequence[Leaf] | None
    told: Planner


class _NoProposal(Exception):
    """The service gave nothing to plan with; says why, without the address, the token or what it sent."""

    def __init__(self, reason: str, *, retry_after_s: float | None = None, is_passing: bool = False) -> None:
        super().__init__(reason)
        self.is_passing = is_passing  # whether it may be better the next time
        self.retry_after_s = retry_after_s


async def ask_planner(ctx: Context, goal: FfeGoal, *, factor: float) -> Answer:
    """Return a sound decomposition by the service that is set, or why there is none.

    Its blocks are stretched by the user's ``factor``, as those of templates are. A proposal is kept as the job's
    checkpoint, so that the next attempt plans the same.
    """
    settings = ctx.installation.settings
    if not settings.planner_url:
        told = Planner(source=PlanSource.TEMPLATE, model=None, requests=0, fallback_reason=None)
        return Answer(leaves=None, told=told)
    question = _Question(ctx, settings)
    leaves, reason = None, None
    try:
        leaves = _sound(await question.ask(goal), factor)
    except _NoProposal as error:
        reason = "".join(sign if sign.isprintable() else " " for sign in str(error))[:_MAX_REASON]
        ctx.log.warning("planner_gave_nothing", reason=reason, requests=question.requests)
    told = Planner(
        source=PlanSource.TEMPLATE if leaves is None else PlanSource.MODEL,
        model=settings.planner_model,
        requests=question.requests,
        fallback_reason=reason,
    )
    return Answer(leaves=leaves, told=told)


class _Question:
    """One question to the service, put to it up to three times."""

    def __init__(self, ctx: Context, settings: Settings) -> None:
        self.requests = 0
        self._ctx = ctx
        self._settings = settings

    async def ask(self, goal: FfeGoal) -> Proposal:
        """Return what the service proposes; raise _NoProposal when nothing of the right shape came."""
        if isinstance(self._ctx.restored, dict) and "proposal" in self._ctx.restored:
            return Proposal.model_validate(self._ctx.restored["proposal"])
        await self._ctx.progress(10, "asking the planner for blocks", stage="decompose")
        proposal = _proposal_in(await self._answer(orjson.dumps(_body(self._settings.planner_model, goal))))
        await self._ctx.checkpoint({"proposal": proposal.model_dump()})
        return proposal

    async def _answer(self, body: bytes) -> bytes:
        timeout = aiohttp.ClientTimeout(total=self._settings.planner_timeout_s)
        async with aiohttp.ClientSession(timeout=timeout, trust_env=False, auto_decompress=False) as session:
            for pause_s in PAUSES_S:
                try:
                    return await self._request(session, body)
                except _NoProposal as error:
                    if not error.is_passing:
                        raise
                    await self._ctx.sleep(min(error.retry_after_s or pause_s, MAX_PAUSE_S))
            return await self._request(session, body)

    async def _request(self, session: aiohttp.ClientSession, body: bytes) -> bytes:
        self.requests += 1
        url = f"{self._settings.planner_url}/chat/completions"
        headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
        if self._settings.planner_api_key is not None:
            headers["Authorization"] = f"Bearer {self._settings.planner_api_key.get_secret_value()}"
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                if response.status != 200:
                    raise _refusal(response)
                return await _read(response)
        except TimeoutError as error:
            limit_s = self._settings.planner_timeout_s
            raise _NoProposal(f"no answer within {limit_s:g} s", is_passing=True) from error
        except aiohttp.ClientError as error:  # its words may hold the address
            raise _NoProposal(f"no connection: {type(error).__name__}", is_passing=True) from error


def _refusal(response: aiohttp.ClientResponse) -> _NoProposal:
    after = response.headers.get("Retry-After", "")
    return _NoProposal(
        f"the planner answered {response.status}",
        retry_after_s=float(after) if after.isascii() and after.isdigit() else None,
        is_passing=response.status in _WORTH_ANOTHER,
    )


async def _read(response: aiohttp.ClientResponse) -> bytes:
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise _NoProposal("the answer is compressed, which was not asked for")
    content = bytearray()
    async for chunk in response.content.iter_any():
        content += chunk
        if len(content) > MAX_BODY:
            raise _NoProposal(f"the answer is larger than {MAX_BODY} bytes")
    return bytes(content)


def _body(model: str, goal: FfeGoal) -> Mapping[str, Any]:
    hours = PRIOR_MINUTES[goal.complexity] // 60
    asked = f"Goal: {goal.description}\nAbout {hours} hours of work in {PARTS[goal.complexity]} parts."
    return {
        "model": model,
        "messages": [{"role": "system", "content": _TASK}, {"role": "user", "content": asked}],
        "response_format": response_format(),
        "temperature": 0,
        "seed": 1,
    }


def _proposal_in(content: bytes) -> Proposal:
    try:
        answer = orjson.loads(content)
        text = answer["choices"][0]["message"]["content"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise _NoProposal("the answer is not one of the protocol") from error
    if not isinstance(text, str):
        raise _NoProposal("the answer holds no text")
    try:
        return Proposal.model_validate_json(text)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors()[:3])
        raise _NoProposal(f"the proposal has not the shape that was asked for: {faults}") from error


def _sound(proposal: Proposal, factor: float) -> list[Leaf]:
    """Return the leaves of a proposal as long as they take this user; what is unsound before or after is refused."""
    leaves = leaves_of_proposal(proposal)
    flaws = find_flaws(leaves)
    if not flaws:
        leaves = stretched(leaves, factor)
        flaws = find_flaws(leaves)
    if flaws:
        raise _NoProposal(f"the proposal cannot be planned: {' '.join(flaws)}")
    return leaves
