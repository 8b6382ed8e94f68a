"""The interpreter's settings, and the memory that it gives back."""

import gc
import platform
import weakref

import psutil
import pytest

from app.interpreter import give_back_memory


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other allocators have no malloc_trim")
def test_memory_that_lies_free_between_blocks_in_use_goes_back_to_the_system() -> None:
    process = psutil.Process()
    blocks = [bytes(60_000) for _ in range(1000)]
    for at in range(len(blocks)):
        if at % 50:
            blocks[at] = b""
    before = process.memory_info().rss

    give_back_memory()

    assert process.memory_info().rss < before - 20_000_000


def test_garbage_in_cycles_that_grew_old_goes_too() -> None:
    class Node:
        pass

    node = Node()
    node.itself = node  # type: ignore[attr-defined]
    gone = weakref.ref(node)
    for generation in (0, 1):
        gc.collect(generation)
    del node

    give_back_memory()

    assert gone() is None
