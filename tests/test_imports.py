"""Imports of large packages: what is switched while they last is as it was afterwards."""

import functools
import gc
import importlib
import subprocess
import sys

import pytest

from avllm.imports import collector_paused, models_listed_once


def _fails():
    with collector_paused():
        assert not gc.isenabled()
        importlib.import_module("no_such_package")


def test_no_garbage_is_looked_for_until_the_import_ends_or_fails():
    assert gc.isenabled()
    with pytest.raises(ModuleNotFoundError):
        _fails()

    assert gc.isenabled()


def test_caches_are_as_python_makes_them_but_for_the_list_of_models():
    bounded = functools.lru_cache
    with models_listed_once():

        @functools.lru_cache
        def create_import_structure_from_path(path):
            return path

        @functools.lru_cache
        def anything(path):
            return path

        @functools.lru_cache(maxsize=2)
        def few(path):
            return path

    assert functools.lru_cache is bounded
    sizes = [cached.cache_info().maxsize for cached in (create_import_structure_from_path, anything, few)]
    assert sizes == [None, 128, 2]


def test_transformers_lists_its_models_once():
    code = (
        "from avllm.imports import models_listed_once\n"
        "with models_listed_once():\n"
        "    import transformers.models\n"
        "from transformers.utils.import_utils import create_import_structure_from_path as listed\n"
        "print(listed.cache_info().hits)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert int(done.stdout) > 100
