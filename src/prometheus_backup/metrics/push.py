"""Push metrics to a Pushgateway, and ping a health check URL, both with a timeout.

The URLs may contain secrets, such as a password or check id, so messages never include them.
"""

import ssl
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from prometheus_client import push_to_gateway, pushadd_to_gateway

from prometheus_backup.metrics.exposition import Collected
from prometheus_backup.metrics.families import COMMAND, REPOSITORY, Sample
from prometheus_backup.model import printable
from prometheus_backup.prometheus.http_failures import request_failure
from prometheus_backup.prometheus.limited_http import LimitedClient

JOB = "prometheus-backup"
_TIMEOUT = 5.0
"""Seconds for each step of a request: a pod has 30 seconds in total to stop."""
_DEADLINE = 10.0
"""Seconds for a whole request."""
_MAX_BYTES = 1 << 20
_MAX_RESPONSE_TEXT = 300
_PUSHGATEWAY_ERRORS = ("pushed metrics are invalid", "text format parsing error")
"""How the answers begin that are shown. Other servers may repeat the URL, which may be secret."""


def push(url: str, run: Sequence[Sample], state: Sequence[Sample] | None) -> None:
    """Send the samples of a run, and of the repository unless None. Raises OSError.

    In the Pushgateway, each command has a group, and so has the repository. A run is added to its
    group (POST), which replaces only metrics of the same name: a failed run has no time of the last
    success, so the old one stays. The repository's group is replaced (PUT), so that metrics that no
    longer apply are deleted.
    """
    group = {REPOSITORY: run[0].labels[REPOSITORY]}
    run_group = {**group, COMMAND: run[0].labels[COMMAND]}
    pushadd_to_gateway(url, JOB, Collected(run), run_group, _TIMEOUT, _send)
    if state is not None:
        push_to_gateway(url, JOB, Collected(state), group, _TIMEOUT, _send)


def ready(url: str) -> None:
    """Check that a Pushgateway is ready. Raises OSError if it is not, or is not a Pushgateway."""
    _request("GET", f"{url.rstrip('/')}/-/ready", proxies=False)


def ping(url: str, *, failure: str | None) -> None:
    """Ping a health check URL: on success the URL itself, on failure `/fail` with the cause.

    Raises OSError if the ping fails.
    """
    # Use the environment's proxies: the service is usually on the internet.
    if failure is None:
        _request("GET", url, proxies=True)
        return
    address, question, query = url.partition("?")
    address = f"{address.rstrip('/')}/fail{question}{query}"
    _request("POST", address, proxies=True, content=failure.encode())


def _send(
    *, url: str, method: str, timeout: float, headers: Sequence[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    """Return a sender function, as prometheus-client expects it."""
    del timeout

    def send() -> None:
        # No proxy: a Pushgateway is on the internal network, like Prometheus.
        _request(method, url, proxies=False, content=data, headers=dict(headers))

    return send


def _request(method: str, url: str, *, proxies: bool, **content: Any) -> None:
    try:
        # Loading certificates takes longer than a request: only for TLS.
        verify = url.startswith("https:") and ssl.create_default_context()
        with LimitedClient(verify=verify, trust_env=proxies, timeout=_TIMEOUT) as client:
            answer = client.request(method, url, seconds=_DEADLINE, max_bytes=_MAX_BYTES, **content)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise OSError(request_failure(error).cause) from None
    if not answer.is_success:
        reason = " ".join(answer.text[:_MAX_RESPONSE_TEXT].split())
        shown = f": {printable(reason)}" if reason.startswith(_PUSHGATEWAY_ERRORS) else ""
        raise OSError(f"it answered {answer.status_code}{shown}")
