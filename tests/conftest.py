"""Makes the helpers in ``tests/support`` importable, and hypothesis repeatable."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

from hypothesis import settings

_TESTS = Path(__file__).resolve().parent
sys.path.insert(0, str(_TESTS / "support"))
# A checkout that is not installed is tested too.
sys.path.insert(1, str(_TESTS.parent))

# In the background of a shell Ctrl-C is ignored, by children too; some tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# A test that fails on one machine must fail on all; examples may be slow on a busy one.
settings.register_profile("bnnmcu", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("bnnmcu")
