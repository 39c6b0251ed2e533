"""Tests that the vendor's command line exports and imports the same with and without stacktoken."""

import re
import unittest
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import ClassVar

from cli import CommandLine
from server import Issued
from stack import Stack
from upstream import Upstream
from world import WithWorld

EXPORT = ("cm:stacks:export", "--data-dir", "out")
IMPORT = ("cm:stacks:import", "--data-dir", "out/main", "--branch", "main", "--skip-audit")
# The minimum numbers of requests, because two empty exports would be the same too.
EXPORTED, IMPORTED = 22, 28
# The ids that differ between exports, and the address of the API.
VARIES = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|127\.0\.0\.1:\d+")


class Backup(WithWorld):
    """Runs each command through Envoy and, at the same time, directly on another API."""

    upstream: ClassVar[Stack]
    direct: ClassVar[Stack]
    through_envoy: ClassVar[CommandLine]
    without: ClassVar[CommandLine]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.direct = Stack()
        cls.addClassCleanup(cls.direct.stop)
        cls.upstream.public = f"http://{cls.envoy.address}/public"
        cls.direct.public = f"http://{cls.direct.address}/public"
        cls.through_envoy = CommandLine(cls.folder / "through", cls.envoy.address)
        cls.addClassCleanup(cls.through_envoy.stop)
        cls.without = CommandLine(cls.folder / "without", cls.direct.address)
        cls.addClassCleanup(cls.without.stop)

    @classmethod
    def stub(cls) -> Upstream:
        return Stack()

    def test_a_backup_and_its_return_lose_nothing(self) -> None:
        self.run_both(EXPORT, "read", at_least=EXPORTED)
        exported = files(self.through_envoy.home / "out")
        self.assertEqual(exported, files(self.without.home / "out"))
        with self.subTest("with a read token"):
            self.upstream.arrived.clear()
            self.through_envoy.run(self.server.issue("read").secret, *IMPORT)
            self.assertEqual({arrived.method for arrived in self.upstream.arrived}, {"GET"})
        self.run_both(IMPORT, "read-write", at_least=IMPORTED)

    def run_both(self, command: tuple[str, ...], access: str, at_least: int) -> None:
        """Runs a command in both ways. Asserts that both APIs get the same requests."""
        token = self.server.issue(access)
        for stub in (self.upstream, self.direct):
            stub.arrived.clear()
        with ThreadPoolExecutor() as pool:
            lines = (self.through_envoy, self.without)
            said = [pool.submit(line.run, token.secret, *command) for line in lines]
        through, direct = requests(self.upstream), requests(self.direct)
        self.assertEqual(through, direct, said[0].result())
        self.assertGreaterEqual(len(direct), at_least, said[1].result())
        self.require_identities(token, access)

    def require_identities(self, token: Issued, access: str) -> None:
        for arrived in self.upstream.arrived:
            if not arrived.path.startswith("/public/"):
                self.require_identity(arrived, token, access)


def requests(stub: Upstream) -> list[str]:
    """Returns the requests in sorted order, because some are sent concurrently."""
    return sorted(f"{arrived.method} {arrived.path}" for arrived in stub.arrived)


def files(folder: Path) -> dict[str, str]:
    """Returns the contents of all files by name, without the parts that differ between exports."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    texts = {str(path.relative_to(folder)): path.read_text() for path in paths}
    texts = {name: text.replace(str(folder.parent), "") for name, text in texts.items()}
    return {VARIES.sub("", name): VARIES.sub("", text) for name, text in texts.items()}


if __name__ == "__main__":
    unittest.main(verbosity=2)
