"""The prior over people, and how a release carries it."""

import json
import math
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from fedperfit.protocol.people.people import People
from fedperfit.protocol.people.prior import Prior, estimated_prior, part
from fedperfit.protocol.people.scatter import MOST_NUMBERS
from fedperfit.protocol.shift.basis import Coordinates
from fedperfit.protocol.shift.basis_sources import random_basis
from fedperfit.protocol.shift.packing import ShiftHeader
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.shift.shift import Shift
from fedperfit.protocol.system.errors import InputError
from fedperfit.protocol.trust.release import Release
from fedperfit.protocol.trust.release_file import parse_release
from fedperfit.protocol.trust.signing import SigningKey

SHAPE = ShiftShape((1, 2), 2, 16, Positions.parse("l3"))
BASIS = random_basis(SHAPE, 3, task="LaMP_2M", fingerprint="f" * 64, seed=0)
HEADER = ShiftHeader(SHAPE, "LaMP_2M", "f" * 64, 2, "float32")
RULE = {"floor": 0.1, "strength": 0.1, "items": 32}


def drawn(count: int = 400) -> torch.Tensor:
    """Coordinates of people who vary along two directions, and little along all others."""
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(BASIS.numbers, 2, generator=generator)).Q
    strong = torch.randn(count, 2, generator=generator) * torch.tensor([3.0, 1.0])
    return strong @ axes.T + 0.05 * torch.randn(count, BASIS.numbers, generator=generator)


def prior(numbers: int = 0) -> Prior:
    people = drawn()
    centred = people - people.mean(0)
    return estimated_prior(centred.T @ centred, len(people) - 1, **RULE, numbers=numbers)


def test_the_factor_makes_the_covariance_of_people_with_a_floor():
    made, people = prior(), drawn()
    covariance = torch.cov(people.T)
    floor = 0.1 * covariance.trace() / len(covariance)
    assert made.floor == pytest.approx(math.sqrt(floor))
    L = made.factor()
    torch.testing.assert_close(L @ L.T, covariance + floor * torch.eye(len(covariance)), rtol=1e-3, atol=1e-4)


def test_few_numbers_go_along_the_leading_directions_alone():
    L = prior(numbers=2).factor()
    assert L.shape == (BASIS.numbers, 2)
    values, axes = torch.linalg.eigh(torch.cov(drawn().T))
    leading = axes[:, -2:]
    torch.testing.assert_close(leading @ (leading.T @ L), L, rtol=1e-3, atol=1e-4)
    assert float(L[:, 0].norm()) == pytest.approx(math.sqrt(values[-1] + prior().floor ** 2), rel=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": 0.0}, "strength"),
        ({"floor": math.nan}, "floor"),
        *(({"floor": large}, "by more than 1e.06") for large in (math.inf, 1e39, 1e200)),
        ({"deviations": torch.tensor([3e38, 1.0])}, "by more than 1e.06"),
        *(({"deviations": torch.tensor([1.0, bad])}, "not positive") for bad in (math.nan, math.inf, 0.0)),
        ({"directions": torch.full((2, BASIS.numbers), math.nan)}, "not orthonormal"),
        ({"items": 0}, "for no items"),
        ({"numbers": 99}, "too many numbers"),
        ({"deviations": torch.tensor([1.0])}, "wrong shape"),
        ({"directions": torch.ones(2, 8)}, "not orthonormal"),
    ],
)
def test_a_prior_that_means_nothing_is_refused(change, message):
    made = prior()
    two = replace(made, directions=made.directions[:2], deviations=made.deviations[:2])
    with pytest.raises(InputError, match=message):
        replace(two, **change)


def test_a_prior_of_more_coordinates_than_a_fit_has_memory_for_is_refused():
    """A release of 3 MB could ask for 8 GB at every edge that fits a personal shift on it."""
    made = prior()

    def along_one_of(numbers: int) -> Prior:
        axis = torch.nn.functional.one_hot(torch.tensor([0]), numbers).float()
        return replace(made, directions=axis, deviations=torch.ones(1))

    assert along_one_of(MOST_NUMBERS).factor().shape == (MOST_NUMBERS, MOST_NUMBERS)
    with pytest.raises(InputError, match=f"{MOST_NUMBERS + 1} coordinates, at most {MOST_NUMBERS}"):
        along_one_of(MOST_NUMBERS + 1)


def test_updates_that_do_not_differ_make_no_prior():
    with pytest.raises(InputError, match="do not tell how people differ"):
        estimated_prior(torch.zeros(4, 4), 3, **RULE)
    with pytest.raises(InputError, match=r"personal-numbers=3: .* 1 directions"):
        estimated_prior(torch.diag(torch.tensor([1.0, 0.0, 0.0, 0.0])), 3, **RULE, numbers=3)


def test_a_part_of_a_basis_has_a_part_of_its_coordinates():
    smaller, places = part(BASIS, 2)
    assert smaller.columns == 2
    numbers = torch.randn(BASIS.numbers)
    whole, own = Coordinates.of(BASIS, numbers), Coordinates.of(smaller, numbers[places])
    assert torch.equal(own.A, whole.A[:, :, :2])
    assert torch.equal(own.b, whole.b)
    with pytest.raises(InputError, match="personal-columns=4"):
        part(BASIS, 4)


@pytest.mark.parametrize("known", [True, False])
def test_a_release_carries_both_and_is_as_before_without(known):
    people = People(BASIS, prior() if known else None)
    key = SigningKey()
    shift = Shift.identity(SHAPE, seed=0)
    plain = Release.first(shift, HEADER, key)
    assert "people" not in plain.fields()
    release = Release.first(shift, HEADER, key, people=people)
    again = parse_release(release.to_bytes())
    again.check_signed_from(key.public)
    assert again.people is not None
    assert again.people.basis.digest == BASIS.digest
    assert (again.people.prior is not None) is known
    if known:
        assert torch.equal(again.people.factor(), people.factor())
    assert again.next(shift, HEADER, key).people is None
    assert plain.next(shift, HEADER, key).followed_by(release, key).crowd == release.crowd


def test_a_release_for_another_shift_or_with_other_parts_is_refused():
    other = replace(HEADER, shape=replace(SHAPE, layers=(0, 2)))
    bad = Release.first(Shift.identity(other.shape, seed=0), other, SigningKey(), people=People(BASIS))
    with pytest.raises(InputError, match="the shape of the personal basis"):
        parse_release(bad.to_bytes())
    data = People(BASIS, prior()).to_bytes()
    for changed in (data[:-4], b"", save(load(data)), save(load(data), {"people": json.dumps({"floor": 1})})):
        with pytest.raises(InputError, match="prior over people"):
            People.from_bytes(changed)
