"""Calls to addresses that somebody has named reach the public internet, and nothing inside."""

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from app.errors import Misconfigured
from app.outbound import MAX_ANSWER, Outbound, OutboundFailed, OutboundRefused, is_public, open_outbound
from app.settings import Settings
from tests.support.listening import Listener, listening

# Every way known to write an address inside; PORT is that of a listener on all of loopback.
HOSTILE_HOSTS = """
127.0.0.1 127.0.0.2 127.1.2.3 127.255.255.254 127.1 127.0.1 0 0.0.0.0 0.0 1 0.0.0.1
2130706433 017700000001 0x7f000001 0x7F.0x0.0x0.0x1 0177.0.0.1 0177.0.0.01 127.0.0.0x1 0x7f.1 127.0x1 00127.0.0.1
2130706433. 127.0.0.1. 0x7f000001. 017700000001.
10.0.0.1 10.255.255.255 172.16.0.1 172.31.255.255 192.168.0.1 192.168.1 100.64.0.1 100.127.255.254 169.254.169.254
169.254.0.1 0xa9fea9fe 2852039166 192.0.0.1 192.0.0.192 192.0.2.1 198.18.0.1 198.51.100.7 203.0.113.9 192.88.99.1
224.0.0.1 239.255.255.255 240.0.0.1 255.255.255.255
[::] [::1] [0:0:0:0:0:0:0:1] [::0001] [::127.0.0.1] [::7f00:1] [::ffff:127.0.0.1] [::ffff:7f00:1] [::ffff:0:127.0.0.1]
[0:0:0:0:0:ffff:127.0.0.1] [64:ff9b::127.0.0.1] [64:ff9b::7f00:1] [64:ff9b:1::7f00:1] [2002:7f00:1::]
[2002:7f00:1::1] [2001:0:7f00:1::1] [2001:db8::1] [fc00::1] [fd00:ec2::254] [fe80::1] [fe80::1%25lo] [fec0::1] [ff02::1]
[100::1] [3fff::1] [2001:10::1] [5f00::1]
localhost localhost. LOCALHOST foo.localhost foo.localhost. localhost.localdomain ip6-localhost printer.local
metadata.google.internal router
"""

HOSTILE_URLS = """
http://127。0。0。1:PORT/
http://127．0．0．1:PORT/
http://①②⑦.⓪.⓪.①:PORT/
http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:PORT/
http://example.com@127.0.0.1:PORT/
http://example.com:443@127.0.0.1:PORT/
http://user:password@example.com/
http://@127.0.0.1:PORT/
http://127.0.0.1:PORT#@example.com/
http://127.0.0.1:PORT?@example.com/
http://example.com\\@127.0.0.1:PORT/
http://127.0.0.1\\.example.com:PORT/
http:\\\\127.0.0.1:PORT\\
http:///127.0.0.1:PORT/
http:127.0.0.1:PORT
//127.0.0.1:PORT/
127.0.0.1:PORT
HTTP://127.0.0.1:PORT/
http://127.0.0.1%2eexample.com:PORT/
http://127%2e0%2e0%2e1:PORT/
http://%31%32%37.0.0.1:PORT/
http://%6cocalhost:PORT/
http://localhost%00.example.com:PORT/
http://[::1:PORT/
http://[127.0.0.1]:PORT/
http://127.0.0.1:PORT:80/
http://127.0.0.1:+PORT/
http://127.0.0.1:99999/
http://.127.0.0.1:PORT/
http://127..0.0.1:PORT/
http://-:PORT/
http://:PORT/
ftp://127.0.0.1:PORT/
file:///etc/passwd
gopher://127.0.0.1:PORT/_x
redis://127.0.0.1:PORT/0
unix:///run/docker.sock
ws://127.0.0.1:PORT/
javascript:alert(1)
data:text/plain,x
http://example.com:22/
http://example.com/#part
"""

WITH_BLANKS = [
    "http://127.0.0.1:PORT /",
    " http://127.0.0.1:PORT/",
    "http://127.0.0.1:PORT\t/",
    "http://127.0.0.1\r\n:PORT/",
]

HOSTILE = [f"http://{host}:PORT/" for host in HOSTILE_HOSTS.split()] + HOSTILE_URLS.split() + WITH_BLANKS

# What a name may be answered with.
INSIDE = """
127.0.0.1 127.9.9.9 0.0.0.0 10.1.2.3 100.64.0.1 169.254.169.254 172.20.0.1 192.168.7.7 198.18.0.1 224.0.0.1 240.0.0.1
::1 :: ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::1 2002:7f00:1:: 2001:0:7f00::1
fc00::1 fd12::1 fe80::1 ff02::1 2001:db8::1
"""


class Answers(AbstractResolver):
    """A DNS of the attacker's: one set of addresses after the other, the last for ever."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers = list(answers)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        return [
            ResolveResult(
                hostname=host,
                host=address,
                port=port,
                family=socket.AF_INET6 if ":" in address else socket.AF_INET,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
            for address in found
        ]

    async def close(self) -> None:
        """Hold nothing."""


@pytest.fixture
async def listener() -> AsyncIterator[Listener]:
    async with listening() as found:
        yield found


def careless(listener: Listener, **options: Any) -> Outbound:
    """Return a guard that allows plain HTTP and the port of the listener, so that only the address is in the way."""
    return Outbound(ports=[listener.port, 80, 443], allows_http=True, timeout_s=5, **options)


async def test_no_spelling_of_an_address_inside_reaches_it(listener: Listener) -> None:
    guard, through = careless(listener, resolver=Answers(["127.0.0.1"])), []

    for text in HOSTILE:
        try:
            await guard.post(text.replace("PORT", str(listener.port)), b"", {})
        except OutboundRefused:
            continue
        through.append(text)

    assert through == []
    assert listener.connections == 0
    assert len(set(HOSTILE)) >= 100


async def test_the_socket_alone_would_refuse_every_spelling_too(
    listener: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Outbound, "check", lambda _self, text: URL(text))
    guard, through = careless(listener), []

    for text in HOSTILE:
        if text.startswith(("http://", "HTTP://")) and "example.com" not in text.partition("@")[2]:
            try:
                await guard.post(text.replace("PORT", str(listener.port)), b"", {})
            except (OutboundRefused, OutboundFailed, ValueError):  # the last from the parser of URLs
                continue
            through.append(text)

    assert through == []
    assert listener.connections == 0


@pytest.mark.parametrize("address", INSIDE.split())
async def test_a_name_that_is_answered_with_an_address_inside_reaches_nothing(listener: Listener, address: str) -> None:
    guard = careless(listener, resolver=Answers([address]))

    with pytest.raises(OutboundRefused):
        await guard.post(f"http://hooks.example.com:{listener.port}/", b"", {})

    assert listener.connections == 0


async def test_a_name_whose_second_answer_is_inside_reaches_nothing(listener: Listener) -> None:
    resolver = Answers(["127.0.0.1"], ["::1", "127.0.0.1", "10.0.0.1"])
    guard = careless(listener, resolver=resolver, allow=["rebinding.example.org"])
    await asyncio.gather(guard.post(f"http://rebinding.example.org:{listener.port}/", b"", {}), return_exceptions=True)
    assert listener.connections == 1  # the first, which this installation trusts

    with pytest.raises(OutboundRefused):
        await guard.post(f"http://hooks.example.com:{listener.port}/", b"", {})

    assert listener.connections == 1


async def test_a_redirect_to_the_inside_is_an_answer_and_is_not_followed(listener: Listener) -> None:
    async def redirect(_request: web.Request) -> web.Response:
        return web.Response(status=307, headers={"Location": f"http://127.0.0.2:{listener.port}/"})

    async with receiver(redirect) as port:
        answer = await Outbound(allow=["127.0.0.1/32"], allows_http=True).post(f"http://127.0.0.1:{port}/", b"", {})

    assert (answer.status, listener.connections) == (307, 0)


async def test_a_proxy_of_the_environment_is_not_used(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{listener.port}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    guard = careless(listener, allow=["127.0.0.1/32"], resolver=Answers(["127.0.0.3"]))  # the proxy could be reached

    with pytest.raises(OutboundRefused):
        await guard.post("http://hooks.example.com/", b"", {})

    assert listener.connections == 0


async def test_what_the_operator_allows_is_reached_by_name_and_by_network(listener: Listener) -> None:
    by_network = Outbound(allow=["127.0.0.0/8"], allows_http=True)
    by_name = Outbound(allow=["hooks"], allows_http=True, resolver=Answers(["127.0.0.1"]))

    for guard, host in ((by_network, "127.0.0.1"), (by_name, "hooks")):
        with pytest.raises(OutboundFailed):  # the listener hangs up
            await guard.post(f"http://{host}:{listener.port}/", b"", {})

    assert listener.connections == 2


async def test_plain_http_and_other_ports_need_a_setting() -> None:
    guard = Outbound()

    for text in ("http://example.com/", "https://example.com:8443/", "https://example.com:80/"):
        with pytest.raises(OutboundRefused):
            guard.check(text)
    assert guard.check("https://example.com/hook?x=1").host == "example.com"
    assert Outbound(ports=[8443]).check("https://example.com:8443/").port == 8443


async def test_an_answer_that_never_ends_is_cut_and_one_that_trickles_is_given_up() -> None:
    async def flood(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x" * 65536)
        except ConnectionError:
            return response

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        try:
            while True:
                await response.write(b"x")
                await asyncio.sleep(0.02)
        except ConnectionError:
            return response

    async with receiver(flood) as port:
        answer = await Outbound(allow=["127.0.0.1"], allows_http=True).post(f"http://127.0.0.1:{port}/", b"", {})
    assert answer.body == b"x" * MAX_ANSWER

    async with receiver(trickle) as port:
        guard = Outbound(allow=["127.0.0.1"], allows_http=True, timeout_s=0.2)
        with pytest.raises(OutboundFailed, match=r"within 0\.2 seconds"):
            await guard.post(f"http://127.0.0.1:{port}/", b"", {})


@pytest.mark.parametrize("entry", ["10.0.0.0/33", "http://x", "a b", "10.0.0.1/8"])
def test_a_rule_that_makes_no_sense_is_refused(entry: str) -> None:
    with pytest.raises(Misconfigured, match="OUTBOUND_ALLOW"):
        open_outbound(Settings(outbound_allow=(entry,)))


@pytest.mark.parametrize("address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "2a00:1450::1"])
def test_addresses_of_the_public_internet_are_outside(address: str) -> None:
    from ipaddress import ip_address

    assert is_public(ip_address(address))


class receiver:  # noqa: N801  # reads as a block
    """Serve one handler on loopback during the block; gives its port."""

    def __init__(self, handler: Any) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handler)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def __aenter__(self) -> int:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return int(self._runner.addresses[0][1])

    async def __aexit__(self, *_exc: object) -> None:
        await self._runner.cleanup()
