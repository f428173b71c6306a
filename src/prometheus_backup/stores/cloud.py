"""Google Cloud Storage and Azure Blob Storage, through obstore alone.

Credentials come from the environment variables of the clouds' own tools: application default
credentials, service account files and workload identity on GCS; account key, SAS, client secret and
workload or managed identity on Azure.
"""

from typing import Any

from obstore.exceptions import BaseError
from obstore.store import AzureStore, GCSStore

from prometheus_backup.errors import UsageError
from prometheus_backup.stores.failures import without_urls
from prometheus_backup.stores.objectstore import ObstoreStore, Patience


def open_cloud(scheme: str, container: str, prefix: str, *, hurried: bool = False) -> ObstoreStore:
    """Open `gs://container/prefix` or `az://...`. Raises UsageError for wrong settings."""
    url = f"{scheme}://{container}/{prefix}".rstrip("/")
    kind = {"gs": GCSStore, "az": AzureStore}[scheme]

    def connect(patience: Patience) -> Any:
        try:
            return kind(
                container,
                prefix=prefix or None,
                client_options=patience.client,
                retry_config=patience.retry,
            )
        except (BaseError, ValueError) as error:
            cause = without_urls(str(error).partition("\n\nDebug")[0])
            raise UsageError(
                f"cannot open {url}: {cause}",
                hint="set the credentials as for the cloud's own tools (docs/stores.md)",
            ) from None

    return ObstoreStore(connect=connect, url=url, hurried=hurried)
