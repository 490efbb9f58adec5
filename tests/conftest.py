"""Lets the tests import tests/harness.py wherever pytest is started, and gives back the disk of those that passed."""
import pathlib
import shutil
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))


LONG = ("test_tls.py", "test_routing.py", "test_museum_remote.py", "test_reload.py", "test_real_crashes.py", "test_users.py")


def pytest_collection_modifyitems(items):
    """Files that take a minute and more are begun first: a worker has a whole file, and would have the last one alone."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


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
