"""What `torch.compile` calls on a CPU."""

import os
import shutil

from tests.conftest import need


def need_compiler():
    """Skip a test where there is no C++ compiler; fail where one is required."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    need(any(name and shutil.which(name) for name in names), "a C++ compiler")
