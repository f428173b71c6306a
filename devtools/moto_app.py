"""moto's server, with the permission checks for S3 requests that AWS makes.

Run it with the arguments of `moto_server`. moto itself checks one action on one resource per
request. Like AWS, this also checks:

- bulk deletion: s3:DeleteObject on each key, not on the bucket; forbidden keys are returned as
  errors, and the others are deleted;
- a write with tags: also s3:PutObjectTagging;
- a copy: also s3:GetObject on the source.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from typing import Any
from urllib.parse import unquote

import xmltodict  # type: ignore[import-untyped]
from moto.core.responses import ActionResult
from moto.s3.exceptions import S3AccessDeniedError
from moto.s3.responses import S3Response
from moto.server import main

_authorize_one = S3Response._authenticate_and_authorize_s3_action  # noqa: SLF001 -- there is no hook


def _authorize(response: Any, bucket_name: str | None = None, key_name: str | None = None) -> None:
    """Raise `S3AccessDeniedError` unless every action of the request is allowed."""
    _authorize_one(response, bucket_name, key_name)
    action = response.data.get("Action")
    if action != "PutObject" or key_name is None:
        return
    if response.headers.get("x-amz-tagging"):
        _authorize_action(response, "PutObjectTagging", bucket_name, key_name)
    if source := response.headers.get("x-amz-copy-source"):
        bucket, _, key = unquote(source).lstrip("/").partition("/")
        _authorize_action(response, "GetObject", bucket, key.partition("?versionId=")[0])
    response.data["Action"] = action


def _authorize_action(response: Any, action: str, bucket: str | None, key: str) -> None:
    response.data["Action"] = action
    _authorize_one(response, bucket, key)


def _delete_keys(response: Any, bucket_name: str, authenticated: bool = True) -> Any:
    """Handle a bulk deletion. Replaces moto's method, which only checks `authenticated`."""
    del authenticated
    objects = xmltodict.parse(response.body, strip_whitespace=False, force_list=("Object",))
    allowed, errors = [], []
    for entry in objects["Delete"]["Object"]:
        try:
            _authorize_action(response, "DeleteObject", bucket_name, entry["Key"])
        except S3AccessDeniedError:
            errors.append({"Key": entry["Key"], "Code": "AccessDenied", "Message": "Access Denied"})
        else:
            allowed.append(entry)
    deleted, _ = response.backend.delete_objects(bucket_name, allowed, False)
    response.data["Action"] = "DeleteObjects"
    gone = [{"Key": key, "VersionId": version or None} for key, version, _ in deleted]
    return response.serialized(ActionResult({"Deleted": gone, "Errors": errors}))


if __name__ == "__main__":
    setattr(S3Response, _authorize_one.__name__, _authorize)
    setattr(S3Response, "_bucket_response_delete_keys", _delete_keys)  # noqa: B010 -- no hook
    main()
