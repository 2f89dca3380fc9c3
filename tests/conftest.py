"The cells of the notebooks are tests too, whichever folder pytest is started on: see nbcells.py."

import nbcells


def pytest_addoption(pluginmanager):
    if not pluginmanager.is_registered(nbcells):
        pluginmanager.register(nbcells, "nbcells")
