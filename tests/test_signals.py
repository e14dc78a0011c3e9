"""What a process does about signals while it trains."""

import signal
import subprocess
import sys

import pytest

CODE = """
import os, signal, sys, time
from translate.training import signals
signals.ONE_REQUEST = float(sys.argv.pop(1))
with signals.Signals() as heard:
    for name, pause in zip(sys.argv[1::2], sys.argv[2::2]):
        os.kill(os.getpid(), getattr(signal, name))
        time.sleep(float(pause))
    print(signal.Signals(heard.received).name)
"""


@pytest.mark.parametrize(
    ("within", "sent", "code", "told"),
    [
        (60, "SIGTERM 0", 0, "SIGTERM"),
        (60, "SIGTERM 0 SIGTERM 0 SIGTERM 0", 0, "SIGTERM"),  # one request: a scheduler asks all, and torchrun asks too
        (60, "SIGINT 0 SIGTERM 0", 0, "SIGINT"),
        (0.1, "SIGTERM 0.2 SIGTERM 0", 128 + signal.SIGTERM, ""),
        (60, "SIGINT 0 SIGINT 0", 128 + signal.SIGINT, ""),  # somebody is in a hurry
    ],
)
def test_a_signal_is_remembered_and_a_second_request_ends_all(within: float, sent: str, code: int, told: str) -> None:
    command = [sys.executable, "-c", CODE, str(within), *sent.split()]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout.strip()) == (code, told), ended.stderr


def test_what_is_ended_by_a_signal_cleans_up_undisturbed() -> None:
    code = """
import os, signal
from translate.training.signals import terminable
with terminable():
    try:
        os.kill(os.getpid(), signal.SIGTERM)
    finally:
        os.kill(os.getpid(), signal.SIGTERM)
        print("cleaned up", flush=True)
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.stdout == "cleaned up\n"
    assert "Interrupted: stopped by SIGTERM" in ended.stderr
