from __future__ import annotations

import pytest

from memorised import Memorised, memorise_photographs


@pytest.fixture(scope="session")
def memorised() -> Memorised:
    return memorise_photographs()
