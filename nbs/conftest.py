"Every code cell of the notebooks in this folder is a test: the collector stands in tests/nbcells.py."

import nbcells


def pytest_addoption(pluginmanager):
    if not pluginmanager.is_registered(nbcells):
        pluginmanager.register(nbcells, "nbcells")
