import pytest

from fedperfit.protocol.secure_sums.parameters import CommitteeShape
from fedperfit.protocol.system.errors import InputError


def test_the_remedy_of_the_trap_is_in_the_numbers():
    shape = CommitteeShape(15, 3, 12)
    assert (shape.private, shape.packed) == (6, 6)
    assert shape.private + shape.packed == shape.threshold
    assert shape.columns(300) == 50


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ((1, 1, 1), "committee-size=1"),
        ((101, 1, 90), "committee-size=101"),
        ((15, 0, 12), "committee-corrupt=0"),
        ((15, 15, 15), "committee-corrupt=15"),
        ((15, 3, 9), "expected 10 to 15 answers"),
        ((15, 3, 16), "committee-threshold=16"),
    ],
)
def test_numbers_out_of_bounds_are_refused_in_a_line(numbers, said):
    with pytest.raises(InputError, match=said) as error:
        CommitteeShape(*numbers)
    assert "\n" not in str(error.value)


def test_at_every_allowed_threshold_there_is_room_for_a_number_and_for_the_corrupt():
    for size in range(2, 30):
        for corrupt in range(1, size):
            for threshold in range((size + corrupt) // 2 + 1, size + 1):
                shape = CommitteeShape(size, corrupt, threshold)
                assert shape.packed >= 1
                assert shape.private >= corrupt
