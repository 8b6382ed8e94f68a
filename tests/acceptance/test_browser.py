"""The pages in a real browser: they show what they should under their own policy, and ask nobody else."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from yarl import URL

from app.settings import Settings
from tests.support.api import ADA_KEY, ApiUnderTest, running_api
from tests.support.chromium import Page, open_page
from tests.support.credentials import PASSWORD, add_user
from tests.support.waiting import eventually

pytestmark = pytest.mark.timeout(240)  # a limit, not an expectation

SHOWN = "document.querySelectorAll('.opblock').length"
NOTE = "[...document.querySelectorAll('.opblock-post')].find((block) => block.querySelector("
NOTE += "'.opblock-summary-path').textContent.replaceAll('\\u200b', '') === '/api/tasks/test/note')"


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[ApiUnderTest]:
    async with running_api(settings) as running:
        yield running


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    async with open_page(tmp_path / "browser") as opened:
        yield opened


async def operations_of(api: ApiUnderTest) -> int:
    document = (await api.ask("GET", "/api/openapi.json")).json
    return sum(len(operations) for operations in document["paths"].values())


async def ask_in(page: Page, path: str, **options: Any) -> Any:
    """Ask as a script of the page does; return the status and the body."""
    ask = f"fetch({orjson.dumps(path).decode()}, {orjson.dumps(options).decode()})"
    return await page.run(f"{ask}.then(async (answer) => [answer.status, await answer.json()])")


async def assert_kept_to_itself(page: Page, api: ApiUnderTest) -> None:
    """The page met its own policy, and asked nobody but us."""
    assert await page.run("violations") == []
    assert not [complaint for complaint in page.complaints if "Content Security Policy" in complaint]
    own = {url for url in page.asked if URL(url).scheme not in {"data", "blob", "about"}}
    assert {URL(url).origin() for url in own} == {api.client._base_url}


async def test_the_documentation_is_shown_with_every_operation_and_a_task_is_submitted_from_it(
    api: ApiUnderTest, page: Page
) -> None:
    expected = await operations_of(api)
    await page.open(f"{api.client._base_url}/api/docs")
    await eventually(lambda: page.run("!document.getElementById('ask').hidden"), 30)
    await page.run(f"document.getElementById('token').value = '{ADA_KEY}'")
    await page.run("document.querySelector('#ask button').click()")
    shown = await eventually(lambda: page.run(f"{SHOWN} >= {expected} && {SHOWN}"), 60)

    await page.run(f"{NOTE}.querySelector('.opblock-summary-control').click()")
    for button in (".try-out__btn", ".execute"):
        found = f"{NOTE}.querySelector('{button}')"
        await eventually(lambda: page.run(f"!!{found}"), 30)  # noqa: B023  # it is awaited at once
        await page.run(f"{found}.click()")
    status = f"{NOTE}.querySelector('.live-responses-table .response .response-col_status')?.textContent"
    answered = await eventually(lambda: page.run(status), 30)

    assert shown == expected
    assert answered.startswith("202")
    (task,) = (await api.ask("GET", "/api/tasks", key=ADA_KEY)).json["tasks"]
    assert task["task_name"] == "test.note"
    await assert_kept_to_itself(page, api)


async def test_a_login_leaves_a_cookie_with_which_the_page_reads_and_with_its_token_writes(
    api: ApiUnderTest, page: Page
) -> None:
    await add_user(api, "eve")
    await page.open(f"{api.client._base_url}/api/docs")
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    body = f"username=eve&password={PASSWORD.replace(' ', '+')}&session=true"

    status, answer = await ask_in(page, "/api/auth/login", method="POST", headers=form, body=body)
    seen_by_scripts = await page.run("document.cookie")
    token = {"Content-Type": "application/json", "X-CSRF-Token": answer["csrf_token"]}
    note = {"method": "POST", "body": '{"parameters":{}}'}
    without, _ = await ask_in(page, "/api/tasks/test/note", **note, headers={"Content-Type": "application/json"})
    with_token, task = await ask_in(page, "/api/tasks/test/note", **note, headers=token)
    shown, document = await ask_in(page, "/api/openapi.json")

    assert (status, seen_by_scripts, without, with_token) == (200, "", 403, 202)
    assert task["user_id"] == "eve"
    assert (shown, document["openapi"]) == (200, "3.1.0"), "the page shows the document without asking for a key"
    await assert_kept_to_itself(page, api)
