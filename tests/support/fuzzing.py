"""Requests made up from the service's own OpenAPI document, and answers held against it."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.openapi.checks import UnsupportedMethodResponse  # noqa: F401  # registers the checks of the format
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Findings:
    """What a run of made-up requests brought."""

    cases: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    wrong: dict[str, str] = field(default_factory=dict)  # the first failure of each operation


def fuzz(url: str, key: str, *, cases: int, seed: int) -> Findings:
    """Send ``cases`` made-up requests to each operation as the holder of ``key``; good ones and bad ones."""
    found = Findings()
    headers = {"Authorization": f"Bearer {key}"}
    schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json", headers=headers)
    with requests.Session() as session:
        for operation in operations_of(schema):
            for mode, count in ((GenerationMode.POSITIVE, cases - cases // 2), (GenerationMode.NEGATIVE, cases // 2)):
                _try(operation, mode, count, seed, session, url, headers, found)
    return found


def operations_of(schema: Any) -> Iterator[Any]:
    """Yield every operation that the document describes."""
    for result in schema.get_all_operations():
        yield result.ok()


def _try(operation: Any, mode: Any, count: int, seed: int, session: Any, url: str, headers: dict[str, str], found: Findings) -> None:
    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
    def ask(case: Any) -> None:
        response = case.call(session=session, base_url=url, headers=headers)
        found.cases += 1
        found.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except (FailureGroup, AssertionError) as failure:
            label = f"{operation.label} {mode.value}"
            found.wrong.setdefault(label, f"{failure}\n{getattr(failure, 'exceptions', '')}\n{case.as_curl_command()}")

    try:
        ask()
    except hypothesis.errors.Unsatisfiable:
        pass  # nothing can be wrong with what takes nothing
