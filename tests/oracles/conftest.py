"""Fixtures of the tests that compare with other runtimes."""
from __future__ import annotations

import environments
import pytest


@pytest.fixture(scope="session")
def torch_environment():
    """The interpreter that has PyTorch; skips where it cannot be had."""
    return environments.python("torch")
