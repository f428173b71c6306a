"""Metrics to a Pushgateway, and the ping of a dead man's switch: over HTTP, in bounded time.

The URLs may hold secrets, a password or a check's own id, so no message has them.
"""

import ssl
from collections.abc import Callable, Sequence
from typing import Any

import httpx
from prometheus_client import push_to_gateway, pushadd_to_gateway

from prometheus_backup.metrics.exposition import Collected
from prometheus_backup.metrics.families import COMMAND, REPOSITORY, Sample

JOB = "prometheus-backup"
_TIMEOUT = 5.0
"""Seconds for each step of a request: a pod that is told to stop has thirty for everything."""
_MOST_SAID = 300


def push(url: str, run: Sequence[Sample], state: Sequence[Sample] | None) -> None:
    """Send the samples of a run, and of the repository unless None. Raises OSError.

    Each command's runs are a group of their own in the Pushgateway, and so is the repository. A run
    is added to its group (POST), which replaces metrics of the same name only: a failed run says
    nothing of the last success, so that one stays. The repository's group is replaced (PUT): what
    is no longer so must go.
    """
    group = {REPOSITORY: run[0].labels[REPOSITORY]}
    run_group = {**group, COMMAND: run[0].labels[COMMAND]}
    pushadd_to_gateway(url, JOB, Collected(run), run_group, _TIMEOUT, _send)
    if state is not None:
        push_to_gateway(url, JOB, Collected(state), group, _TIMEOUT, _send)


def ready(url: str) -> None:
    """Ask a Pushgateway whether it is ready. Raises OSError where it is not, or is none."""
    _request("GET", f"{url.rstrip('/')}/-/ready", proxies=False)


def ping(url: str, *, failure: str | None) -> None:
    """Tell a dead man's switch of a success, or at `/fail` of a failure, in words.

    Raises OSError where it was not told.
    """
    # By way of the environment's proxies, if it has any: the switch is out there.
    if failure is None:
        _request("GET", url, proxies=True)
        return
    address, question, query = url.partition("?")
    address = f"{address.rstrip('/')}/fail{question}{query}"
    _request("POST", address, proxies=True, content=failure.encode())


def _send(
    *, url: str, method: str, timeout: float, headers: Sequence[tuple[str, str]], data: bytes
) -> Callable[[], None]:
    """Return what sends, as prometheus-client calls it."""
    del timeout

    def send() -> None:
        # Not by way of a proxy, which is for the way out: a Pushgateway is inside, as Prometheus.
        _request(method, url, proxies=False, content=data, headers=dict(headers))

    return send


def _request(method: str, url: str, *, proxies: bool, **content: Any) -> None:
    try:
        # Loading certificates takes longer than a request: only for TLS.
        verify = url.startswith("https:") and ssl.create_default_context()
        with httpx.Client(verify=verify, trust_env=proxies, timeout=_TIMEOUT) as client:
            answer = client.request(method, url, **content)
    except (httpx.InvalidURL, httpx.UnsupportedProtocol):
        raise OSError("what it is set to is no URL of http or https") from None
    except httpx.HTTPError as error:
        raise OSError(str(error) or type(error).__name__) from None
    if not answer.is_success:
        said = " ".join(answer.text[:_MOST_SAID].split())
        raise OSError(f"it answered {answer.status_code}{f': {said}' if said else ''}")
