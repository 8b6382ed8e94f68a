"""From the interactions of one user to debts: every statement is looked at once. Pure; meant for a thread."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from app.jobs.edm import DebtSeverity, DebtType, FactCheckStatus, Span
from app.records.edm_debts import EdmDebt
from app.records.interactions import Interaction
from workers.families.edm.checks import Checks, Repeated
from workers.families.edm.memory import Memory
from workers.families.edm.minilm import Vectors
from workers.families.edm.rules import SEVERITIES, Fault, find_faults
from workers.families.edm.sentences import Passage, split_sentences
from workers.families.edm.words import normalised

_NAMESPACE = UUID("6d0f2b1e-6f5c-5a0e-9a55-7b1f6a0c4e21")  # of debt ids; never changes
_MAX_CLAIM = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """A sentence that claims something, and where it stands."""

    interaction: Interaction
    part: str
    passage: Passage


def state(interactions: Sequence[Interaction]) -> list[Statement]:
    """Return what some interactions state, in their order."""
    return [one for interaction in interactions for one in statements_of(interaction)]


def texts_to_check(statements: Sequence[Statement]) -> list[str]:
    """Return the texts of those statements that were not looked through."""
    return [one.passage.text for one in statements if one.interaction.scanned_at is None]


def find_debts(
    statements: Sequence[Statement], memory: Memory, checks: Checks, vectors: Vectors | None = None
) -> list[EdmDebt]:
    """Return the debts of those statements that were not looked through, each id once.

    ``statements`` are one user's, oldest first; all of them go into ``memory``. ``vectors`` are those of
    :func:`texts_to_check`.
    """
    fresh = [one for one in statements if one.interaction.scanned_at is None]
    repeated = dict(zip(map(id, fresh), checks.find(texts_to_check(statements), vectors), strict=True))
    found: list[EdmDebt] = []
    for statement in statements:
        if statement.interaction.scanned_at is None:
            found += _debts(statement, memory, repeated[id(statement)])
        memory.remember(statement.passage.text, statement.interaction.interaction_id)
    return _without_doubles(found)


def statements_of(interaction: Interaction) -> Iterable[Statement]:
    """Yield what an interaction states: first in the prompt, then in the response."""
    for part, text in (("prompt", interaction.prompt), ("response", interaction.response)):
        for passage in split_sentences(text):
            if passage.is_statement:
                yield Statement(interaction=interaction, part=part, passage=passage)


def debt_id(user_id: str, claim: str, debt_type: DebtType) -> str:
    """Return the id that the same claim of the same user always has, however it is spelt."""
    return str(uuid5(_NAMESPACE, f"{user_id}\n{normalised(claim)}\n{debt_type}"))


def _debts(statement: Statement, memory: Memory, repeated: Repeated | None) -> Iterable[EdmDebt]:
    faults = list(find_faults(statement.passage.text, statement.interaction.timestamp))
    if before := memory.find_contradicted(statement.passage.text):
        evidence = f"Contradicts “{before.text[:300]}” of interaction {before.interaction_id}."
        faults.append(Fault(debt_type=DebtType.CONTRADICTION, evidence=evidence))
    is_false = repeated is not None and repeated.is_rated_false
    if is_false and not faults:
        faults.append(Fault(debt_type=DebtType.FACT_CHECK_MATCH, evidence="Lacks nothing else."))
    for fault in faults:
        yield _debt(statement, fault, repeated, is_critical=is_false)


def _debt(statement: Statement, fault: Fault, repeated: Repeated | None, *, is_critical: bool) -> EdmDebt:
    interaction, passage = statement.interaction, statement.passage
    return EdmDebt(
        debt_id=debt_id(interaction.user_id, passage.text, fault.debt_type),
        user_id=interaction.user_id,
        timestamp=interaction.timestamp,
        claim=passage.text[:_MAX_CLAIM],
        span=Span(start=passage.start, end=passage.end),
        part=statement.part,
        debt_type=fault.debt_type,
        severity=DebtSeverity.CRITICAL if is_critical else SEVERITIES[fault.debt_type],
        confidence=repeated.score if repeated else None,
        interaction_id=interaction.interaction_id,
        seen_in=(interaction.interaction_id,),
        last_seen_at=interaction.timestamp,
        fact_check_status=repeated.check.status if repeated else FactCheckStatus.PENDING,
        source=repeated.check.id if repeated else None,
        evidence=f"{fault.evidence} {repeated.verdict}" if repeated else fault.evidence,
    )


def _without_doubles(debts: Iterable[EdmDebt]) -> list[EdmDebt]:
    """Join debts of one id: the first one says where, all say how often and how grave."""
    joined: dict[str, EdmDebt] = {}
    for debt in debts:
        first = joined.setdefault(debt.debt_id, debt)
        if first is not debt:
            seen = tuple(dict.fromkeys((*first.seen_in, *debt.seen_in)))
            joined[debt.debt_id] = first.model_copy(update={"seen_in": seen, "last_seen_at": debt.last_seen_at})
    return list(joined.values())
