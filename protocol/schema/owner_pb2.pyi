from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ExplainRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("client", "base_model", "fingerprint", "task", "shares_metrics", "history_items", "learned_items", "release", "personal", "busy", "problem", "stage", "sent", "refused", "refusal", "paused", "not_consented", "key", "sealed_history", "confirmed", "notice")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    BASE_MODEL_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SHARES_METRICS_FIELD_NUMBER: _ClassVar[int]
    HISTORY_ITEMS_FIELD_NUMBER: _ClassVar[int]
    LEARNED_ITEMS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    BUSY_FIELD_NUMBER: _ClassVar[int]
    PROBLEM_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SENT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    REFUSAL_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    NOT_CONSENTED_FIELD_NUMBER: _ClassVar[int]
    KEY_FIELD_NUMBER: _ClassVar[int]
    SEALED_HISTORY_FIELD_NUMBER: _ClassVar[int]
    CONFIRMED_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    client: str
    base_model: str
    fingerprint: str
    task: str
    shares_metrics: bool
    history_items: int
    learned_items: int
    release: ReleaseState
    personal: PersonalState
    busy: str
    problem: str
    stage: str
    sent: _containers.RepeatedCompositeFieldContainer[SentTotal]
    refused: int
    refusal: str
    paused: bool
    not_consented: _containers.RepeatedScalarFieldContainer[str]
    key: str
    sealed_history: bool
    confirmed: str
    notice: str
    def __init__(self, client: _Optional[str] = ..., base_model: _Optional[str] = ..., fingerprint: _Optional[str] = ..., task: _Optional[str] = ..., shares_metrics: bool = ..., history_items: _Optional[int] = ..., learned_items: _Optional[int] = ..., release: _Optional[_Union[ReleaseState, _Mapping]] = ..., personal: _Optional[_Union[PersonalState, _Mapping]] = ..., busy: _Optional[str] = ..., problem: _Optional[str] = ..., stage: _Optional[str] = ..., sent: _Optional[_Iterable[_Union[SentTotal, _Mapping]]] = ..., refused: _Optional[int] = ..., refusal: _Optional[str] = ..., paused: bool = ..., not_consented: _Optional[_Iterable[str]] = ..., key: _Optional[str] = ..., sealed_history: bool = ..., confirmed: _Optional[str] = ..., notice: _Optional[str] = ...) -> None: ...

class SentTotal(_message.Message):
    __slots__ = ("call", "messages", "bytes", "refused")
    CALL_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    call: str
    messages: int
    bytes: int
    refused: int
    def __init__(self, call: _Optional[str] = ..., messages: _Optional[int] = ..., bytes: _Optional[int] = ..., refused: _Optional[int] = ...) -> None: ...

class ReleaseState(_message.Message):
    __slots__ = ("version", "digest", "issued", "expires", "rounds", "layers", "positions", "rank", "edited", "privacy")
    VERSION_FIELD_NUMBER: _ClassVar[int]
    DIGEST_FIELD_NUMBER: _ClassVar[int]
    ISSUED_FIELD_NUMBER: _ClassVar[int]
    EXPIRES_FIELD_NUMBER: _ClassVar[int]
    ROUNDS_FIELD_NUMBER: _ClassVar[int]
    LAYERS_FIELD_NUMBER: _ClassVar[int]
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    RANK_FIELD_NUMBER: _ClassVar[int]
    EDITED_FIELD_NUMBER: _ClassVar[int]
    PRIVACY_FIELD_NUMBER: _ClassVar[int]
    version: int
    digest: str
    issued: str
    expires: str
    rounds: int
    layers: _containers.RepeatedScalarFieldContainer[int]
    positions: str
    rank: int
    edited: _containers.RepeatedScalarFieldContainer[int]
    privacy: str
    def __init__(self, version: _Optional[int] = ..., digest: _Optional[str] = ..., issued: _Optional[str] = ..., expires: _Optional[str] = ..., rounds: _Optional[int] = ..., layers: _Optional[_Iterable[int]] = ..., positions: _Optional[str] = ..., rank: _Optional[int] = ..., edited: _Optional[_Iterable[int]] = ..., privacy: _Optional[str] = ...) -> None: ...

class PersonalState(_message.Message):
    __slots__ = ("rank", "parameters", "items", "release", "stored", "origin", "judged", "promise")
    RANK_FIELD_NUMBER: _ClassVar[int]
    PARAMETERS_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    STORED_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    JUDGED_FIELD_NUMBER: _ClassVar[int]
    PROMISE_FIELD_NUMBER: _ClassVar[int]
    rank: int
    parameters: int
    items: int
    release: int
    stored: str
    origin: str
    judged: _containers.RepeatedCompositeFieldContainer[Judged]
    promise: str
    def __init__(self, rank: _Optional[int] = ..., parameters: _Optional[int] = ..., items: _Optional[int] = ..., release: _Optional[int] = ..., stored: _Optional[str] = ..., origin: _Optional[str] = ..., judged: _Optional[_Iterable[_Union[Judged, _Mapping]]] = ..., promise: _Optional[str] = ...) -> None: ...

class Judged(_message.Message):
    __slots__ = ("stage", "loss")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    stage: str
    loss: float
    def __init__(self, stage: _Optional[str] = ..., loss: _Optional[float] = ...) -> None: ...

class SentRequest(_message.Message):
    __slots__ = ("after", "newest")
    AFTER_FIELD_NUMBER: _ClassVar[int]
    NEWEST_FIELD_NUMBER: _ClassVar[int]
    after: int
    newest: int
    def __init__(self, after: _Optional[int] = ..., newest: _Optional[int] = ...) -> None: ...

class SentMessage(_message.Message):
    __slots__ = ("time", "call", "fields", "bytes", "number", "reason")
    TIME_FIELD_NUMBER: _ClassVar[int]
    CALL_FIELD_NUMBER: _ClassVar[int]
    FIELDS_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    NUMBER_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    time: str
    call: str
    fields: _containers.RepeatedCompositeFieldContainer[SentField]
    bytes: int
    number: int
    reason: str
    def __init__(self, time: _Optional[str] = ..., call: _Optional[str] = ..., fields: _Optional[_Iterable[_Union[SentField, _Mapping]]] = ..., bytes: _Optional[int] = ..., number: _Optional[int] = ..., reason: _Optional[str] = ...) -> None: ...

class SentField(_message.Message):
    __slots__ = ("name", "value", "bytes")
    NAME_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    BYTES_FIELD_NUMBER: _ClassVar[int]
    name: str
    value: str
    bytes: int
    def __init__(self, name: _Optional[str] = ..., value: _Optional[str] = ..., bytes: _Optional[int] = ...) -> None: ...

class LearnRequest(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class LearnReply(_message.Message):
    __slots__ = ("learned", "steps", "loss", "remarks", "added")
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    STEPS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    REMARKS_FIELD_NUMBER: _ClassVar[int]
    ADDED_FIELD_NUMBER: _ClassVar[int]
    learned: int
    steps: int
    loss: float
    remarks: _containers.RepeatedScalarFieldContainer[str]
    added: int
    def __init__(self, learned: _Optional[int] = ..., steps: _Optional[int] = ..., loss: _Optional[float] = ..., remarks: _Optional[_Iterable[str]] = ..., added: _Optional[int] = ...) -> None: ...

class LearnedRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class LearnedReply(_message.Message):
    __slots__ = ("items",)
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, items: _Optional[_Iterable[str]] = ...) -> None: ...

class UnlearnRequest(_message.Message):
    __slots__ = ("numbers",)
    NUMBERS_FIELD_NUMBER: _ClassVar[int]
    numbers: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, numbers: _Optional[_Iterable[int]] = ...) -> None: ...

class UnlearnReply(_message.Message):
    __slots__ = ("learned", "fitted")
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    FITTED_FIELD_NUMBER: _ClassVar[int]
    learned: int
    fitted: bool
    def __init__(self, learned: _Optional[int] = ..., fitted: bool = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("prompt", "stage", "max_new_tokens", "temperature", "top_p", "seed", "turns", "task_form", "tokens", "likeliest", "echo", "stops")
    PROMPT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    MAX_NEW_TOKENS_FIELD_NUMBER: _ClassVar[int]
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_P_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TURNS_FIELD_NUMBER: _ClassVar[int]
    TASK_FORM_FIELD_NUMBER: _ClassVar[int]
    TOKENS_FIELD_NUMBER: _ClassVar[int]
    LIKELIEST_FIELD_NUMBER: _ClassVar[int]
    ECHO_FIELD_NUMBER: _ClassVar[int]
    STOPS_FIELD_NUMBER: _ClassVar[int]
    prompt: str
    stage: str
    max_new_tokens: int
    temperature: float
    top_p: float
    seed: int
    turns: _containers.RepeatedCompositeFieldContainer[Turn]
    task_form: bool
    tokens: _containers.RepeatedScalarFieldContainer[int]
    likeliest: int
    echo: bool
    stops: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, prompt: _Optional[str] = ..., stage: _Optional[str] = ..., max_new_tokens: _Optional[int] = ..., temperature: _Optional[float] = ..., top_p: _Optional[float] = ..., seed: _Optional[int] = ..., turns: _Optional[_Iterable[_Union[Turn, _Mapping]]] = ..., task_form: bool = ..., tokens: _Optional[_Iterable[int]] = ..., likeliest: _Optional[int] = ..., echo: bool = ..., stops: _Optional[_Iterable[str]] = ...) -> None: ...

class Turn(_message.Message):
    __slots__ = ("role", "text")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    role: str
    text: str
    def __init__(self, role: _Optional[str] = ..., text: _Optional[str] = ...) -> None: ...

class Piece(_message.Message):
    __slots__ = ("text", "finish", "prompt_tokens", "completion_tokens", "stage", "task", "scores")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    FINISH_FIELD_NUMBER: _ClassVar[int]
    PROMPT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    COMPLETION_TOKENS_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    text: str
    finish: str
    prompt_tokens: int
    completion_tokens: int
    stage: str
    task: str
    scores: _containers.RepeatedCompositeFieldContainer[TokenScore]
    def __init__(self, text: _Optional[str] = ..., finish: _Optional[str] = ..., prompt_tokens: _Optional[int] = ..., completion_tokens: _Optional[int] = ..., stage: _Optional[str] = ..., task: _Optional[str] = ..., scores: _Optional[_Iterable[_Union[TokenScore, _Mapping]]] = ...) -> None: ...

class TokenScore(_message.Message):
    __slots__ = ("text", "score", "likeliest")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    SCORE_FIELD_NUMBER: _ClassVar[int]
    LIKELIEST_FIELD_NUMBER: _ClassVar[int]
    text: str
    score: float
    likeliest: _containers.RepeatedCompositeFieldContainer[TokenScore]
    def __init__(self, text: _Optional[str] = ..., score: _Optional[float] = ..., likeliest: _Optional[_Iterable[_Union[TokenScore, _Mapping]]] = ...) -> None: ...

class AnswerRequest(_message.Message):
    __slots__ = ("question", "stage")
    QUESTION_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    question: str
    stage: str
    def __init__(self, question: _Optional[str] = ..., stage: _Optional[str] = ...) -> None: ...

class AnswerReply(_message.Message):
    __slots__ = ("text", "stage")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    STAGE_FIELD_NUMBER: _ClassVar[int]
    text: str
    stage: str
    def __init__(self, text: _Optional[str] = ..., stage: _Optional[str] = ...) -> None: ...

class ForgetRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ForgetReply(_message.Message):
    __slots__ = ("shifts", "learned", "imported")
    SHIFTS_FIELD_NUMBER: _ClassVar[int]
    LEARNED_FIELD_NUMBER: _ClassVar[int]
    IMPORTED_FIELD_NUMBER: _ClassVar[int]
    shifts: int
    learned: int
    imported: int
    def __init__(self, shifts: _Optional[int] = ..., learned: _Optional[int] = ..., imported: _Optional[int] = ...) -> None: ...
