"""The lab's fixtures, and the evidence of what failed."""

from tests.lab.fixtures import lab_template, module_lab_factory, pytest_runtest_makereport

__all__ = ["lab_template", "module_lab_factory", "pytest_runtest_makereport"]
