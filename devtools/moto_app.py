"""moto's server, with the rights of S3 requests judged by what AWS judges them by.

Run as a program, with the arguments of `moto_server`. Of itself, moto asks for one action on one
resource a request. AWS asks more, and so does this:

- a bulk deletion: s3:DeleteObject on each key, not on the bucket; keys that may not go are errors
  in the answer, and the others go;
- a write with tags: s3:PutObjectTagging as well;
- a copy: s3:GetObject on its source as well.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/using-with-s3-policy-actions.html
"""

from typing import Any
from urllib.parse import unquote

import xmltodict  # type: ignore[import-untyped]
from moto.core.responses import ActionResult
from moto.s3.exceptions import S3AccessDeniedError
from moto.s3.responses import S3Response
from moto.server import main

_judge_one = S3Response._authenticate_and_authorize_s3_action  # noqa: SLF001 -- there is no hook


def _judge(response: Any, bucket_name: str | None = None, key_name: str | None = None) -> None:
    """Raise `S3AccessDeniedError` unless all that the request does is allowed."""
    _judge_one(response, bucket_name, key_name)
    action = response.data.get("Action")
    if action != "PutObject" or key_name is None:
        return
    if response.headers.get("x-amz-tagging"):
        _judge_action(response, "PutObjectTagging", bucket_name, key_name)
    if source := response.headers.get("x-amz-copy-source"):
        bucket, _, key = unquote(source).lstrip("/").partition("/")
        _judge_action(response, "GetObject", bucket, key.partition("?versionId=")[0])
    response.data["Action"] = action


def _judge_action(response: Any, action: str, bucket: str | None, key: str) -> None:
    response.data["Action"] = action
    _judge_one(response, bucket, key)


def _delete_keys(response: Any, bucket_name: str, authenticated: bool = True) -> Any:
    """Answer a bulk deletion: the place of moto's method, which looks at `authenticated` alone."""
    del authenticated
    objects = xmltodict.parse(response.body, strip_whitespace=False, force_list=("Object",))
    allowed, errors = [], []
    for entry in objects["Delete"]["Object"]:
        try:
            _judge_action(response, "DeleteObject", bucket_name, entry["Key"])
        except S3AccessDeniedError:
            errors.append({"Key": entry["Key"], "Code": "AccessDenied", "Message": "Access Denied"})
        else:
            allowed.append(entry)
    deleted, _ = response.backend.delete_objects(bucket_name, allowed, False)
    response.data["Action"] = "DeleteObjects"
    gone = [{"Key": key, "VersionId": version or None} for key, version, _ in deleted]
    return response.serialized(ActionResult({"Deleted": gone, "Errors": errors}))


if __name__ == "__main__":
    setattr(S3Response, _judge_one.__name__, _judge)
    setattr(S3Response, "_bucket_response_delete_keys", _delete_keys)  # noqa: B010 -- no hook
    main()
