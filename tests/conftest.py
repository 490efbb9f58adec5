"""Lets the tests import tests/harness.py wherever pytest is started."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent))
