"""What every request can reach: the keys under which the composition root keeps the process's resources."""

from collections.abc import Mapping

from aiohttp import web

from app.api.auth import Keyring
from app.api.gate import BodyGate
from app.api.hub import Hub
from app.api.links import Links
from app.api.quotas import WaitingQuota
from app.api.rate_limit import RateLimit
from app.api.throttle import LoginThrottle
from app.api.throughput import Throughput
from app.credentials.passwords import Passwords
from app.installation import Installation
from app.metrics import ProcessMetrics
from app.queue.connect import Redis


class Logins:
    """What the login route works with."""

    def __init__(self, redis: Redis) -> None:
        self.passwords = Passwords()
        self.throttle = LoginThrottle(redis)


INSTALLATION = web.AppKey("installation", Installation)
KEYRING = web.AppKey("keyring", Keyring)
LOGINS = web.AppKey("logins", Logins)
HUB = web.AppKey("hub", Hub)
THROUGHPUT = web.AppKey("throughput", Throughput)
LINKS = web.AppKey("links", Links)
METRICS = web.AppKey("metrics", ProcessMetrics)

QUOTA = web.AppKey("quota", WaitingQuota)
BODIES = web.AppKey("bodies", BodyGate)
RATE_LIMIT = web.AppKey("rate_limit", RateLimit)  # not there where the limit is off

REQUEST_ID = web.RequestKey("request_id", str)
RATE = web.RequestKey("rate", Mapping[str, str])  # what the answer's headers say of the caller's rate


def request_id_of(request: web.BaseRequest) -> str:
    """Return the id under which a request is logged and answered; empty before it has one."""
    request_id: str = request.get(REQUEST_ID, "")
    return request_id
