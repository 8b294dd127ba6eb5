"""Updates as coordinates in a frozen basis: by encoding, by basis, by columns, by rounds."""

from typing import Any

from fedperfit.simulation.communication.row import Family
from fedperfit.simulation.communication.training.shift_row import ShiftRow

_PUBLIC: dict[str, Any] = {"update-basis": "public"}
_SIGN: dict[str, Any] = _PUBLIC | {"transport-dtype": "sign"}
_RANDOM: dict[str, Any] = {"update-basis": "random"}
_FEDERATED: dict[str, Any] = {"update-basis": "federated"}


class PublicFloat32(ShiftRow):
    """Coordinates in a public basis, fp32."""

    name = "float32"
    title = "public basis, fp32"
    family = Family.BASIS
    public = True
    update = _PUBLIC


class PublicBfloat16(PublicFloat32):
    """Coordinates in a public basis, bf16."""

    name = "bfloat16"
    title = "public basis, bf16"
    update = _PUBLIC | {"transport-dtype": "bfloat16"}


class PublicInt8(PublicFloat32):
    """Coordinates in a public basis, 8 bits each."""

    name = "int8"
    title = "public basis, int8"
    update = _PUBLIC | {"transport-dtype": "int8"}


class PublicInt4(PublicFloat32):
    """Coordinates in a public basis, 4 bits each."""

    name = "int4"
    title = "public basis, int4"
    update = _PUBLIC | {"transport-dtype": "int4"}


class PublicSign(PublicFloat32):
    """Coordinates in a public basis, one bit each: votes."""

    name = "sign"
    title = "public basis, sign"
    update = _SIGN


class HalfTheRank(PublicFloat32):
    """Votes on half the coordinates, those of a shift of half the rank."""

    name = "sign-r4"
    title = "public basis of rank 4, sign"
    update = _SIGN | {"collective-rank": 4}


class FourColumns(PublicFloat32):
    """Votes on a quarter of the coordinates."""

    name = "sign-k4"
    title = "public basis of 4 columns, sign"
    update = _SIGN | {"update-columns": 4}


class ManyColumns(PublicFloat32):
    """Votes on twice the coordinates."""

    name = "sign-k32"
    title = "public basis of 32 columns, sign"
    update = _SIGN | {"update-columns": 32}


class HalfTheRounds(PublicSign):
    """Votes in half the rounds, after twice the passes in each."""

    name = "sign-half-rounds"
    title = "public basis, sign, half the rounds"
    fewer_rounds = 2


class QuarterOfTheRounds(PublicSign):
    """Votes in a quarter of the rounds, after four times the passes in each."""

    name = "sign-quarter-rounds"
    title = "public basis, sign, a quarter of the rounds"
    fewer_rounds = 4


class RandomFloat32(ShiftRow):
    """Coordinates in a basis drawn from the seed, fp32."""

    name = "random-float32"
    title = "random basis, fp32"
    family = Family.BASIS
    update = _RANDOM


class RandomSign(ShiftRow):
    """Coordinates in a basis drawn from the seed, one bit each."""

    name = "random-sign"
    title = "random basis, sign"
    family = Family.BASIS
    update = _RANDOM | {"transport-dtype": "sign"}


class FederatedFloat32(ShiftRow):
    """Coordinates in a basis of the clients' own gradients, fp32."""

    name = "federated-float32"
    title = "clients' basis, fp32"
    family = Family.BASIS
    update = _FEDERATED


class FederatedInt8(FederatedFloat32):
    """Coordinates in a basis of the clients' own gradients, 8 bits each."""

    name = "federated-int8"
    title = "clients' basis, int8"
    update = _FEDERATED | {"transport-dtype": "int8"}


class FederatedSign(FederatedFloat32):
    """Coordinates in a basis of the clients' own gradients, one bit each: votes."""

    name = "federated-sign"
    title = "clients' basis, sign"
    update = _FEDERATED | {"transport-dtype": "sign"}
