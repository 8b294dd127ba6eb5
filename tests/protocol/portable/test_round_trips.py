"""Round trips of releases through folders: our own, and pyreft's, whose logits are ours."""

import logging
import resource
from collections.abc import Iterator

import pytest
import torch
from tests.edge.moved_shift import moved

from fedperfit.protocol.model.base_model import EMBEDDED, load
from fedperfit.protocol.portable.pyreft_folder import ABOUT, read_pyreft, write_pyreft
from fedperfit.protocol.portable.release_folder import from_pretrained, save_pretrained
from fedperfit.protocol.shift.injection import injected
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.system.files import write_json
from fedperfit.protocol.trust.published import FILE_NAME
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.signing import SigningKey

IDS = torch.arange(5, 29)[None]


@pytest.fixture(scope="module")
def base():
    return load(EMBEDDED, device="cpu", dtype="float32")


@pytest.fixture
def header(base):
    shape = ShiftShape((3, 4), 4, base.card.hidden_size, Positions.parse("f2+l7"))
    return ShiftHeader(shape, "LaMP_2M", base.card.fingerprint, 5)


@pytest.fixture
def shift(header):
    """One that was trained for a while, so that R is orthonormal only up to rounding."""
    made = moved(header.shape, 1)
    with torch.no_grad():
        made.R += 1e-3 * torch.randn(made.R.shape, generator=torch.Generator().manual_seed(0))
    made.retract()
    return made


def logits(base, shift):
    mask = shift.shape.positions.mask(torch.ones_like(IDS))
    with torch.no_grad(), injected(base.model, [shift], mask):
        return base.model(IDS).logits


def test_to_pyreft_and_back_is_the_same_to_the_bit(base, header, shift, tmp_path):
    write_pyreft(tmp_path / "reft", shift, header)
    again, about = read_pyreft(tmp_path / "reft")
    assert about == header
    for name in ("R", "W", "b"):
        assert torch.equal(getattr(again, name), getattr(shift, name))
    torch.testing.assert_close(logits(base, again), logits(base, shift), atol=1e-5, rtol=0)


@pytest.fixture
def pyreft():
    """The library, whose remarks are not ours."""
    logging.disable(logging.WARNING)
    yield pytest.importorskip("pyreft")
    logging.disable(logging.NOTSET)


def test_pyreft_has_our_logits_and_saves_what_we_read(pyreft, base, header, shift, tmp_path):
    """`ReftModel.load` makes bf16 of every file; for all digits its interventions are made in fp32."""
    write_pyreft(tmp_path / "reft", shift, header)
    rounded = pyreft.ReftModel.load(str(tmp_path / "reft"), base.model)
    kind = {"embed_dim": header.shape.hidden_size, "low_rank_dimension": header.shape.rank}
    representations = [
        {
            **{"layer": layer, "component": "block_output", "low_rank_dimension": header.shape.rank},
            "intervention": pyreft.LoreftIntervention(**kind, dtype=torch.float32),
        }
        for layer in header.shape.layers
    ]
    theirs = pyreft.get_reft_model(base.model, pyreft.ReftConfig(representations=representations))
    assert list(theirs.interventions) == list(rounded.interventions)
    for name, intervention in theirs.interventions.items():
        state = torch.load(tmp_path / "reft" / f"intkey_{name}.bin", weights_only=True)
        intervention.load_state_dict(state)
    places = [0, 1, *range(IDS.shape[1] - 7, IDS.shape[1])]
    locations = {"sources->base": (None, [[places]] * len(theirs.interventions))}
    with torch.no_grad():
        _, run = theirs({"input_ids": IDS}, unit_locations=locations)
    torch.testing.assert_close(run.logits, logits(base, shift), atol=1e-5, rtol=0)
    theirs.save(str(tmp_path / "saved"))
    again, _ = read_pyreft(
        tmp_path / "saved", task="LaMP_2M", fingerprint=header.fingerprint, positions="f2+l7"
    )
    torch.testing.assert_close(logits(base, again), logits(base, shift), atol=1e-5, rtol=0)


def test_what_pyreft_does_not_say_is_asked_for(header, shift, tmp_path):
    write_pyreft(tmp_path / "reft", shift, header)
    (tmp_path / "reft" / ABOUT).unlink()
    with pytest.raises(InputError, match="does not say task, positions; give them"):
        read_pyreft(tmp_path / "reft", fingerprint=header.fingerprint)


@pytest.mark.parametrize("about", [[1], {"task": 5}, {"rounds": "x"}, {"rounds": -1}])
def test_an_odd_file_about_it_is_named(header, shift, tmp_path, about):
    write_pyreft(tmp_path / "reft", shift, header)
    write_json(tmp_path / "reft" / ABOUT, about)
    with pytest.raises(InputError, match=ABOUT):
        read_pyreft(tmp_path / "reft", task="LaMP_2M", fingerprint="0" * 64, positions="f7+l7")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"rotate_layer": torch.ones(192, 4)}, "not orthonormal"),
        ({"bias": torch.zeros(5)}, "do not fit each other"),
        ({"weight": None}, "not LoReFT"),
        ({"weight": torch.full((4, 192), float("nan"))}, "a number is not finite"),
        ({"bias": torch.full((4,), float("inf"))}, "a number is not finite"),
        ({"weight": torch.zeros(4, 192, dtype=torch.complex64)}, "not of plain numbers"),
        ({"weight": torch.zeros(4, 192).to_sparse()}, "not of plain numbers"),
        ({"weight": torch.zeros(1).expand(10**6, 10**6)}, "larger than what it stores"),
    ],
    ids=["rotation", "bias", "weight", "nan", "inf", "complex", "sparse", "spread"],
)
def test_other_interventions_are_told(header, shift, tmp_path, change, told):
    write_pyreft(tmp_path / "reft", shift, header)
    (file, _) = sorted((tmp_path / "reft").glob("*.bin"))
    state = torch.load(file, weights_only=True) | change
    torch.save({name: tensor for name, tensor in state.items() if tensor is not None}, file)
    with pytest.raises(InputError, match=told):
        read_pyreft(tmp_path / "reft")


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x04cos\nsystem\n", b"{}"])
def test_files_that_are_none_are_told_and_run_nothing(header, shift, tmp_path, content):
    write_pyreft(tmp_path / "reft", shift, header)
    sorted((tmp_path / "reft").glob("*.bin"))[0].write_bytes(content)
    with pytest.raises(InputError, match="not LoReFT"):
        read_pyreft(tmp_path / "reft")


def test_a_release_folder_is_read_again_and_verified(header, shift, tmp_path):
    key = SigningKey()
    release = Release.first(shift, header, key)
    save_pretrained(release, tmp_path / "mine", "nobody/model")
    assert from_pretrained(str(tmp_path / "mine"), key.public) == release
    card = (tmp_path / "mine/README.md").read_text()
    for said in ("base_model: nobody/model", "LaMP_2M", "f2+l7", header.fingerprint, key.public):
        assert said in card
    with pytest.raises(InputError, match="foreign key"):
        from_pretrained(str(tmp_path / "mine"), SigningKey().public)
    with pytest.raises(InputError, match="already exists"):
        save_pretrained(release, tmp_path / "mine", "nobody/model")
    (tmp_path / "mine" / FILE_NAME).write_bytes(b"x")
    with pytest.raises(InputError, match=FILE_NAME):
        from_pretrained(str(tmp_path / "mine"), key.public)


def test_a_layer_that_was_lost_on_the_way_is_named(header, shift, tmp_path):
    write_pyreft(tmp_path / "reft", shift, header)
    lost = sorted((tmp_path / "reft").glob("*.bin"))[0]
    lost.unlink()
    with pytest.raises(InputError, match=lost.name):
        read_pyreft(tmp_path / "reft")


def test_another_base_model_than_the_folders_own_is_refused(header, shift, tmp_path):
    write_pyreft(tmp_path / "reft", shift, header)
    assert read_pyreft(tmp_path / "reft", fingerprint=header.fingerprint)[1] == header
    with pytest.raises(InputError, match="for another base model"):
        read_pyreft(tmp_path / "reft", fingerprint="0" * 64)


@pytest.mark.parametrize("name", ["its base model", "/models/mine", "smollm2", "a/b: c\nd", "x/y/z"])
def test_a_card_has_no_base_model_that_a_hub_refuses(header, shift, tmp_path, name):
    save_pretrained(Release.first(shift, header, SigningKey()), tmp_path / "mine", name)
    card = (tmp_path / "mine/README.md").read_text()
    assert "base_model" not in card
    assert f"# A collective shift of {' '.join(name.split())}\n" in card


def test_a_folder_that_is_nowhere_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError, match="neither a folder nor on the hub"):
        from_pretrained("nobody/nothing", "0" * 64)


def test_a_personal_shift_is_no_collective_one(header, tmp_path):
    class Personal(Shift):
        """Stands for the edge's own, which this package does not know."""

    personal = Personal.identity(header.shape, seed=0)
    with pytest.raises(InputError, match="only a collective shift"):
        write_pyreft(tmp_path / "reft", personal, header)
    assert not list(tmp_path.iterdir())


@pytest.fixture
def small_files() -> Iterator[None]:
    """No file may grow beyond 2,000 bytes, which fails as a full disk does, in libraries too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_folder_that_has_no_room_is_a_systems_error_and_leaves_nothing(
    header, shift, tmp_path, small_files: None
):
    with pytest.raises(OSError, match="File too large"):
        write_pyreft(tmp_path / "reft", shift, header)
    assert not list(tmp_path.iterdir())
