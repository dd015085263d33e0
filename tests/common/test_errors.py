from __future__ import annotations

import errno
import os

import pytest

from memrecon_fast.common.errors import first_line, one_line, reason


@pytest.mark.parametrize(
    ("error", "in_one_line", "first", "why"),
    [
        (ValueError("no image\nat all"), "ValueError: no image", "no image", "no image at all"),
        (OSError("image file is\ntruncated"), "OSError: image file is", "image file is", "image file is truncated"),
        (RuntimeError(), "RuntimeError", "", "RuntimeError"),
        (KeyError(" \n"), "KeyError: ' \\n'", "' \\n'", "' \\n'"),
        (RuntimeError("\n  CUDA error\n"), "RuntimeError: CUDA error", "CUDA error", "CUDA error"),
    ],
)
def test_an_error_in_one_line(error: Exception, in_one_line: str, first: str, why: str) -> None:
    assert (one_line(error), first_line(error), reason(error)) == (in_one_line, first, why)


def test_the_reason_of_an_error_of_the_system_is_without_the_path() -> None:
    error = OSError(errno.ENOENT, os.strerror(errno.ENOENT), "/some/path")
    assert reason(error) == "No such file or directory"
