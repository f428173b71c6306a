"""How to reach S3, and what it says about a bucket: credentials, proxies, region, rules."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from prometheus_backup.errors import RepositoryDenied, UsageError
from prometheus_backup.stores.failures import no_credentials

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

# boto3 refreshes credentials ten minutes before they expire, so check more often than that.
_TTL = timedelta(minutes=5)


def credential_provider(session: "Session") -> Any:
    """Return obstore's source of credentials. Raises RepositoryDenied if there are none."""
    from obstore.auth.boto3 import Boto3CredentialProvider

    try:
        found = session.get_credentials()
    except Exception as error:  # botocore's own classes, and others for wrong variables
        raise no_credentials("", str(error)) from error
    if found is None:
        raise RepositoryDenied(
            "cannot get AWS credentials: there are none",
            hint="set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or AWS_PROFILE, or give the pod "
            "or instance a role",
        )
    return Boto3CredentialProvider(session, ttl=_TTL)


def region_of(client: "S3Client", bucket: str) -> str | None:
    """Return the region of a bucket, also of one that denies access; None if that is unknown."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        about: Any = client.head_bucket(Bucket=bucket)["ResponseMetadata"]
    except ClientError as error:
        about = error.response["ResponseMetadata"]
    except BotoCoreError:
        return None
    region: str | None = about["HTTPHeaders"].get("x-amz-bucket-region")
    return region


def lifecycle_rules(client: "S3Client", bucket: str) -> Sequence[Mapping[str, Any]]:
    """Return the lifecycle rules of a bucket as S3 gives them. Raises boto3's errors."""
    from botocore.exceptions import ClientError

    try:
        rules: Any = client.get_bucket_lifecycle_configuration(Bucket=bucket).get("Rules", [])
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchLifecycleConfiguration":
            raise
        return []
    return list(rules)


def proxy_setting(endpoint: str | None) -> dict[str, Any]:
    """Return boto3's setting to use no proxy, if NO_PROXY has a network of this endpoint.

    obstore reads networks such as 10.0.0.0/8 in NO_PROXY, and Python's libraries do not.
    """
    try:
        address = ip_address(urlsplit(endpoint or "").hostname or "")
    except ValueError:
        return {}
    excluded = getproxies().get("no", "").split(",")
    return {"proxies": {}} if any(_holds(network, address) for network in excluded) else {}


def _holds(network: str, address: IPv4Address | IPv6Address) -> bool:
    try:
        return address in ip_network(network.strip(), strict=False)
    except ValueError:
        return False


def is_remote(endpoint: str | None) -> bool:
    """Return whether bytes leave this machine.

    TLS protects them on the network. Over plain HTTP every payload is signed instead, so that the
    store rejects changed bytes. On loopback neither is needed.
    """
    host = urlsplit(endpoint or "").hostname or ""
    return host != "localhost" and not host.startswith("127.") and host != "::1"


def trusted_certificates(path: str | None) -> dict[str, bytes]:
    """Return obstore's setting for a PEM file of CA certificates."""
    if path is None:
        return {}
    try:
        certificates = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"cannot read the CA bundle {path}: {error.strerror}") from None
    if b"-----BEGIN CERTIFICATE-----" not in certificates:
        raise UsageError(f"cannot read the CA bundle: {path} contains no PEM certificate")
    return {"root_certificate": certificates}
