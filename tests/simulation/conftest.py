"""What several test files of the simulation share."""

import pytest
from tests.simulation.compare.small_comparison import begun, run_all

from fedperfit.simulation.compare.cells import Workshop


@pytest.fixture(scope="session")
def every_method(tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """A finished comparison of all methods on a few users."""
    shop = begun(tmp_path_factory.mktemp("compare") / "run")
    run_all(shop)
    return shop
