from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class StatusRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class StatusReply(_message.Message):
    __slots__ = ("client", "fingerprint", "task", "history", "questions", "shares_metrics")
    CLIENT_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    TASK_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    QUESTIONS_FIELD_NUMBER: _ClassVar[int]
    SHARES_METRICS_FIELD_NUMBER: _ClassVar[int]
    client: str
    fingerprint: str
    task: str
    history: int
    questions: int
    shares_metrics: bool
    def __init__(self, client: _Optional[str] = ..., fingerprint: _Optional[str] = ..., task: _Optional[str] = ..., history: _Optional[int] = ..., questions: _Optional[int] = ..., shares_metrics: bool = ...) -> None: ...

class Training(_message.Message):
    __slots__ = ("seed", "epochs", "batch_size", "learning_rate", "weight_decay", "clip_norm", "max_items", "prompt_form")
    SEED_FIELD_NUMBER: _ClassVar[int]
    EPOCHS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    LEARNING_RATE_FIELD_NUMBER: _ClassVar[int]
    WEIGHT_DECAY_FIELD_NUMBER: _ClassVar[int]
    CLIP_NORM_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORM_FIELD_NUMBER: _ClassVar[int]
    seed: int
    epochs: int
    batch_size: int
    learning_rate: float
    weight_decay: float
    clip_norm: float
    max_items: int
    prompt_form: str
    def __init__(self, seed: _Optional[int] = ..., epochs: _Optional[int] = ..., batch_size: _Optional[int] = ..., learning_rate: _Optional[float] = ..., weight_decay: _Optional[float] = ..., clip_norm: _Optional[float] = ..., max_items: _Optional[int] = ..., prompt_form: _Optional[str] = ...) -> None: ...

class Personal(_message.Message):
    __slots__ = ("rank", "additive", "slot")
    RANK_FIELD_NUMBER: _ClassVar[int]
    ADDITIVE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    rank: int
    additive: bool
    slot: str
    def __init__(self, rank: _Optional[int] = ..., additive: bool = ..., slot: _Optional[str] = ...) -> None: ...

class Evaluation(_message.Message):
    __slots__ = ("stage", "slot", "additive", "batch_size", "prompt_form")
    STAGE_FIELD_NUMBER: _ClassVar[int]
    SLOT_FIELD_NUMBER: _ClassVar[int]
    ADDITIVE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORM_FIELD_NUMBER: _ClassVar[int]
    stage: str
    slot: str
    additive: bool
    batch_size: int
    prompt_form: str
    def __init__(self, stage: _Optional[str] = ..., slot: _Optional[str] = ..., additive: bool = ..., batch_size: _Optional[int] = ..., prompt_form: _Optional[str] = ...) -> None: ...

class Pairs(_message.Message):
    __slots__ = ("items", "source", "batch_size", "prompt_form")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORM_FIELD_NUMBER: _ClassVar[int]
    items: int
    source: str
    batch_size: int
    prompt_form: str
    def __init__(self, items: _Optional[int] = ..., source: _Optional[str] = ..., batch_size: _Optional[int] = ..., prompt_form: _Optional[str] = ...) -> None: ...

class Coordinates(_message.Message):
    __slots__ = ("basis", "codec")
    BASIS_FIELD_NUMBER: _ClassVar[int]
    CODEC_FIELD_NUMBER: _ClassVar[int]
    basis: str
    codec: str
    def __init__(self, basis: _Optional[str] = ..., codec: _Optional[str] = ...) -> None: ...

class SumTerms(_message.Message):
    __slots__ = ("sum_run", "sum_numbers", "sum_addends", "clipping_norm", "committee_size", "committee_corrupt", "committee_threshold", "fewest_contributors", "sum_broadcast")
    SUM_RUN_FIELD_NUMBER: _ClassVar[int]
    SUM_NUMBERS_FIELD_NUMBER: _ClassVar[int]
    SUM_ADDENDS_FIELD_NUMBER: _ClassVar[int]
    CLIPPING_NORM_FIELD_NUMBER: _ClassVar[int]
    COMMITTEE_SIZE_FIELD_NUMBER: _ClassVar[int]
    COMMITTEE_CORRUPT_FIELD_NUMBER: _ClassVar[int]
    COMMITTEE_THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    FEWEST_CONTRIBUTORS_FIELD_NUMBER: _ClassVar[int]
    SUM_BROADCAST_FIELD_NUMBER: _ClassVar[int]
    sum_run: str
    sum_numbers: int
    sum_addends: int
    clipping_norm: float
    committee_size: int
    committee_corrupt: int
    committee_threshold: int
    fewest_contributors: int
    sum_broadcast: str
    def __init__(self, sum_run: _Optional[str] = ..., sum_numbers: _Optional[int] = ..., sum_addends: _Optional[int] = ..., clipping_norm: _Optional[float] = ..., committee_size: _Optional[int] = ..., committee_corrupt: _Optional[int] = ..., committee_threshold: _Optional[int] = ..., fewest_contributors: _Optional[int] = ..., sum_broadcast: _Optional[str] = ...) -> None: ...

class ContributeRequest(_message.Message):
    __slots__ = ("shift", "training", "coordinates", "basis", "sums")
    SHIFT_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    BASIS_FIELD_NUMBER: _ClassVar[int]
    SUMS_FIELD_NUMBER: _ClassVar[int]
    shift: bytes
    training: Training
    coordinates: Coordinates
    basis: bytes
    sums: SumTerms
    def __init__(self, shift: _Optional[bytes] = ..., training: _Optional[_Union[Training, _Mapping]] = ..., coordinates: _Optional[_Union[Coordinates, _Mapping]] = ..., basis: _Optional[bytes] = ..., sums: _Optional[_Union[SumTerms, _Mapping]] = ...) -> None: ...

class ContributeReply(_message.Message):
    __slots__ = ("update", "items", "loss", "sealed")
    UPDATE_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    SEALED_FIELD_NUMBER: _ClassVar[int]
    update: bytes
    items: int
    loss: float
    sealed: bytes
    def __init__(self, update: _Optional[bytes] = ..., items: _Optional[int] = ..., loss: _Optional[float] = ..., sealed: _Optional[bytes] = ...) -> None: ...

class PersonalizeRequest(_message.Message):
    __slots__ = ("release", "personal", "training")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    PERSONAL_FIELD_NUMBER: _ClassVar[int]
    TRAINING_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    personal: Personal
    training: Training
    def __init__(self, release: _Optional[bytes] = ..., personal: _Optional[_Union[Personal, _Mapping]] = ..., training: _Optional[_Union[Training, _Mapping]] = ...) -> None: ...

class PersonalizeReply(_message.Message):
    __slots__ = ("items", "loss")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    LOSS_FIELD_NUMBER: _ClassVar[int]
    items: int
    loss: float
    def __init__(self, items: _Optional[int] = ..., loss: _Optional[float] = ...) -> None: ...

class EvaluateRequest(_message.Message):
    __slots__ = ("release", "evaluation")
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    EVALUATION_FIELD_NUMBER: _ClassVar[int]
    release: bytes
    evaluation: Evaluation
    def __init__(self, release: _Optional[bytes] = ..., evaluation: _Optional[_Union[Evaluation, _Mapping]] = ...) -> None: ...

class EvaluateReply(_message.Message):
    __slots__ = ("items", "scores")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    items: int
    scores: Scores
    def __init__(self, items: _Optional[int] = ..., scores: _Optional[_Union[Scores, _Mapping]] = ...) -> None: ...

class Scores(_message.Message):
    __slots__ = ("correct", "absolute_error", "squared_error", "rouge_1", "rouge_l", "true_positives", "predicted", "gold", "chrf", "bleu")
    CORRECT_FIELD_NUMBER: _ClassVar[int]
    ABSOLUTE_ERROR_FIELD_NUMBER: _ClassVar[int]
    SQUARED_ERROR_FIELD_NUMBER: _ClassVar[int]
    ROUGE_1_FIELD_NUMBER: _ClassVar[int]
    ROUGE_L_FIELD_NUMBER: _ClassVar[int]
    TRUE_POSITIVES_FIELD_NUMBER: _ClassVar[int]
    PREDICTED_FIELD_NUMBER: _ClassVar[int]
    GOLD_FIELD_NUMBER: _ClassVar[int]
    CHRF_FIELD_NUMBER: _ClassVar[int]
    BLEU_FIELD_NUMBER: _ClassVar[int]
    correct: float
    absolute_error: float
    squared_error: float
    rouge_1: float
    rouge_l: float
    true_positives: _containers.RepeatedScalarFieldContainer[int]
    predicted: _containers.RepeatedScalarFieldContainer[int]
    gold: _containers.RepeatedScalarFieldContainer[int]
    chrf: float
    bleu: float
    def __init__(self, correct: _Optional[float] = ..., absolute_error: _Optional[float] = ..., squared_error: _Optional[float] = ..., rouge_1: _Optional[float] = ..., rouge_l: _Optional[float] = ..., true_positives: _Optional[_Iterable[int]] = ..., predicted: _Optional[_Iterable[int]] = ..., gold: _Optional[_Iterable[int]] = ..., chrf: _Optional[float] = ..., bleu: _Optional[float] = ...) -> None: ...

class MomentsRequest(_message.Message):
    __slots__ = ("pairs",)
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pairs: Pairs
    def __init__(self, pairs: _Optional[_Union[Pairs, _Mapping]] = ...) -> None: ...

class MomentsReply(_message.Message):
    __slots__ = ("moments", "pairs")
    MOMENTS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    moments: bytes
    pairs: int
    def __init__(self, moments: _Optional[bytes] = ..., pairs: _Optional[int] = ...) -> None: ...

class ProbeRequest(_message.Message):
    __slots__ = ("pairs", "probes", "view_digest", "view")
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    PROBES_FIELD_NUMBER: _ClassVar[int]
    VIEW_DIGEST_FIELD_NUMBER: _ClassVar[int]
    VIEW_FIELD_NUMBER: _ClassVar[int]
    pairs: Pairs
    probes: bytes
    view_digest: str
    view: bytes
    def __init__(self, pairs: _Optional[_Union[Pairs, _Mapping]] = ..., probes: _Optional[bytes] = ..., view_digest: _Optional[str] = ..., view: _Optional[bytes] = ...) -> None: ...

class ProbeReply(_message.Message):
    __slots__ = ("sums", "pairs")
    SUMS_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    sums: bytes
    pairs: int
    def __init__(self, sums: _Optional[bytes] = ..., pairs: _Optional[int] = ...) -> None: ...

class PullRequest(_message.Message):
    __slots__ = ("positions", "max_items", "batch_size", "prompt_form")
    POSITIONS_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    BATCH_SIZE_FIELD_NUMBER: _ClassVar[int]
    PROMPT_FORM_FIELD_NUMBER: _ClassVar[int]
    positions: str
    max_items: int
    batch_size: int
    prompt_form: str
    def __init__(self, positions: _Optional[str] = ..., max_items: _Optional[int] = ..., batch_size: _Optional[int] = ..., prompt_form: _Optional[str] = ...) -> None: ...

class PullReply(_message.Message):
    __slots__ = ("pull", "pairs")
    PULL_FIELD_NUMBER: _ClassVar[int]
    PAIRS_FIELD_NUMBER: _ClassVar[int]
    pull: bytes
    pairs: int
    def __init__(self, pull: _Optional[bytes] = ..., pairs: _Optional[int] = ...) -> None: ...

class SumRequest(_message.Message):
    __slots__ = ("terms", "coordinates", "round", "clients", "envelopes")
    TERMS_FIELD_NUMBER: _ClassVar[int]
    COORDINATES_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    CLIENTS_FIELD_NUMBER: _ClassVar[int]
    ENVELOPES_FIELD_NUMBER: _ClassVar[int]
    terms: SumTerms
    coordinates: Coordinates
    round: int
    clients: _containers.RepeatedScalarFieldContainer[str]
    envelopes: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, terms: _Optional[_Union[SumTerms, _Mapping]] = ..., coordinates: _Optional[_Union[Coordinates, _Mapping]] = ..., round: _Optional[int] = ..., clients: _Optional[_Iterable[str]] = ..., envelopes: _Optional[_Iterable[bytes]] = ...) -> None: ...

class SumReply(_message.Message):
    __slots__ = ("sum", "bad")
    SUM_FIELD_NUMBER: _ClassVar[int]
    BAD_FIELD_NUMBER: _ClassVar[int]
    sum: bytes
    bad: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sum: _Optional[bytes] = ..., bad: _Optional[_Iterable[str]] = ...) -> None: ...
