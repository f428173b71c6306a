"""An S3 server from its clients' view: URL, credentials, and a boto3 client."""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True)
class Credentials:
    """One user of an S3 server."""

    access_key: str
    secret_key: str


@dataclass(frozen=True)
class S3Endpoint:
    """The URL of an S3 server, and the credentials to use."""

    url: str
    region: str
    credentials: Credentials

    @cached_property
    def client(self) -> S3Client:
        """A boto3 client, with which tests read and damage the store."""
        client: S3Client = boto3.client(
            "s3",
            endpoint_url=self.url,
            region_name=self.region,
            aws_access_key_id=self.credentials.access_key,
            aws_secret_access_key=self.credentials.secret_key,
            config=Config(
                s3={"addressing_style": "path"},
                proxies={},
                retries={"total_max_attempts": 1},
                connect_timeout=5,
                read_timeout=60,
            ),
        )
        return client

    def environment(self) -> dict[str, str]:
        """Return the variables with which AWS clients connect to this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
            "AWS_ACCESS_KEY_ID": self.credentials.access_key,
            "AWS_SECRET_ACCESS_KEY": self.credentials.secret_key,
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def new_bucket(self, name: str | None = None) -> S3Bucket:
        """Create a bucket, with a random name by default."""
        name = name or f"test-{uuid.uuid4().hex[:16]}"
        self.client.create_bucket(Bucket=name)
        return S3Bucket(endpoint=self, name=name)


@dataclass(frozen=True)
class S3Bucket:
    """One bucket, with the operations that most tests need."""

    endpoint: S3Endpoint
    name: str

    @property
    def client(self) -> S3Client:
        """The endpoint's boto3 client."""
        return self.endpoint.client

    def keys(self, prefix: str = "") -> list[str]:
        """Return all keys under `prefix`, sorted."""
        return sorted(self.sizes(prefix))

    def sizes(self, prefix: str = "") -> dict[str, int]:
        """Return the size in bytes of every object under `prefix`."""
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.name, Prefix=prefix
        )
        return {entry["Key"]: entry["Size"] for page in pages for entry in page.get("Contents", [])}

    def get(self, key: str) -> bytes:
        """Return the content of an object."""
        return self.client.get_object(Bucket=self.name, Key=key)["Body"].read()

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        self.client.put_object(Bucket=self.name, Key=key, Body=data)

    def delete(self, key: str) -> None:
        """Delete an object."""
        self.client.delete_object(Bucket=self.name, Key=key)

    def tags(self, key: str) -> dict[str, str]:
        """Return the tags of an object."""
        tagging = self.client.get_object_tagging(Bucket=self.name, Key=key)
        return {tag["Key"]: tag["Value"] for tag in tagging["TagSet"]}

    def remove(self) -> None:
        """Delete the bucket with all its objects."""
        for key in self.keys():
            self.delete(key)
        self.client.delete_bucket(Bucket=self.name)
