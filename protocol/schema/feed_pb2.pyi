from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from typing import ClassVar as _ClassVar, Optional as _Optional

DESCRIPTOR: _descriptor.FileDescriptor

class PointRequest(_message.Message):
    __slots__ = ("pointer",)
    POINTER_FIELD_NUMBER: _ClassVar[int]
    pointer: bytes
    def __init__(self, pointer: _Optional[bytes] = ...) -> None: ...

class PointReply(_message.Message):
    __slots__ = ("version", "size", "stale", "digest", "issued")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    STALE_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    version: int
    size: int
    stale: bool
    digest: str
    issued: str
    def __init__(self, version: _Optional[int] = ..., size: _Optional[int] = ..., stale: bool = ..., digest: _Optional[str] = ..., issued: _Optional[str] = ...) -> None: ...

class OfferRequest(_message.Message):
    __slots__ = ("release",)
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    def __init__(self, release: _Optional[bytes] = ...) -> None: ...

class OfferReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class RenewReply(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...
