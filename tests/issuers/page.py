"""The blocks of a page of docs/federation.md, and how its commands are run."""

import os
import re
import subprocess
from pathlib import Path

from server import BINARY, STACK, Server

DOCUMENT = Path(__file__).parents[2] / "docs" / "federation.md"


def blocks(title: str) -> list[str]:
    """Returns the blocks of a page: the entry, the owner's command and the workload's."""
    section = DOCUMENT.read_text().split(f"\n## {title}\n")[1].split("\n## ")[0]
    found: list[str] = re.findall("```[a-z]+\n(.*?)```", section, re.DOTALL)
    return found


class Place:
    """A folder in which the commands of a page are run: with the program in PATH, and with the JWT
    of the owner."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server, self.folder = server, folder
        (folder / "bin").mkdir(parents=True)
        (folder / "bin" / "stacktoken").symlink_to(BINARY)
        (folder / "owner.jwt").write_text(server.jwt("owner").read_text())

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        path = f"{self.folder / 'bin'}:{os.environ['PATH']}"
        settings = {"PATH": path, "STACKTOKEN_SERVER": f"http://{self.server.address}"}
        return subprocess.run(
            ["sh", "-ec", line],
            cwd=self.folder,
            env=os.environ | settings,
            capture_output=True,
            text=True,
        )

    def exchange(self, line: str) -> tuple[int, str, str]:
        """Runs the line of a workload that sets MANAGEMENT_TOKEN. Returns the exit code, the secret
        and the errors."""
        done = self.run(line + '\nprintf %s "$MANAGEMENT_TOKEN"')
        return done.returncode, done.stdout, done.stderr

    def verdict(self, secret: str) -> str:
        """Returns what a service is answered about a secret."""
        done = subprocess.run(
            [BINARY, "introspect", "--server", f"http://{self.server.address}", "--stack", STACK]
            + ["--jwt-file", str(self.server.jwt("service")), "--action", "entry.update"],
            input=secret,
            capture_output=True,
            text=True,
        )
        return done.stdout
