"""Everything that a client's request passes through: Envoy, stacktoken, and the API behind them."""

import tempfile
import unittest
from pathlib import Path
from typing import ClassVar

from envoy import Envoy
from server import STACK, Issued, Server
from upstream import Arrived, Upstream

CREDENTIALS = ("authorization", "authtoken", "cookie", "proxy-authorization")


class WithWorld(unittest.TestCase):
    """Starts one world for all tests of a class."""

    maxDiff = None
    folder: ClassVar[Path]
    server: ClassVar[Server]
    upstream: ClassVar[Upstream]
    envoy: ClassVar[Envoy]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.folder = Path(folder.name)
        cls.server = Server(cls.folder)
        cls.addClassCleanup(lambda: cls.server.stop())
        cls.upstream = cls.stub()
        cls.addClassCleanup(cls.upstream.stop)
        jwt = cls.server.jwt("service").read_text().strip()
        cls.envoy = Envoy(cls.folder, cls.server.address, jwt, cls.upstream.address)
        cls.addClassCleanup(cls.envoy.stop)

    @classmethod
    def stub(cls) -> Upstream:
        return Upstream()

    def require_identity(self, arrived: Arrived, token: Issued, access: str) -> None:
        """Asserts that the API gets the identity of the token, but no credential."""
        expected = {
            "x-stacktoken-stack": [STACK],
            "x-stacktoken-token": [token.uid],
            "x-stacktoken-access": [{"read": "READ", "read-write": "READ_WRITE"}[access]],
        }
        expected |= {name: [] for name in CREDENTIALS}
        actual = {name: arrived.values(name) for name in expected}
        self.assertEqual(actual, expected, f"{arrived.method} {arrived.path}")
        self.assertNotIn(token.secret, str(arrived))
