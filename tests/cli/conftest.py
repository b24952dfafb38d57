"""A folder to work in."""
from __future__ import annotations

import pytest
from commandline import SOURCE


@pytest.fixture
def digits(tmp_path):
    """A folder with the network of the demo in it."""
    (tmp_path / "digits.onnx").write_bytes((SOURCE / "isomorph" / "data" / "digits.onnx").read_bytes())
    return tmp_path
