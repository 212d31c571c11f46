"""A file system for tests that fails, or stops answering, whenever they say."""

import threading
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.memory import MemoryFileSystem


class FlakyFileSystem(MemoryFileSystem):
    """The files of memory://, behind flaky://.

    Attributes:
      failures: how many of the next calls raise.
      hangs: how many of the next calls never return.
      calls: how often files were opened, read or looked for.
      opened: how often one was opened.
    """

    protocol = "flaky"
    failures: ClassVar[float] = 0
    hangs: ClassVar[float] = 0
    calls: ClassVar[int] = 0
    opened: ClassVar[int] = 0

    @classmethod
    def reset(cls) -> None:
        cls.failures = cls.hangs = cls.calls = cls.opened = 0

    @classmethod
    def trouble(cls) -> None:
        cls.calls += 1
        if cls.hangs > 0:
            cls.hangs -= 1
            threading.Event().wait()
        if cls.failures > 0:
            cls.failures -= 1
            raise ConnectionResetError("connection reset by peer")

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    def unstrip_protocol(self, name: str) -> str:
        return f"flaky://{name}"

    def glob(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.trouble()
        return super().glob(path, *args, **kwargs)

    def put_file(self, *args: Any, **kwargs: Any) -> Any:
        self.trouble()
        return MemoryFileSystem().put_file(*args, **kwargs)

    def open(self, path: str, *args: Any, **kwargs: Any) -> Any:
        self.trouble()
        type(self).opened += 1
        return _FlakyFile(super().open(path, *args, **kwargs).getvalue())


class _FlakyFile:
    """Where a read that fails has gone on all the same: only opening anew finds the place."""

    def __init__(self, content: bytes) -> None:
        self._content, self._at = content, 0
        self.size = len(content)

    def seek(self, position: int) -> None:
        self._at = position

    def read(self, count: int) -> bytes:
        begin, self._at = self._at, self._at + count
        FlakyFileSystem.trouble()
        return self._content[begin : self._at]


fsspec.register_implementation("flaky", FlakyFileSystem, clobber=True)
