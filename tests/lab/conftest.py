"""The lab's fixtures for the tests in this folder."""

from __future__ import annotations

from .fixtures import lab_factory, lab_template, module_lab_factory, pytest_runtest_makereport

__all__ = ["lab_factory", "lab_template", "module_lab_factory", "pytest_runtest_makereport"]
