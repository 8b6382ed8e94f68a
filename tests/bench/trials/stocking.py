"""The records of a group of jobs are stored, and then its jobs run, each in a process of its own."""

import asyncio
import json
import sys
from dataclasses import asdict, replace
from itertools import groupby, islice
from operator import itemgetter

from app.installation import Installation, open_installation
from app.jobs.catalogue import load_catalogue
from tests.bench.cases import GROUPS
from tests.bench.trials.house import Terms

_AT_ONCE = 1000


async def run(terms: Terms) -> dict[str, float]:
    """Measure every job of group ``group`` at ``scale`` of its full size; names begin with the case's number."""
    async with open_installation(terms.settings(), load_catalogue()) as house:
        await _store(house, terms)
    measured: dict[str, float] = {}
    for number in range(len(GROUPS[terms.group].cases)):
        found = await _measure(replace(terms, jobs=number))
        measured |= {f"{number} {name}": value for name, value in found.items()}
    return measured


async def _store(house: Installation, terms: Terms) -> None:
    for kind, stored in groupby(GROUPS[terms.group].store(terms.scale), key=itemgetter(0)):
        records = (record for _, record in stored)
        while some := list(islice(records, _AT_ONCE)):
            await house.records.upsert(kind, some)


async def _measure(terms: Terms) -> dict[str, float]:
    command = [sys.executable, "-m", "tests.bench.trials", "sized", json.dumps(asdict(terms))]
    child = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await child.communicate()
    if child.returncode:
        raise RuntimeError(f"case {terms.jobs} of {terms.group} left with {child.returncode}")
    found: dict[str, float] = json.loads(out.splitlines()[-1])
    return found
