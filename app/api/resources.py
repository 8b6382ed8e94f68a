"""What every request can reach: the keys under which the composition root keeps the process's resources."""

from aiohttp import web

from app.api.auth import Keyring
from app.api.hub import Hub
from app.api.throughput import Throughput
from app.installation import Installation
from app.metrics import ProcessMetrics

INSTALLATION = web.AppKey("installation", Installation)
KEYRING = web.AppKey("keyring", Keyring)
HUB = web.AppKey("hub", Hub)
THROUGHPUT = web.AppKey("throughput", Throughput)
METRICS = web.AppKey("metrics", ProcessMetrics)

REQUEST_ID = web.RequestKey("request_id", str)


def request_id_of(request: web.BaseRequest) -> str:
    """Return the id under which a request is logged and answered; empty before it has one."""
    return request.get(REQUEST_ID, "")
