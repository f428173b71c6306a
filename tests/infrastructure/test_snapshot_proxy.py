"""The nginx in front of Prometheus passes snapshots, and nothing else of the Admin API."""

import re
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import yaml

from devtools.fetch_prometheus import PrometheusBinaries
from devtools.nginx import Nginx
from devtools.processes import LOOPBACK
from devtools.prometheus import PrometheusServer
from tests.support.pages import ROOT
from tests.support.runs import cli, settings

FOLDER = ROOT / "infrastructure" / "kubernetes" / "prometheus" / "snapshot-proxy"
DELETE = "/api/v1/admin/tsdb/delete_series"
CLEAN = "/api/v1/admin/tsdb/clean_tombstones"
SNAPSHOT = "/api/v1/admin/tsdb/snapshot"
QUERY = "match[]=%7B__name__=~%22.%2B%22%7D"

PATHS = [
    DELETE,
    CLEAN,
    f"{DELETE}/",
    f"{CLEAN}//",
    f"/{DELETE}",
    "/api//v1/admin/tsdb/delete_series",
    "/api/v1//admin//tsdb//delete_series",
    "/api/v1/./admin/tsdb/delete_series",
    "/api/v1/query/../admin/tsdb/delete_series",
    "/api/v1/query/%2e%2e/admin/tsdb/delete_series",
    "/api/v1/query%2f..%2fadmin/tsdb/delete_series",
    f"{SNAPSHOT}/../delete_series",
    f"{SNAPSHOT}%2f..%2fdelete_series",
    f"{SNAPSHOT}/%2e%2e/delete_series",
    f"{SNAPSHOT}/..;/delete_series",
    f"{SNAPSHOT}%23/../delete_series",
    f"{SNAPSHOT}%3f/../delete_series",
    f"{SNAPSHOT}%00/../delete_series",
    "/api/v1/admin/tsdb/%64elete_series",
    "/api/v1/%61dmin/tsdb/delete_series",
    "/api/v1/%61%64%6d%69%6e/tsdb/delete_series",
    "/%61pi/v1/admin/tsdb/delete_series",
    "/api%2fv1%2fadmin%2ftsdb%2fdelete_series",
    "/api/v1/admin%2Ftsdb%2Fdelete_series",
    "/api/v1/admin/tsdb%2Fclean_tombstones",
    "/api/v1/admin/tsdb/%2564elete_series",
    "/api/v1/admin%252ftsdb%252fdelete_series",
    "/API/V1/ADMIN/TSDB/DELETE_SERIES",
    "/api/v1/Admin/tsdb/delete_series",
    "/api/v1/admin\\tsdb\\delete_series",
    f"{DELETE}%20",
    f"{DELETE}%00",
    f"{DELETE};a=b",
    f"{SNAPSHOT}/",
    f"{SNAPSHOT}//",
    f"{SNAPSHOT}/x",
    "/api/v1/admin",
    "/api/v1/admin/",
    "/api/v1/admin/tsdb/new_in_a_later_version",
    f"http://prometheus{DELETE}",
    "http://prometheus//api/v1/admin/tsdb/%64elete_series",
]


@dataclass(frozen=True)
class Proxied:
    """A Prometheus with the Admin API, and the proxy in front of it."""

    prometheus: PrometheusServer
    proxy: Nginx

    def send(self, method: str, target: str, *, port: int, more: str = "") -> int:
        """Send a request exactly as it is; return the status, 0 without one."""
        text = f"{method} {target} HTTP/1.1\r\nHost: prometheus\r\n{more}Connection: close\r\n\r\n"
        with socket.create_connection((LOOPBACK, port), timeout=60) as connection:
            connection.sendall(text.encode())
            answer = b""
            while data := connection.recv(65536):
                answer += data
        found = re.match(rb"HTTP/1\.\d (\d{3})", answer)
        return int(found[1]) if found else 0

    @property
    def calls(self) -> dict[str, float]:
        """How often Prometheus handled each path of the Admin API."""
        text = self.prometheus.metrics()
        return {
            path: float(count)
            for path, count in re.findall(
                r'prometheus_http_requests_total\{code="\d+",handler="([^"]*/admin/[^"]*)"\} (\S+)',
                text,
            )
            if float(count)
        }


@pytest.fixture(scope="module")
def proxied(
    prometheus_3: PrometheusBinaries, tmp_path_factory: pytest.TempPathFactory, tsdb_blocks: Path
) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("proxied")
    shutil.copytree(tsdb_blocks, folder / "data")
    with PrometheusServer(prometheus_3, folder / "data") as prometheus:
        prometheus.fill_head()
        replaced = {
            "127.0.0.1:9091": prometheus.url.removeprefix("http://"),
            "/tmp/": f"{folder}/",  # noqa: S108 -- a text of the configuration
        }
        text = (FOLDER / "nginx.conf").read_text()
        with Nginx(text, folder / "nginx", listen="9090", replaced=replaced) as proxy:
            yield Proxied(prometheus, proxy)


@pytest.mark.parametrize("method", ["POST", "PUT", "GET", "DELETE"])
def test_no_spelling_of_another_admin_call_reaches_prometheus(
    proxied: Proxied, method: str
) -> None:
    before = proxied.calls
    for path in PATHS:
        status = proxied.send(method, f"{path}?{QUERY}", port=proxied.proxy.port)
        assert status >= 300 or not status, path
    assert proxied.calls == before
    assert proxied.prometheus.query("count(devtools_head)")


def test_the_same_requests_without_the_proxy_do_delete(proxied: Proxied) -> None:
    port = int(proxied.prometheus.url.rpartition(":")[2])
    for path in (DELETE, "/api/v1/%61dmin/tsdb/%64elete_series", CLEAN):
        assert proxied.send("POST", f"{path}?match[]=nothing", port=port) == 204, path


def test_a_request_hidden_in_the_body_of_another_stays_a_body(proxied: Proxied) -> None:
    before = proxied.calls
    hidden = f"POST {CLEAN} HTTP/1.1\r\nHost: prometheus\r\nContent-Length: 0\r\n\r\n"
    chunked = "Transfer-Encoding: chunked\r\n"
    for more in (
        f"Content-Length: {len(hidden)}\r\n\r\n{hidden}",
        f"Content-Length: 4\r\n{chunked}\r\n0\r\n\r\n{hidden}",
        f"{chunked}Content-Length: 0\r\n\r\n0\r\n\r\n{hidden}",
    ):
        proxied.send("POST", "/api/v1/query?query=1", port=proxied.proxy.port, more=more)
    assert proxied.calls == before


def test_only_a_post_takes_a_snapshot(proxied: Proxied) -> None:
    for method in ("GET", "PUT", "DELETE"):
        assert proxied.send(method, SNAPSHOT, port=proxied.proxy.port) == 403, method
    assert not list((proxied.prometheus.data_dir / "snapshots").glob("*"))


def test_backups_and_queries_work_through_the_proxy(proxied: Proxied, tmp_path: Path) -> None:
    variables = settings(proxied.prometheus, tmp_path / "repository")
    variables["PROMETHEUS_URL"] = proxied.proxy.url
    done = cli("backup", env=variables)
    assert done.returncode == 0, done.stderr
    answers = [
        httpx.get(f"{url}/api/v1/query", params={"query": 'up{job=~"a|%2F/.."}'}, trust_env=False)
        for url in (proxied.proxy.url, proxied.prometheus.url)
    ]
    assert answers[0].json() == answers[1].json()


def test_the_network_policy_admits_the_backup_to_the_port_of_the_proxy() -> None:
    policy = yaml.safe_load((FOLDER / "networkpolicy.yaml").read_text())
    (rule,) = policy["spec"]["ingress"]
    listens = re.search(r"listen (\d+);", (FOLDER / "nginx.conf").read_text())
    assert listens is not None
    assert rule["ports"] == [{"protocol": "TCP", "port": int(listens[1])}]
    labels = [peer["podSelector"]["matchLabels"] for peer in rule["from"]]
    assert {"app": "prometheus-backup"} in labels
    assert policy["spec"]["policyTypes"] == ["Ingress"]
