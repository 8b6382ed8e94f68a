"""Requests made up from the service's own OpenAPI document, and answers held against it."""

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import requests
import schemathesis
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
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


@dataclass(frozen=True, kw_only=True)
class Fuzzer:
    """Sends made-up requests as the holder of a key."""

    url: str
    key: str
    seed: int
    session: requests.Session
    found: Findings = field(default_factory=Findings)

    def try_operation(self, operation: Any, mode: GenerationMode, count: int) -> None:
        """Send ``count`` requests that fit an operation, or that do not."""

        @hypothesis.seed(self.seed)
        @hypothesis.settings(
            max_examples=count,
            database=None,
            deadline=None,
            phases=[hypothesis.Phase.generate],
            suppress_health_check=list(hypothesis.HealthCheck),
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def ask(case: Any) -> None:
            self._ask(case, f"{operation.label} {mode.value}")

        with suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong with what takes nothing
            ask()

    def _ask(self, case: Any, label: str) -> None:
        headers = {"Authorization": f"Bearer {self.key}"}
        response = case.call(session=self.session, base_url=self.url, headers=headers, timeout=60)
        self.found.cases += 1
        self.found.statuses[response.status_code] += 1
        try:
            case.validate_response(response, checks=CHECKS)
        except FailureGroup as failure:
            self.found.wrong.setdefault(label, f"{label}: {failure} {failure.exceptions}")


def fuzz(url: str, key: str, *, cases: int, seed: int) -> Findings:
    """Send ``cases`` made-up requests to each operation as the holder of ``key``, good ones and bad ones."""
    document = requests.get(f"{url}/api/openapi.json", headers={"Authorization": f"Bearer {key}"}, timeout=60).json()
    for operations in document["paths"].values():
        for operation in operations.values():
            operation.pop("security", None)  # or half of the bad requests would have nothing wrong but the key
    schema: Any = schemathesis.openapi.from_dict(document)
    with requests.Session() as session:
        fuzzer = Fuzzer(url=url, key=key, seed=seed, session=session)
        for result in schema.get_all_operations():
            operation = result.ok()
            fuzzer.try_operation(operation, GenerationMode.POSITIVE, cases - cases // 2)
            if cases > 1:
                fuzzer.try_operation(operation, GenerationMode.NEGATIVE, cases // 2)
    return fuzzer.found
