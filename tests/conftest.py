"""Lets the tests import tests/harness.py wherever pytest is started, and gives back the disk of those that passed."""
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    outcome = yield
    item.failed = getattr(item, "failed", False) or outcome.get_result().failed


@pytest.fixture
def tmp_path(request, tmp_path):
    """A spool is some hundreds of MiB: kept for all tests they would fill a small disk. What failed stays, to be looked at."""
    yield tmp_path
    if not getattr(request.node, "failed", False):
        shutil.rmtree(tmp_path, ignore_errors=True)
