"""Seeds are the same on every machine: results on disk depend on them."""

from fedperfit.protocol.system.seeds import seed_from


def test_a_seed_is_63_bits_of_a_hash() -> None:
    assert seed_from("0/u1/3") == 1686006117402693863
    assert 0 <= seed_from("") < 2**63
