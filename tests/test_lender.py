"""What is lent: few things, those used last, to several threads and on both sides of a fork."""

from __future__ import annotations

import gc
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from fastgan.lender import Lender


def test_the_one_used_longest_ago_makes_room():
    made = []
    lender = Lender(lambda kind: made.append(kind) or object(), kept=2, at_once=1)
    things = []
    for kind in ("a", "b", "a", "c", "a", "b"):
        with lender.lend(kind) as thing:
            things.append(thing)
        assert len(lender) <= 2
    assert made == ["a", "b", "c", "b"]
    assert things[0] is things[2] is things[4] and things[1] is not things[5]


def test_no_two_have_the_same_thing_and_no_more_than_may_have_one():
    lender, lock, lent = Lender(lambda _: [], kept=3, at_once=2), threading.Lock(), [0]

    def work(kind):
        for _ in range(50):
            with lender.lend(kind) as thing:
                with lock:
                    lent[0] += 1
                    assert lent[0] <= 2 and len(lender) <= 3
                thing.append(kind)
                assert thing == [kind]
                thing.clear()
                with lock:
                    lent[0] -= 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, [0, 1, 2, 3] * 2))


def test_what_fails_takes_no_place():
    lender = Lender(int, kept=1, at_once=1)
    for _ in range(3):
        with pytest.raises(ValueError, match="invalid literal"), lender.lend("x"):
            pass
    with pytest.raises(KeyError), lender.lend("3"):
        raise KeyError
    with lender.lend("3") as thing:
        assert thing == 3 and len(lender) == 1


def test_a_child_has_its_own():
    lender = Lender(lambda _: os.getpid(), kept=1, at_once=1)
    with lender.lend(None):  # which would keep the child waiting for ever
        child = os.fork()
        if not child:
            with lender.lend(None) as thing:
                os._exit(0 if thing == os.getpid() else 1)
        assert os.waitpid(child, 0)[1] == 0


def test_pickles_without_its_things():
    lender = Lender(int, kept=1, at_once=1)
    with lender.lend("3"):
        again = pickle.loads(pickle.dumps(lender))
    with again.lend("4") as thing:
        assert thing == 4 and len(again) == 1


def test_a_child_frees_nothing_of_its_parent():
    """Whether it makes things of its own, fails to, or throws a lender away."""
    parent = os.getpid()
    read, write = os.pipe()

    class Thing:
        def __del__(self):
            if os.getpid() != parent:
                os.write(write, b"freed, ")

    def make(kind):
        if os.getpid() != parent:
            raise ValueError("none here")
        return Thing()

    lenders = [Lender(make, kept=1, at_once=1) for _ in range(2)]
    for lender in lenders:
        with lender.lend("idle"):
            pass
    child = os.fork()
    if not child:
        try:
            with pytest.raises(ValueError, match="none here"), lender.lend("idle"):
                pass
            lenders.clear()
            del lender
            gc.collect()
            os.write(write, b"went on")
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert os.read(read, 99) == b"went on"
    os.close(read)
    os.close(write)
