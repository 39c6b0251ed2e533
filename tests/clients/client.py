"""Runs the client under test as a user does."""

import json
import os
import subprocess
import threading
from pathlib import Path

from server import STACK

COMMAND: list[str] = json.loads(os.environ["CLIENT"])


class Client:
    """A running client that reads one question per input line and prints one result per output
    line."""

    def __init__(
        self,
        address: str,
        jwt: Path,
        timeout: float = 10,
        ca: Path | None = None,
    ) -> None:
        command = [*COMMAND, "--server", address, "--jwt-file", str(jwt)]
        command += ["--timeout", str(timeout)]
        command += ["--ca", str(ca)] if ca else []
        pipe = subprocess.PIPE
        self.secrets: list[str] = []
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        # If the client never answers, its test must fail, not hang.
        self.watchdog = threading.Timer(30, self.process.kill)
        self.watchdog.start()

    def send(self, secret: str, action: str = "entry.read", stack: str = STACK) -> None:
        self.secrets.append(secret)
        assert self.process.stdin
        self.process.stdin.write(f"{secret}\t{stack}\t{action}\n")
        self.process.stdin.flush()

    def line(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline().rstrip("\n")

    def ask(self, secret: str, action: str = "entry.read", stack: str = STACK) -> str:
        self.send(secret, action, stack)
        return self.line()

    def end(self) -> tuple[str, int]:
        """Returns the remaining output and the exit code. Asserts that no secret was printed."""
        out, self.complaints = self.process.communicate()
        self.watchdog.cancel()
        for secret in filter(None, self.secrets):
            assert secret not in out + self.complaints, "a secret was printed"
        return out.rstrip("\n"), self.process.returncode

    def answer(
        self, secret: str, action: str = "entry.read", stack: str = STACK
    ) -> tuple[str, int]:
        """Asks one question and ends the client. Returns its output and its exit code."""
        told = self.ask(secret, action, stack)
        rest, code = self.end()
        return (told + rest, code)

    def stop(self) -> None:
        """Kills the client."""
        self.watchdog.cancel()
        self.process.kill()
        if self.process.stdin and not self.process.stdin.closed:
            self.process.communicate()
