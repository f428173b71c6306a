"""The bucket configuration in `infrastructure/aws`: S3 accepts it, and backups still work."""

import json
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from devtools.aws_cli import AwsCli
from devtools.fetch_prometheus import PrometheusBinaries
from devtools.moto_server import MotoServer
from devtools.prometheus import PrometheusServer
from devtools.s3 import S3Bucket, S3Endpoint
from prometheus_backup.retention.policy import Candidate, Policy, decide
from prometheus_backup.stores.classes import ARCHIVE_CLASSES
from tests.support.aws_policies import AWS, BUCKET, PREFIX, as_list, document
from tests.support.faulty_http import FaultyServer, Request
from tests.support.kustomize import PROMETHEUS, render
from tests.support.pages import DOCS, ROOT, Page
from tests.support.runs import settings
from tests.support.stored_backups import run_here

IAM = sorted(path.stem for path in (AWS / "iam").glob("*.json"))
# The S3 actions that this program uses, on a bucket and on objects.
ON_BUCKET = {"s3:GetLifecycleConfiguration", "s3:ListBucket"}
ON_OBJECT = {
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:GetObjectTagging",
    "s3:PutObject",
    "s3:PutObjectTagging",
    "s3:RestoreObject",
}


@pytest.fixture
def bucket(moto: MotoServer) -> S3Bucket:
    """The bucket that the files name, empty."""
    return moto.endpoint().new_bucket(BUCKET)


# IAM policies, with checks like those of IAM Access Analyzer


@pytest.mark.parametrize("name", [n for n in IAM if n != "irsa-trust"])
def test_policy_grants_known_actions_on_matching_resources(name: str) -> None:
    policy = document(f"iam/{name}.json")
    assert policy["Version"] == "2012-10-17"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    assert all(re.fullmatch(r"[A-Za-z0-9]+", sid) for sid in sids)
    for statement in policy["Statement"]:
        assert set(statement) == {"Sid", "Effect", "Action", "Resource"}
        assert statement["Effect"] == "Allow"
        actions = set(as_list(statement["Action"]))
        assert actions <= ON_BUCKET or actions <= ON_OBJECT
        for resource in as_list(statement["Resource"]):
            name = resource.removeprefix("arn:aws:s3:::")
            assert (
                (name == BUCKET) if actions <= ON_BUCKET else name.startswith(f"{BUCKET}/{PREFIX}/")
            )


@pytest.mark.parametrize("name", IAM)
def test_iam_accepts_the_policy(name: str, moto: MotoServer) -> None:
    text = (AWS / "iam" / f"{name}.json").read_text()
    if name == "irsa-trust":
        moto.iam().create_role(RoleName=name, AssumeRolePolicyDocument=text)
    else:
        moto.iam().create_policy(PolicyName=name, PolicyDocument=text)


def test_only_the_backup_can_assume_the_role() -> None:
    (statement,) = document("iam/irsa-trust.json")["Statement"]
    provider = statement["Principal"]["Federated"].partition(":oidc-provider/")[2]
    manifests = render(PROMETHEUS / "backup")
    (account,) = [m["metadata"] for m in manifests if m["kind"] == "ServiceAccount"]
    subject = f"system:serviceaccount:{account['namespace']}:{account['name']}"
    assert statement["Condition"] == {
        "StringEquals": {f"{provider}:aud": "sts.amazonaws.com", f"{provider}:sub": subject}
    }
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"


# The bucket policy. moto accepts it but evaluates no conditions, so the test evaluates them.


def _context(request: Request, *, tls: str | None) -> dict[str, str]:
    """Return the condition keys of a request; a missing header is a missing key."""
    context = {"aws:SecureTransport": str(tls is not None).lower()}
    if tls is not None:
        context["s3:TlsVersion"] = tls
    if header := request.headers.get("x-amz-server-side-encryption"):
        context["s3:x-amz-server-side-encryption"] = header
    return context


def _is_upload(request: Request) -> bool:
    """Return whether it is PutObject, CopyObject or CreateMultipartUpload; parts do not count."""
    if "partNumber=" in request.path or "uploadId=" in request.path:
        return False
    return request.method == "PUT" or (request.method == "POST" and "uploads" in request.path)


def _condition_is_true(operator: str, key: str, expected: Any, context: Mapping[str, str]) -> bool:
    """Evaluate an IAM condition. If the key is missing, only a negated one is true."""
    value = context.get(key)
    if operator == "StringNotEquals":
        return value not in as_list(expected)
    if value is None:
        return False
    if operator == "NumericLessThan":
        return float(value) < float(expected)
    assert operator == "Bool"
    return bool(value == expected)


def _denials(request: Request, *, tls: str | None = "1.3") -> set[str]:
    """Return the statements of the bucket policy that deny a request."""
    context = _context(request, tls=tls)
    return {
        statement["Sid"]
        for statement in document("bucket/policy.json")["Statement"]
        if (statement["Action"] == "s3:*" or _is_upload(request))
        and all(
            _condition_is_true(operator, key, expected, context)
            for operator, keys in statement["Condition"].items()
            for key, expected in keys.items()
        )
    }


def test_bucket_policy_denies_insecure_requests_and_unencrypted_uploads() -> None:
    get = Request("GET", "/key", {})
    assert _denials(get) == set()
    assert _denials(get, tls=None) == {"DenyPlainHTTP"}
    assert _denials(get, tls="1.1") == {"DenyOldTLS"}
    for encryption, denied in (("AES256", 0), ("aws:kms", 0), ("aws:fsx", 1), (None, 1)):
        headers = {"x-amz-server-side-encryption": encryption} if encryption else {}
        assert len(_denials(Request("PUT", "/key", headers))) == denied


def test_bucket_policy_allows_all_requests_of_a_backup(
    bucket: S3Bucket, prometheus_3: PrometheusBinaries, tsdb_blocks: Path, tmp_path: Path
) -> None:
    shutil.copytree(tsdb_blocks, tmp_path / "data")
    with (
        PrometheusServer(prometheus_3, tmp_path / "data") as source,
        FaultyServer(upstream=bucket.endpoint.url) as between,
    ):
        source.fill_head()
        env = settings(source, bucket, S3_ENDPOINT_URL=between.url)
        for command in ("check", "backup", "backup", "verify", "prune"):
            done = run_here(command, env=env)
            assert done.returncode == 0, done.stderr
        assert len([r for r in between.requests if _is_upload(r)]) > 20
        assert {s for r in between.requests for s in _denials(r)} == set()
        between.requests.clear()
        run_here("check", env={**env, "S3_SSE": "none"})
        assert {s for r in between.requests for s in _denials(r)} == {
            "DenyUploadsThatDoNotAskForEncryption"
        }
        source.kill()


# The lifecycle rules


Rules = list[dict[str, Any]]
COST = Page(DOCS / "explanation" / "cost.md")


def _rules() -> Rules:
    rules: Rules = document("bucket/lifecycle.json")["Rules"]
    return rules


def _corrected() -> Rules:
    """The rules that the page on cost recommends."""
    (block,) = COST.blocks("json")
    rules: Rules = json.loads(block.text)["Rules"]
    return rules


def _theirs() -> list[Rules]:
    """The rules that the page warns about."""
    blocks = [b.text for b in COST.blocks("") if b.text.startswith('{"Rules"')]
    return [json.loads(text)["Rules"] for text in blocks]


@pytest.mark.parametrize("rules", [_rules(), _corrected()], ids=["file", "page"])
def test_only_data_changes_class_and_only_to_one_with_instant_access(
    rules: Rules,
) -> None:
    moving = [rule for rule in rules if "Transitions" in rule]
    assert moving
    for rule in moving:
        assert {"Key": "Content", "Value": "data"} in rule["Filter"]["And"]["Tags"]
        for transition in rule["Transitions"]:
            assert transition["StorageClass"] not in ARCHIVE_CLASSES
            # Daily backups are deleted earlier: if moved, they would be billed for 90 days.
            assert transition["Days"] > Policy().daily


def _longest_kept() -> int:
    """Return the longest time in days that retention keeps a backup, over eight years."""
    first = date(2021, 1, 1)
    days = [first + timedelta(n) for n in range(8 * 366)]
    nightly = [
        Candidate(f"{d:%Y%m%d}", datetime(d.year, d.month, d.day, 2, tzinfo=UTC), good=True)
        for d in days
    ]
    longest = 0
    for today in (d for d in days if (d.month, d.day) in ((12, 31), (1, 1), (2, 29))):
        taken = [b for b in nightly if b.time.date() <= today]
        kept = {d.backup_id for d in decide(taken, today=today, policy=Policy()) if d.keep}
        oldest = min(b.time.date() for b in taken if b.backup_id in kept)
        longest = max(longest, (today - oldest).days)
    return longest


@pytest.mark.parametrize("rules", [_rules(), _corrected()], ids=["file", "page"])
def test_safety_net_is_longer_than_retention(rules: Rules) -> None:
    (net,) = [r["Expiration"]["Days"] for r in rules if "Days" in r.get("Expiration", {})]
    longest = _longest_kept()
    assert longest == 1095  # three years: with a leap day, a rule of 1095 days would be too short
    assert net > longest + 90


def test_rules_that_the_page_warns_about_have_the_described_faults() -> None:
    expiring, archiving = _theirs()
    assert expiring[0]["Expiration"]["Days"] == _longest_kept()
    assert {t["StorageClass"] for t in archiving[0]["Transitions"]} & {*ARCHIVE_CLASSES}
    assert not any("And" in rule["Filter"] for rule in [*expiring, *archiving])


def test_s3_accepts_the_recommended_rules(
    bucket: S3Bucket, aws: Callable[[S3Endpoint], AwsCli], tmp_path: Path
) -> None:
    (tmp_path / "rules.json").write_text(json.dumps({"Rules": _corrected()}))
    put = ("s3api", "put-bucket-lifecycle-configuration", "--bucket", bucket.name)
    file = f"file://{tmp_path}/rules.json"
    aws(bucket.endpoint)(*put, "--lifecycle-configuration", file)
    kept = bucket.client.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert len(kept) == len(_corrected())


@pytest.mark.parametrize("rules", [_rules(), _corrected()], ids=["file", "page"])
def test_every_rule_is_limited_to_the_prefix(rules: Rules) -> None:
    for rule in rules:
        filters = rule["Filter"].get("And", rule["Filter"])
        # What is in the archive is needed however old it is.
        expires = "Days" in rule.get("Expiration", {})
        assert filters["Prefix"] == (f"{PREFIX}/backup-" if expires else f"{PREFIX}/")
        assert rule["Status"] == "Enabled"


# The setup page


def test_commands_on_the_page_set_up_the_bucket(
    moto: MotoServer, aws: Callable[[S3Endpoint], AwsCli]
) -> None:
    page = Page(DOCS / "how-to" / "aws.md")
    commands = "".join(b.text for b in page.blocks("bash") if b.text.startswith("aws "))
    endpoint = moto.endpoint()
    output = aws(endpoint).shell(f"cd {ROOT}\n{commands}")
    made = moto.iam()
    policies = [
        made.get_role_policy(RoleName="prometheus-backup", PolicyName="prometheus-backup"),
        made.get_user_policy(UserName="prometheus-backup", PolicyName="prometheus-backup"),
    ]
    assert [p["PolicyDocument"] for p in policies] == [document("iam/combined.json")] * 2
    client = endpoint.client
    encryption = client.get_bucket_encryption(Bucket=BUCKET)["ServerSideEncryptionConfiguration"]
    (rule,) = encryption["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "AES256"}
    blocked = client.get_public_access_block(Bucket=BUCKET)["PublicAccessBlockConfiguration"]
    assert blocked == document("bucket/public-access-block.json")
    policy = client.get_bucket_policy(Bucket=BUCKET)["Policy"]
    assert json.loads(policy) == document("bucket/policy.json")
    assert client.get_bucket_versioning(Bucket=BUCKET)["Status"] == "Enabled"
    rules = client.get_bucket_lifecycle_configuration(Bucket=BUCKET)["Rules"]
    assert {r["ID"] for r in rules} == {r["ID"] for r in _rules()}
    assert "AccessKeyId" in output
    with pytest.raises(ClientError, match="NoSuchCORSConfiguration"):
        client.get_bucket_cors(Bucket=BUCKET)
