"""Calls to addresses that somebody outside has named: webhooks, connectors. Nothing else may make such calls.

The guard looks at the very socket address that is about to be connected to, whatever the name, its spelling or a
second answer of the DNS would have it be. Redirects are not followed, proxies of the environment not used.
"""

import re
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

import aiohttp
from aiohttp.abc import AbstractResolver
from aiohttp.client_exceptions import ClientConnectorError, ClientError
from aiohttp.resolver import ThreadedResolver
from yarl import URL

from app.errors import Misconfigured, ServiceError
from app.settings import Settings

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
AddrInfo = tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]]

MAX_URL = 2048
MAX_ANSWER = 16 * 1024  # bytes of an answer that are read
TIMEOUT_S = 15.0  # for the whole call
_CONNECT_S = 5.0

# What is not the public internet, by the special-purpose registries of IANA; multicast and class E with it.
_INSIDE_4 = [
    ip_network(text)
    for text in (
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16"),
        *("192.175.48.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
    )
]
# Of IPv6 only global unicast is outside: what maps or embeds IPv4 (::ffff:0:0/96, ::/96, 64:ff9b::/96) is not in it.
_OUTSIDE_6 = ip_network("2000::/3")
_INSIDE_6 = [
    ip_network(text)
    for text in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")  # Teredo, 6to4 …
]
_INNER_NAMES = (".localhost", ".localdomain", ".local", ".internal", ".lan", ".home.arpa")
_NUMBER = re.compile(r"(0x[0-9a-f]*|[0-9]+)", re.IGNORECASE)  # as the last label: inet_aton's spellings of IPv4
_NAME = re.compile(r"(?=.{1,253}\Z)([a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.?")


class OutboundRefused(ServiceError):
    """This address may not be called."""

    code = "outbound_refused"
    status = 422


class OutboundFailed(ServiceError):
    """The call came to nothing."""

    code = "outbound_failed"


class _Inside(OSError):
    """Refuses a socket; one text for all of them, so that aiohttp hands on the first."""

    def __init__(self) -> None:
        super().__init__("not an address of the public internet")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutboundAnswer:
    """What came back: the status, the headers in lower case, and the first bytes of the body."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Outbound:
    """Makes calls within the rules of an installation. Holds nothing open between them."""

    def __init__(
        self,
        *,
        allow: Iterable[str] = (),
        ports: Iterable[int] = (),
        allows_http: bool = False,
        timeout_s: float = TIMEOUT_S,
        resolver: AbstractResolver | None = None,
    ) -> None:
        self._networks, self._hosts = _read_allowed(allow)
        self._ports = frozenset(ports)
        self._default_ports = {"https": 443, "http": 80} if allows_http else {"https": 443}
        self._timeout_s = timeout_s
        self._resolver = resolver

    def check(self, text: str) -> URL:
        """Return a URL as it would be called; raise OutboundRefused for one that never may be.

        Names are looked up only by the call itself.
        """
        if len(text) > MAX_URL or not text.isascii() or not text.isprintable() or set(text) & set(' \\"<>^`{|}'):
            raise OutboundRefused(f"A URL is up to {MAX_URL:,} printable ASCII characters; write names in punycode.")
        try:
            url = URL(text)
            host, port = (url.raw_host or "").lower(), url.port
        except ValueError as error:
            raise OutboundRefused("This is not a URL.") from error
        if url.scheme not in self._default_ports:
            raise OutboundRefused(f"The URL starts with {' or '.join(f'{name}://' for name in self._default_ports)}.")
        if "@" in url.raw_authority:
            raise OutboundRefused("A URL to be called carries no user and no password.")
        if "#" in text:
            raise OutboundRefused("A URL to be called has no fragment (#).")
        if not self._is_allowed_literally(host):
            self._check_host(host)
            self._check_port(url.scheme, port)
        return url

    async def post(self, text: str, body: bytes, headers: Mapping[str, str]) -> OutboundAnswer:
        """Send a POST; raise OutboundRefused for an address inside, OutboundFailed when no answer comes.

        The answer's body is cut at 16 KiB, and a redirect is an answer like any other.
        """
        url = self.check(text)
        try:
            async with (
                self._session(url) as session,
                session.post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                read = await _read(response.content)
                return OutboundAnswer(
                    status=response.status,
                    headers={name.lower(): value for name, value in response.headers.items()},
                    body=read,
                )
        except ClientConnectorError as error:
            if isinstance(error.os_error, _Inside):
                raise OutboundRefused("The host is not on the public internet, where alone this may call.") from error
            raise OutboundFailed("No connection could be made.") from error
        except TimeoutError as error:
            raise OutboundFailed(f"There was no whole answer within {self._timeout_s:g} seconds.") from error
        except (ClientError, ValueError) as error:  # its text may repeat what the other side sent
            raise OutboundFailed(f"The call broke off: {type(error).__name__}.") from error

    def _session(self, url: URL) -> aiohttp.ClientSession:
        """Open what makes one call: no connection, cookie or lookup is kept for another."""
        is_trusted = (url.raw_host or "").lower().rstrip(".") in self._hosts

        def open_socket(info: AddrInfo) -> socket.socket:
            family, kind, protocol, _, address = info
            if not is_trusted and not self._is_outside(str(address[0])):
                raise _Inside
            return socket.socket(family, kind, protocol)

        connector = aiohttp.TCPConnector(
            resolver=self._resolver or ThreadedResolver(),
            socket_factory=open_socket,
            use_dns_cache=False,
            force_close=True,
        )
        return aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=_CONNECT_S),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # a bomb stays small
            trust_env=False,
        )

    def _is_outside(self, text: str) -> bool:
        address = _address(text)
        return address is not None and (any(address in net for net in self._networks) or is_public(address))

    def _is_allowed_literally(self, host: str) -> bool:
        address = _address(host)
        return host.rstrip(".") in self._hosts or (
            address is not None and any(address in net for net in self._networks)
        )

    def _check_host(self, host: str) -> None:
        address = _address(host)
        if address is not None:
            if not is_public(address):
                raise OutboundRefused("The host is not on the public internet, where alone this may call.")
        elif not _NAME.fullmatch(host):
            raise OutboundRefused("The URL names no host that could be called.")
        elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]):
            raise OutboundRefused("Write an IPv4 address as four decimal numbers without leading zeros.")
        elif "." not in host.rstrip(".") or host.rstrip(".").endswith(_INNER_NAMES):
            raise OutboundRefused("The host is a name of an inner network; the operator may allow it.")

    def _check_port(self, scheme: str, port: int | None) -> None:
        ports = self._ports or frozenset(self._default_ports.values())
        if port not in ports:
            known = ", ".join(map(str, sorted(ports)))
            raise OutboundRefused(f"A {scheme} URL may name the ports {known}; the operator may allow others.")


def open_outbound(settings: Settings) -> Outbound:
    """Return the guard that the settings describe; raise Misconfigured for a rule that makes no sense."""
    return Outbound(allow=settings.outbound_allow, ports=settings.outbound_ports, allows_http=settings.outbound_http)


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet, by what is registered of it and nothing that it embeds."""
    if isinstance(address, IPv4Address):
        return not any(address in net for net in _INSIDE_4)
    return address in _OUTSIDE_6 and not any(address in net for net in _INSIDE_6)


async def _read(content: aiohttp.StreamReader) -> bytes:
    chunks, size = [], 0
    async for chunk in content.iter_any():
        chunks.append(chunk)
        size += len(chunk)
        if size >= MAX_ANSWER:
            break
    return b"".join(chunks)[:MAX_ANSWER]


def _address(host: str) -> Address | None:
    try:
        return ip_address(host.partition("%")[0])
    except ValueError:
        return None


def _read_allowed(allow: Iterable[str]) -> tuple[list[Network], frozenset[str]]:
    networks: list[Network] = []
    hosts: set[str] = set()
    for entry in allow:
        try:
            networks.append(ip_network(entry))
        except ValueError as error:
            host = entry.lower().rstrip(".")
            if "/" in entry or not _NAME.fullmatch(host):
                raise Misconfigured(f"OUTBOUND_ALLOW takes networks and names of hosts, not {entry!r}.") from error
            hosts.add(host)
    return networks, frozenset(hosts)
