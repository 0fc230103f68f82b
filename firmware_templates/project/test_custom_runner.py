"""What ``pio test`` does here: the firmware itself is written to the board and verified.

Not a build of its own: what is tested is what ``pio run -t upload`` writes. The
board's logits are held against the reference by ``bnnmcu verify``, which
therefore has to be installed.

    pio test                               builds, uploads, verifies
    pio test --test-port /dev/ttyACM0      names the port
    pio test --without-uploading           verifies what the board runs
"""

import json
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

from platformio.public import TestCase, TestRunnerBase, TestStatus

# Seconds after an upload until the port of the probe is there again.
START = 2.0


class CustomTestRunner(TestRunnerBase):
    def stage_building(self):
        if self.options.without_uploading and not self.options.without_building:
            self.run_project_targets([])

    def stage_uploading(self):
        if not self.options.without_uploading:
            targets = ["upload", "nobuild"] if self.options.without_building else ["upload"]
            self.run_project_targets(targets)
            time.sleep(START)

    def stage_testing(self):
        if self.options.without_testing:
            return
        status, message, seconds = _verify(self._project(), self.get_test_port() or "auto")
        self.test_suite.add_case(
            TestCase(name="verify", status=status, message=message, duration=seconds)
        )

    def _project(self):
        return str(Path(self.project_config.path).resolve().parent)


def _verify(project, port):
    command = _bnnmcu()
    if command is None:
        return TestStatus.ERRORED, "bnnmcu is not installed: pip install bnnmcu", 0.0
    started = time.monotonic()
    done = subprocess.run(
        [*command, "verify", project, "--port", port, "--json"],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    seconds = time.monotonic() - started
    try:
        result = json.loads(done.stdout)
    except ValueError:
        return TestStatus.ERRORED, f"bnnmcu verify ended with status {done.returncode}", seconds
    if "what" in result and result.get("exit_code") != 1:
        return TestStatus.ERRORED, result["what"], seconds
    if done.returncode != 0:
        return TestStatus.FAILED, "the board's answers are not the reference's", seconds
    return TestStatus.PASSED, f"{result['logits']} logits are the reference's", seconds


def _bnnmcu():
    """The installed command; PlatformIO may live in an environment of its own."""
    if find_spec("bnnmcu") is not None:
        return [sys.executable, "-m", "bnnmcu"]
    program = shutil.which("bnnmcu")
    return None if program is None else [program]
