"""Objects that change only if nobody else changed them: an object store's means against races."""

import os
from typing import Any, NamedTuple

from switchx.errors import UserError
from switchx.storage.paths import AnyPath, bucket_of, key_of, scheme_of
from switchx.storage.trouble import explain_missing_bucket

_RETRIES = {"max_retries": 6, "initial_delay": "500ms", "max_delay": "8s"}
# By itself TensorStore waits for ever for a store that says nothing.
_LIMITS = {
    "TENSORSTORE_CURL_CONNECT_TIMEOUT_SECONDS": "30",
    "TENSORSTORE_CURL_LOW_SPEED_TIME_SECONDS": "60",
    "TENSORSTORE_CURL_LOW_SPEED_LIMIT_BYTES": "1",
}


class Version(NamedTuple):
    """What an object held when it was read: None where it was missing."""

    content: bytes | None
    generation: bytes


def kvstore_spec(url: AnyPath) -> dict[str, Any]:
    """TensorStore's spec of the keys below a gs:// or s3:// URL, which ends where a name begins."""
    for name, value in _LIMITS.items():
        os.environ.setdefault(name, value)
    key, driver = key_of(url), {"gs": "gcs", "s3": "s3"}[scheme_of(url)]
    spec: dict[str, Any] = {
        "driver": driver,
        "bucket": bucket_of(url),
        "path": f"{key}/" * bool(key),
    }
    spec[f"{driver}_request_retries"] = _RETRIES
    if driver == "gcs":
        return spec
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if endpoint:
        # TensorStore asks Amazon alone where a bucket is, and for what it may presume there.
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION", "us-east-1")
        spec |= {"endpoint": endpoint, "aws_region": region, "use_conditional_write": True}
    return spec


class ConditionalObject:
    """One object of gs:// or s3://; OSError where the store cannot be reached.

    Attributes:
      url: where it is.
      seconds: the limit of a call, with TensorStore's own tries.
    """

    def __init__(self, url: AnyPath) -> None:
        import tensorstore

        folder, _, self._name = os.fspath(url).rpartition("/")
        self.url = url
        self.seconds = 60.0
        self._store = tensorstore.KvStore.open(kvstore_spec(folder)).result()

    def read(self) -> Version:
        """What is there now."""
        found = self._ask(self._store.read(self._name))
        value = found.value if found.state == "value" else None
        return Version(value, found.stamp.generation)

    def replace(self, content: bytes | None, version: Version) -> Version | None:
        """Writes, or removes for None, if `version` is still what is there; None if it is not."""
        stamp = self._ask(self._store.write(self._name, content, if_equal=version.generation))
        return Version(content, stamp.generation) if stamp.generation else None

    def _ask(self, future: Any) -> Any:
        try:
            return future.result(timeout=self.seconds)
        except TimeoutError:
            raise TimeoutError(f"no answer within {self.seconds:.0f} s") from None
        except ValueError as error:
            if "NOT_FOUND" in str(error) or "code: 404" in str(error):
                raise OSError(explain_missing_bucket(self.url)) from error
            raise OSError(_in_short(error)) from error


def check_conditional(url: AnyPath, setting: str) -> None:
    """Raises UserError where writing at a URL cannot be made to depend on what is there."""
    if scheme_of(url) not in ("gs", "s3"):
        raise UserError(
            f"{setting}={os.fspath(url)!r} cannot be written to by one process at a time: name a "
            "place on this machine, at gs:// or at s3://."
        )


def _in_short(error: Exception) -> str:
    """TensorStore's sentence without the places in its source and the request's headers."""
    return str(error).split("[source locations", 1)[0].split("\n", 1)[0].strip()
