"""The work of ``edm.detect_misinformation``: passages of a user's interactions against the stored fact checks."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from app.jobs import edm
from app.jobs.edm import (
    Alternative,
    DetectMisinformationParams,
    DetectMisinformationResult,
    FactCheckStatus,
    Finding,
    Span,
)
from app.records.interactions import Interaction, InteractionWindow, find_interactions, newest_ids
from workers.context import Context
from workers.families import work
from workers.families.edm.checks import Checks, Repeated, load_checks
from workers.families.edm.matching import HIGH, MEDIUM
from workers.families.edm.minilm import Vectors
from workers.families.edm.sentences import Passage, split_passages

RECENT_DAYS, RECENT = 30, 1000
MAX_HIGH, MAX_MEDIUM = 200, 100

_PAGE = 50
_MAX_TEXT = 500
_DOUBTFUL = (FactCheckStatus.FALSE, FactCheckStatus.DISPUTED)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A passage, and where it stands."""

    interaction_id: str
    part: str
    passage: Passage


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """What some interactions hold."""

    passages: int
    findings: list[Finding]


@work(edm.detect_misinformation)
async def detect_misinformation(ctx: Context, params: DetectMisinformationParams) -> DetectMisinformationResult:
    """Match every passage, and report those that are likely about a checked claim; the index is built once."""
    checks = await load_checks(ctx, percent=10)
    asked = await _asked(ctx, params)
    present: set[str] = set()
    pages: list[Page] = []
    for start in range(0, len(asked), _PAGE):
        found = await find_interactions(ctx.records.database, params.user_id, asked[start : start + _PAGE])
        present |= {one.interaction_id for one in found}
        pages.append(await _look_through(ctx, found, checks))
        done = min(len(asked), start + _PAGE)
        await ctx.progress(10 + 89 * done / len(asked), f"matched {done} of {len(asked)} interactions", stage="match")
    findings = sorted((one for page in pages for one in page.findings), key=_order)
    high = [one for one in findings if one.score >= HIGH]
    medium = [one for one in findings if one.score < HIGH]
    await ctx.progress(100, f"{len(findings)} findings", stage="done")
    return DetectMisinformationResult(
        user_id=params.user_id,
        interactions_scanned=len(present),
        passages_scanned=sum(page.passages for page in pages),
        fact_checks_used=len(checks),
        matcher=checks.matcher,
        potential_misinformation_found=sum(one.is_potential_misinformation for one in findings),
        high_confidence_findings=tuple(high[:MAX_HIGH]),
        medium_confidence_findings=tuple(medium[:MAX_MEDIUM]),
        findings_omitted=max(0, len(high) - MAX_HIGH) + max(0, len(medium) - MAX_MEDIUM),
        missing_ids=tuple(one for one in asked if one not in present),
        detection_timestamp=ctx.now,
    )


async def _asked(ctx: Context, params: DetectMisinformationParams) -> list[str]:
    if params.interaction_ids is not None:
        return list(dict.fromkeys(params.interaction_ids))
    since = ctx.now - timedelta(days=RECENT_DAYS)
    recent = InteractionWindow(user_id=params.user_id, since=since, until=ctx.now)
    return await newest_ids(ctx.records.database, recent, limit=RECENT)


async def _look_through(ctx: Context, interactions: Sequence[Interaction], checks: Checks) -> Page:
    places = await ctx.run_thread(places_in, interactions)
    vectors = await checks.embed(ctx, [place.passage.text for place in places])
    return await ctx.run_thread(find_claims, places, checks, vectors)


def places_in(interactions: Sequence[Interaction]) -> list[Place]:
    """Return the passages of some interactions, in their order."""
    return [
        Place(interaction_id=one.interaction_id, part=part, passage=passage)
        for one in interactions
        for part, text in (("prompt", one.prompt), ("response", one.response))
        for passage in split_passages(text)
    ]


def find_claims(places: Sequence[Place], checks: Checks, vectors: Vectors | None = None) -> Page:
    """Match passages. Of a fact check only the best passage of an interaction is reported."""
    ranks = checks.rank([place.passage.text for place in places], vectors)
    best: dict[tuple[str, str], Finding] = {}
    for place, ranked in zip(places, ranks, strict=True):
        likely = max(ranked, key=lambda match: match.score, default=None)
        if likely is None or likely.score < MEDIUM:
            continue
        finding = _finding(place, likely, ranked)
        known = best.setdefault((place.interaction_id, finding.claim_id), finding)
        if known.score < finding.score:
            best[place.interaction_id, finding.claim_id] = finding
    return Page(passages=len(places), findings=list(best.values()))


def _finding(place: Place, likely: Repeated, ranked: Sequence[Repeated]) -> Finding:
    check, passage = likely.check, place.passage
    others = (Alternative(fact_check_id=one.check.id, score=one.score) for one in ranked if one.check.id != check.id)
    return Finding(
        interaction_id=place.interaction_id,
        part=place.part,
        span=Span(start=passage.start, end=passage.end),
        text=passage.text[:_MAX_TEXT],
        claim_id=check.id,
        claim=check.claim[:_MAX_TEXT],
        score=likely.score,
        rating=check.rating,
        fact_check_status=check.status,
        url=check.url,
        verdict=likely.verdict,
        is_potential_misinformation=check.status in _DOUBTFUL and not likely.denies,
        alternatives=tuple(others),
    )


def _order(finding: Finding) -> tuple[float, str, str]:
    return -finding.score, finding.interaction_id, finding.claim_id
