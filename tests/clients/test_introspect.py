"""Tests the results that a client of docs/clients reports for a real server, and in an outage."""

import subprocess
import tempfile
import time
import unittest
from pathlib import Path
from typing import ClassVar

import sockets
from client import Client
from server import BINARY, OTHER_STACK, Server, free_port

UNREACHED = "outage: UNAVAILABLE (retry after 1 s)"


class WithServer(unittest.TestCase):
    """One server for all tests of a class."""

    settings: ClassVar[dict[str, str]] = {}
    server: ClassVar[Server]

    @classmethod
    def setUpClass(cls) -> None:
        folder = tempfile.TemporaryDirectory()
        cls.addClassCleanup(folder.cleanup)
        cls.server = Server(Path(folder.name), **cls.settings)
        cls.addClassCleanup(lambda: cls.server.stop())

    def client(
        self,
        address: str | None = None,
        caller: str = "service",
        timeout: float = 10,
        ca: Path | None = None,
    ) -> Client:
        made = Client(address or self.server.address, self.server.jwt(caller), timeout, ca)
        self.addCleanup(made.stop)
        return made


class Verdicts(WithServer):
    def test_live_token_that_may_is_active(self) -> None:
        token = self.server.issue("read-write")
        self.assertEqual(self.client().answer(token.secret, "entry.update"), ("active", 0))

    def test_action_beyond_the_grant_is_denied(self) -> None:
        token = self.server.issue("read")
        told = self.client().answer(token.secret, "entry.update")
        self.assertEqual(told, ("denied: READ_ONLY", 4))

    def test_action_that_is_not_in_the_catalogue_is_denied(self) -> None:
        token = self.server.issue("read-write")
        told = self.client().answer(token.secret, "entry.sing")
        self.assertEqual(told, ("denied: ACTION_UNKNOWN", 4))

    def test_revoked_token_is_inactive(self) -> None:
        token = self.server.issue("read")
        self.server.revoke(token)
        self.assertEqual(self.client().answer(token.secret), ("inactive: REVOKED", 4))

    def test_unrecognized_token_is_inactive(self) -> None:
        self.assertEqual(self.client().answer("stk1_nonsense"), ("inactive: NOT_RECOGNIZED", 4))

    def test_token_of_another_stack_is_inactive(self) -> None:
        token = self.server.issue("read")
        told = self.client().answer(token.secret, stack=OTHER_STACK)
        self.assertEqual(told, ("inactive: NOT_RECOGNIZED", 4))

    def test_what_can_be_no_token_and_no_key_is_inactive(self) -> None:
        client = self.client()
        accent = "stk1_\N{LATIN SMALL LETTER E WITH ACUTE}"
        for impossible in ["", "x" * 513, "x" * 60_000, "stk1 blank", accent]:
            self.assertEqual(client.ask(impossible), "inactive: NOT_RECOGNIZED")
        secret = self.server.issue("read").secret
        for impossible in ["", "x" * 513, "no key"]:
            told = client.ask(secret, stack=impossible)
            self.assertEqual(told, "inactive: NOT_RECOGNIZED")
        self.assertEqual(client.end(), ("", 4))

    def test_several_tokens_are_answered_in_order(self) -> None:
        alive, dead = self.server.issue("read"), self.server.issue("read")
        self.server.revoke(dead)
        client = self.client()
        told = [client.ask(token.secret) for token in (alive, dead, alive)]
        self.assertEqual(told, ["active", "inactive: REVOKED", "active"])
        self.assertEqual(client.end(), ("", 0))


class Unknown(WithServer):
    """A server of a later version with new enum values. The value 99 replaces a current value."""

    ACTIVE = b"\x08\x01"
    REASON, DECISION = b"\x10", b"\x18"
    NOT_RECOGNIZED, READ_ONLY = b"\x01", b"\x09"
    ALLOW, DENY, NEW = b"\x01", b"\x02", b"\x63"

    def changed(self, old: bytes, new: bytes) -> Client:
        later = sockets.Listener(sockets.pass_on(self.server.address, change=(old, new)))
        self.addCleanup(later.close)
        return self.client(later.address)

    def test_unknown_reason_of_an_inactive_token_is_inactive(self) -> None:
        end = self.DECISION + self.DENY
        old, new = self.REASON + self.NOT_RECOGNIZED + end, self.REASON + self.NEW + end
        told = self.changed(old, new).answer("stk1_nonsense")
        self.assertEqual(told, ("inactive: 99", 4))

    def test_unknown_reason_of_a_denied_action_is_denied(self) -> None:
        secret, end = self.server.issue("read").secret, self.DECISION + self.DENY
        begin = self.ACTIVE + self.REASON
        client = self.changed(begin + self.READ_ONLY + end, begin + self.NEW + end)
        self.assertEqual(client.answer(secret, "entry.update"), ("denied: 99", 4))

    def test_unknown_decision_is_no_yes(self) -> None:
        secret, begin = self.server.issue("read").secret, self.ACTIVE + self.DECISION
        told, code = self.changed(begin + self.ALLOW, begin + self.NEW).answer(secret)
        self.assertRegex(told, "^error: (DECISION_)?99$")
        self.assertEqual(code, 1)


class Refusals(WithServer):
    def test_caller_who_may_not_ask_is_an_error(self) -> None:
        token = self.server.issue("read")
        told = self.client(caller="owner").answer(token.secret)
        self.assertEqual(told, ("error: ROLE_REQUIRED", 1))

    def test_caller_with_a_wrong_credential_is_an_error(self) -> None:
        self.server.jwt("forged").write_text("eyJhbGciOiJub25lIn0.e30.")
        token = self.server.issue("read")
        told = self.client(caller="forged").answer(token.secret)
        self.assertEqual(told, ("error: CREDENTIAL_INVALID", 1))

    def test_jwt_that_is_not_there_is_an_error(self) -> None:
        token = self.server.issue("read")
        told = self.client(caller="absent").answer(token.secret)
        self.assertEqual(told, ("error: UNAUTHENTICATED", 1))

    def test_renewed_jwt_is_used_from_the_next_call_on(self) -> None:
        one, two = self.server.issue("read"), self.server.issue("read")
        renewed = self.server.jwt("renewed")
        renewed.write_text(self.server.jwt("owner").read_text())
        client = self.client(caller="renewed")
        self.assertEqual(client.ask(one.secret), "error: ROLE_REQUIRED")
        renewed.write_text(self.server.jwt("service").read_text())
        self.assertEqual(client.ask(two.secret), "active")

    def test_question_that_is_malformed_is_an_error(self) -> None:
        token = self.server.issue("read")
        told = self.client().answer(token.secret, "no-verb")
        self.assertEqual(told, ("error: INVALID_FIELD", 1))

    def test_plaintext_beyond_loopback_is_refused(self) -> None:
        client = self.client("192.0.2.1:50051")
        self.assertEqual(client.end(), ("", 2))
        self.assertIn("without --ca the server must be on loopback", client.complaints)


class Outages(WithServer):
    def test_server_that_is_gone_is_an_outage(self) -> None:
        token = self.server.issue("read")
        began = time.monotonic()
        told = self.client(f"127.0.0.1:{free_port()}", timeout=1).answer(token.secret)
        self.assertEqual(told, (UNREACHED, 5))
        self.assertLess(time.monotonic() - began, 10)

    def test_server_that_is_silent_is_an_outage_at_the_deadline(self) -> None:
        silence = sockets.Listener(sockets.say_nothing)
        self.addCleanup(silence.close)
        told = self.client(silence.address, timeout=0.5).answer(self.server.issue("read").secret)
        self.assertEqual(told, ("outage: DEADLINE_EXCEEDED (retry after 1 s)", 5))

    def test_outage_shorter_than_the_deadline_is_not_noticed(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder))
            token = server.issue("read")
            server.stop()
            nobody = sockets.Listener(sockets.slam)
            client = Client(nobody.address, server.jwt("service"), timeout=20)
            client.send(token.secret)
            self.assertTrue(nobody.visited.wait(20))
            nobody.close()
            server = Server(Path(folder), listen=nobody.address)
            self.addCleanup(server.stop)
            self.assertEqual(client.line(), "active")
            server.stop()
            self.assertEqual(client.end(), ("", 0))

    def test_outage_is_not_remembered(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            server = Server(Path(folder), verdict_max_age="60s")
            self.addCleanup(lambda: server.stop())
            token, later = server.issue("read"), server.issue("read")
            client = Client(server.address, server.jwt("service"), timeout=2)
            self.assertEqual(client.ask(token.secret), "active")
            server.stop()
            self.assertEqual(client.ask(later.secret), UNREACHED)
            self.assertEqual(client.ask(token.secret), "active", "cached within max_age")
            server = Server(Path(folder), listen=server.address)
            self.assertEqual(self.until_decided(client, later.secret), "active")
            self.assertEqual(client.end(), ("", 0))

    def until_decided(self, client: Client, secret: str) -> str:
        """Asks until the channel has reconnected. Returns the first result that is not an
        outage."""
        until = time.monotonic() + 20
        while (told := client.ask(secret)).startswith("outage: UNAVAILABLE "):
            self.assertLess(time.monotonic(), until)
        return told


class KeysAway(unittest.TestCase):
    """A server that cannot authenticate any caller and says when to retry."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.server = Server(Path(folder.name))
        self.addCleanup(lambda: self.server.stop())
        self.secret, self.jwt = self.server.issue("read").secret, self.server.jwt("service")
        data = Path(folder.name, "data")
        issuers = (data / "issuers.toml").read_text()
        away = f'jwks_url = "http://127.0.0.1:{free_port()}/keys"'
        lines = [away if line.startswith("jwks_file") else line for line in issuers.splitlines()]
        (data / "away.toml").write_text("\n".join(lines))
        self.server.serve_instead(data / "away.toml")

    def ask(self, timeout: float) -> tuple[tuple[str, int], int]:
        before = self.server.introspections("UNAVAILABLE")
        told = Client(self.server.address, self.jwt, timeout=timeout).answer(self.secret)
        return told, self.server.introspections("UNAVAILABLE") - before

    def test_retry_waits_as_long_as_it_is_told_and_within_the_deadline(self) -> None:
        outage = ("outage: KEYS_UNAVAILABLE (retry after 1 s)", 5)
        self.assertEqual(self.ask(timeout=0.9), (outage, 1), "1 s does not fit into 0.9 s")
        self.assertEqual(self.ask(timeout=1.9), (outage, 2), "1 s fits once into 1.9 s")


class Throttled(WithServer):
    settings: ClassVar[dict[str, str]] = {"unrecognized_per_second": "1"}

    def test_too_many_unrecognized_tokens_are_an_outage(self) -> None:
        secret = self.server.issue("read").secret
        client = self.client()
        told = {client.ask(secret, stack=OTHER_STACK) for _ in range(500)}
        limited = "outage: RATE_LIMITED (retry after 1 s)"
        self.assertEqual(told, {"inactive: NOT_RECOGNIZED", limited})


class Memory(WithServer):
    settings: ClassVar[dict[str, str]] = {"verdict_max_age": "60s"}

    def test_answer_is_reused_within_max_age_and_only_for_the_same_question(self) -> None:
        token = self.server.issue("read")
        client = self.client()
        before = self.server.introspections("OK")
        self.assertEqual([client.ask(token.secret) for _ in range(5)], ["active"] * 5)
        self.assertEqual(self.server.introspections("OK") - before, 1)
        self.assertEqual(client.ask(token.secret, "entry.update"), "denied: READ_ONLY")
        told = client.ask(token.secret, stack=OTHER_STACK)
        self.assertEqual(told, "inactive: NOT_RECOGNIZED")
        self.server.revoke(token)
        self.assertEqual(client.ask(token.secret), "active")
        self.assertEqual(client.ask(token.secret, "entry.delete"), "inactive: REVOKED")


class ShortMemory(WithServer):
    settings: ClassVar[dict[str, str]] = {"verdict_max_age": "400ms"}

    def test_revoke_is_seen_after_max_age(self) -> None:
        token = self.server.issue("read")
        client = self.client()
        self.assertEqual(client.ask(token.secret), "active")
        self.server.revoke(token)
        time.sleep(0.5)
        self.assertEqual(client.ask(token.secret), "inactive: REVOKED")

    def test_max_age_counts_from_when_the_question_was_sent(self) -> None:
        # The answer is older than max_age when it arrives, so the client uses it only once.
        slow = sockets.Listener(sockets.pass_on(self.server.address, hold=0.5))
        self.addCleanup(slow.close)
        token = self.server.issue("read")
        client = self.client(slow.address, timeout=20)
        self.assertEqual(client.ask(token.secret), "active")
        self.server.revoke(token)
        self.assertEqual(client.ask(token.secret), "inactive: REVOKED")


class Encrypted(WithServer):
    folder: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.folder = cls.server.folder
        for name in ("server", "stranger"):
            subprocess.run(
                ["openssl", "req", "-x509", "-nodes", "-days", "2", "-subj", f"/CN={name}"]
                + ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
                + ["-addext", "subjectAltName=IP:127.0.0.1"]
                + ["-keyout", f"{cls.folder}/{name}.key", "-out", f"{cls.folder}/{name}.pem"],
                capture_output=True,
                check=True,
            )

    def ask(self, ca: str, timeout: float) -> tuple[str, int]:
        certificate, key = self.folder / "server.pem", self.folder / "server.key"
        front = sockets.Listener(sockets.behind_tls(self.server.address, certificate, key))
        self.addCleanup(front.close)
        secret = self.server.issue("read").secret
        return self.client(front.address, ca=self.folder / ca, timeout=timeout).answer(secret)

    def test_server_with_a_certificate_of_the_ca_is_asked(self) -> None:
        self.assertEqual(self.ask("server.pem", timeout=10), ("active", 0))

    def test_server_with_another_certificate_is_an_outage(self) -> None:
        self.assertEqual(self.ask("stranger.pem", timeout=2), (UNREACHED, 5))


if __name__ == "__main__":
    print(f"server: {BINARY}")
    unittest.main(verbosity=2)
