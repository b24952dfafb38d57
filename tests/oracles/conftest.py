"""Fixtures of the tests that compare with other runtimes."""
from __future__ import annotations

import subprocess
from pathlib import Path

import environments
import pytest


@pytest.fixture(scope="session")
def torch_environment():
    """The interpreter that has PyTorch; skips where it cannot be had."""
    return environments.python("torch")


@pytest.fixture(scope="session")
def families(torch_environment, tmp_path_factory):
    """A folder with a small language model of each family, and what transformers computes with it."""
    folder = tmp_path_factory.mktemp("families")
    command = [torch_environment, "-W", "ignore", Path(__file__).with_name("language_model_child.py"), "make", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return folder
