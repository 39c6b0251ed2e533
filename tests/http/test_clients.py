"""Public clients of RFC 7662 introspect: a library each in Go, Python and TypeScript. CLIENTS has their
command lines as JSON, by language."""

import json
import os
import subprocess
import unittest

from world import API, STACK, issue, jwt

UNKNOWN = "stk1_kQ3vX9mT2pL8sR5wY1bN7dF4gH6jZ0cVaEuIoPqW3t37wy"


def ask(command, token, credential, api=API):
    """Runs a client. Returns its exit code and what it prints."""
    told = {"API": api, "STACK": STACK, "JWT": credential, "TOKEN": token}
    done = subprocess.run(
        command, env=os.environ | told, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    return done.returncode, done.stdout.strip()


class Clients(unittest.TestCase):
    def test_each_client_introspects(self):
        token = issue("for public clients")
        for language, command in json.loads(os.environ["CLIENTS"]).items():
            with self.subTest(language):
                active = f"true entry:READ_WRITE {token['uid']} {STACK}"
                self.assertEqual(ask(command, token["token"], jwt("service")), (0, active))
                self.assertEqual(ask(command, UNKNOWN, jwt("service")), (0, "false"))
                # A refused or failed introspection is no verdict.
                for other in [
                    ask(command, token["token"], "junk"),
                    ask(command, token["token"], jwt("owner")),
                    ask(command, token["token"], jwt("service"), "http://127.0.0.1:9"),
                ]:
                    self.assertNotEqual(other[0], 0)
                    self.assertEqual(other[1], "")


if __name__ == "__main__":
    unittest.main()
