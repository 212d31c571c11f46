"""Why a file could not be reached, in a few words that say what to do, and whether to try again."""

import errno
import os
import re

from switchx.errors import UserError, first_line
from switchx.storage.paths import AnyPath, bucket_of

# Trying again changes nothing about these.
_FINAL = (
    FileNotFoundError,
    FileExistsError,
    PermissionError,
    IsADirectoryError,
    ImportError,
    NotImplementedError,
    UserError,
)
# Each file system raises what it likes: the package's own class, or TensorStore's ValueError with
# the answer's code in its text.
_CREDENTIALS = re.compile(
    r"NoCredentials|DefaultCredentials|PartialCredentials|Unable to locate credentials"
    r"|credentials were not found|Anonymous caller|Invalid Credentials|InvalidAccessKeyId"
    r"|SignatureDoesNotMatch|ExpiredToken|UNAUTHENTICATED|\(401\)|code='401'"
    r"|Access Key Id you provided"
)
_BUCKET = re.compile(r"bucket does not exist|NoSuchBucket|bucket .*not found", re.IGNORECASE)
_FORBIDDEN = re.compile(r"\(403\)|PERMISSION_DENIED|AccessDenied|Access Denied|Forbidden")
_LOGIN = (
    "for gs:// run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS, "
    "for s3:// set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY or run `aws configure`"
)


def explain_missing_bucket(url: AnyPath) -> str:
    """That there is no bucket, in the same few words."""
    return f"there is no bucket {bucket_of(url)!r}: make it, or correct the name"


def explain(error: BaseException) -> str:
    """Why something failed, in a few words."""
    said, kind = first_line(error), type(error).__name__
    known = _kind_of(error)
    if known == "credentials":
        return f"no valid credentials: {_LOGIN}"
    if known == "bucket":
        return "there is no such bucket: make it, or correct the name"
    if known == "forbidden":
        return (
            "permission denied: this account needs to read, list, write and delete objects in the "
            "bucket"
        )
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, FileNotFoundError):
        return os.strerror(errno.ENOENT)
    return said if said == kind or type(error) in (OSError, ImportError) else f"{kind}: {said}"


def is_final(error: BaseException) -> bool:
    """Whether trying again can change nothing."""
    if _kind_of(error) is not None:
        return True
    code = getattr(error, "code", None)
    if str(code).isdigit() and 400 <= int(str(code)) < 500 and int(str(code)) not in (408, 429):
        return True
    return isinstance(error, _FINAL)


def _kind_of(error: BaseException) -> str | None:
    """ "credentials", "bucket" or "forbidden" where an object store said so."""
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return None  # this machine's own
    text = f"{type(error).__name__}: {error}"
    if _BUCKET.search(text):
        return "bucket"
    if isinstance(error, FileNotFoundError):
        return None
    code = str(getattr(error, "code", ""))
    if code == "401" or _CREDENTIALS.search(text):
        return "credentials"
    return "forbidden" if code == "403" or _FORBIDDEN.search(text) else None
