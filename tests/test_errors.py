"""The one exception that users see."""

from __future__ import annotations

import pickle

from fastgan.errors import UserError


def test_it_comes_back_from_a_worker_process():
    for error in (UserError("--rows", 3, "4"), UserError("--rows", 3, "4", "Ask for more.")):
        back = pickle.loads(pickle.dumps(error))
        assert type(back) is UserError and str(back) == str(error) and back.args == error.args
