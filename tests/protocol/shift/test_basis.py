import struct

import pytest
import torch

from fedperfit.protocol.shift.basis import Basis, Coordinates, coordinate_count
from fedperfit.protocol.shift.basis_sources import StateMoments, federated_basis, public_basis, random_basis
from fedperfit.protocol.shift.positions import Positions
from fedperfit.protocol.shift.selection import LayerGradient
from fedperfit.protocol.shift.shape import ShiftShape
from fedperfit.protocol.system.errors import InputError

SHAPE = ShiftShape(layers=(1, 3), rank=3, hidden_size=20, positions=Positions(0, 7))
ABOUT = {"task": "LaMP_2M", "fingerprint": "f" * 64}


def basis(columns: int = 5, seed: int = 0) -> Basis:
    return random_basis(SHAPE, columns, seed=seed, **ABOUT)


def coordinates(seed: int = 0) -> Coordinates:
    numbers = torch.randn(basis().numbers, generator=torch.Generator().manual_seed(seed))
    return Coordinates.of(basis(), numbers)


def test_a_basis_survives_its_bytes_and_is_named_by_their_digest():
    before, after = basis(), Basis.from_bytes(basis().to_bytes())
    assert torch.equal(before.R, after.R)
    assert torch.equal(before.P, after.P)
    assert (after.shape, after.task, after.fingerprint) == (SHAPE, "LaMP_2M", "f" * 64)
    assert before.digest == after.digest != basis(seed=1).digest


def test_a_random_basis_is_orthonormal_and_its_parts_differ():
    R, P = basis().R, basis().P
    for rows in (R, P):
        assert (rows @ rows.mT - torch.eye(rows.shape[1])).abs().max() < 1e-5
    assert not torch.equal(R, P[:, :3])


def test_coordinates_are_a_r_times_k_plus_r_numbers_a_layer():
    assert coordinate_count(SHAPE, 5) == basis().numbers == 2 * (3 * 5 + 3)
    own = coordinates()
    again = Coordinates.of(basis(), own.numbers)
    assert torch.equal(again.A, own.A)
    assert torch.equal(again.b, own.b)
    with pytest.raises(InputError, match="35"):
        Coordinates.of(basis(), torch.zeros(35))


def test_the_shift_of_coordinates_is_the_equation_written_out():
    own = coordinates()
    shift, h = own.shift(), torch.randn(20)
    for layer in range(2):
        R, P, A, b = own.basis.R[layer], own.basis.P[layer], own.A[layer], own.b[layer]
        expected = sum((sum(A[i, j] * (P[j] @ h) for j in range(5)) + b[i]) * R[i] for i in range(3))
        assert torch.allclose(shift.delta(layer, h), expected, atol=1e-5)
    identity = Coordinates.zero(own.basis).shift()
    assert torch.equal(identity.W, identity.R)
    assert not identity.b.any()


def test_a_public_basis_follows_the_leading_gradients_and_the_states():
    generator = torch.Generator().manual_seed(0)
    axis, deviation = (torch.randn(2, 20, generator=generator, dtype=torch.double) for _ in range(2))
    gradients = [
        LayerGradient((scale * axis.repeat_interleave(2, 0)).float(), torch.ones(4), 8)
        for scale in (1, -2, 3)
    ]
    mean = torch.randn(2, 20, generator=generator, dtype=torch.double)
    moments = StateMoments(mean, deviation[:, :, None] * deviation[:, None] + 1e-6 * torch.eye(20))
    made = public_basis(gradients, moments, SHAPE, 2, seed=0, **ABOUT)
    for layer in range(2):
        gradient = gradients[0].gradient[SHAPE.layers[layer]]
        assert (made.R[layer, 0] @ gradient).abs() == pytest.approx(float(gradient.norm()), rel=1e-4)
        for state in (mean[layer], deviation[layer]):
            inside = made.P[layer].double() @ state
            assert float(inside.norm()) == pytest.approx(float(state.norm()), rel=1e-3)
        assert abs(float(made.P[layer, 0].double() @ mean[layer])) == pytest.approx(float(mean[layer].norm()))


@pytest.mark.parametrize("columns", [2, 3, 5])
def test_a_basis_of_clients_follows_their_leading_gradients_and_reads_along_them(columns):
    generator = torch.Generator().manual_seed(0)
    axes = torch.randn(4, 2, 20, generator=generator)
    gradients = [
        LayerGradient(scale * axes[:, 0] + other * axes[:, 1], torch.ones(4), pairs)
        for scale, other, pairs in ((1, 0, 8), (3, 2, 4))
    ]
    made = federated_basis(gradients, SHAPE, columns, seed=0, **ABOUT)
    other_seed = federated_basis(gradients, SHAPE, columns, seed=1, **ABOUT)
    for index, layer in enumerate(SHAPE.layers):
        span, rows = axes[layer], made.R[index, :2]
        assert torch.allclose(span @ rows.T @ rows, span, atol=1e-4), "two axes hold all gradients"
        read = made.P[index, :2]
        assert torch.allclose(rows @ read.T @ read, rows, atol=1e-4)
        assert not torch.allclose(made.R[index, 2], other_seed.R[index, 2], atol=1e-2), "the rest is random"


@pytest.mark.parametrize("columns", [0, 21])
def test_columns_beyond_the_hidden_size_are_refused(columns):
    with pytest.raises(InputError, match="update-columns"):
        basis(columns)


def test_malformed_bytes_are_refused():
    data = basis().to_bytes()
    for wrong in (b"", data[:7], b"XXXX" + data[4:], data[:-1], data + b"\0\0\0\0", data[:4] + b"\xff" * 4):
        with pytest.raises(InputError):
            Basis.from_bytes(wrong)
    header = b'{"columns":1}'
    with pytest.raises(InputError, match="fields"):
        Basis.from_bytes(b"FPB1" + struct.pack("<I", len(header)) + header)


def test_rows_that_are_not_orthonormal_or_finite_are_refused():
    own = basis()
    for R, P in ((2 * own.R, own.P), (own.R, 2 * own.P)):
        with pytest.raises(InputError, match="orthonormal"):
            Basis(SHAPE, "LaMP_2M", "f", R, P)
    with pytest.raises(InputError, match="finite"):
        Basis(SHAPE, "LaMP_2M", "f", own.R, own.P * float("nan"))
    with pytest.raises(InputError, match="P has shape"):
        Basis(SHAPE, "LaMP_2M", "f", own.R, own.P[:, :0])
