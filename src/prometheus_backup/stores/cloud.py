"""Google Cloud Storage and Azure Blob Storage, by obstore alone.

Credentials as their users expect: application default credentials, service account files and
workload identity on GCS; account key, SAS, client secret and workload or managed identity on Azure,
by the environment variables of those clouds' own tools.
"""

from typing import TYPE_CHECKING, Any

from obstore.store import AzureStore, GCSStore

from prometheus_backup.errors import UsageError
from prometheus_backup.stores.objectstore import CLIENT, IMPATIENT, PATIENT, ObstoreStore

if TYPE_CHECKING:
    from obstore.store import RetryConfig

    from prometheus_backup.stores.location import Location


def open_cloud(location: "Location") -> ObstoreStore:
    """Open a `gs://` or `az://` location. Raises UsageError where its settings are wrong."""
    patient, impatient = (_backend(location, retry) for retry in (PATIENT, IMPATIENT))
    return ObstoreStore(patient=patient, impatient=impatient, url=str(location))


def _backend(location: "Location", retry: "RetryConfig") -> Any:
    from obstore.exceptions import BaseError

    kind = GCSStore if location.scheme == "gs" else AzureStore
    try:
        return kind(
            location.bucket,
            prefix=location.path or None,
            client_options=CLIENT,
            retry_config=retry,
        )
    except (BaseError, ValueError) as error:
        cause = " ".join(str(error).partition("\n\nDebug")[0].split())
        raise UsageError(
            f"cannot open {location}: {cause}",
            hint="set the credentials as for the cloud's own tools (docs/stores.md)",
        ) from None
