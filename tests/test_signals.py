"""What a process does about signals while it trains."""

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, time
from translate.training import signals
signals.ONE_REQUEST = 0.5
with signals.Signals() as heard:
    for name, pause in zip(sys.argv[1::2], sys.argv[2::2]):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(float(pause))
    print(signal.Signals(heard.received).name)
"""


@pytest.mark.parametrize(
    ("sent", "code", "told"),
    [
        ("SIGTERM 0", 0, "SIGTERM"),
        ("SIGTERM 0 SIGTERM 0 SIGTERM 0", 0, "SIGTERM"),  # one request: a scheduler asks all, and torchrun asks too
        ("SIGINT 0 SIGTERM 0", 0, "SIGINT"),
        ("SIGTERM 0.6 SIGTERM 0", 128 + signal.SIGTERM, ""),
        ("SIGINT 0 SIGINT 0", 128 + signal.SIGINT, ""),  # somebody is in a hurry
    ],
)
def test_a_signal_is_remembered_and_a_second_request_ends_all(sent: str, code: int, told: str) -> None:
    ended = subprocess.run([sys.executable, "-c", CODE, *sent.split()], capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (code, told), ended.stderr
