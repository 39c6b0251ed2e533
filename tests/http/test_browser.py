"""What a page of another origin can do in a real browser: read nothing, and change nothing. Each attempt
is also made against a server that permits every origin, which shows that the browser does make it."""

import http.server
import json
import os
import signal
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from world import API, STACK, issue, jwt, listed, session, verdict

BROWSER = "chromium-headless-shell"
PAGE = Path(__file__).parent / "page.html"
# Attempts whose answer no page can read, whatever the server permits.
BLIND = {
    "list blindly",
    "create blindly as text",
    "create blindly as a form",
    "create by a crafted form",
    "create by a form",
    "end the session",
    "end the session by a form",
    "end the session by a beacon",
    "frame the document",
    "run the document",
    "open a socket",
}


class Handler(http.server.BaseHTTPRequestHandler):
    def answer(self, body=b"{}", kind="application/json"):
        self.send_response(200)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def sent(self):
        return self.rfile.read(int(self.headers.get("content-length", 0))).decode()

    def log_message(self, *_):
        pass


def serve(handler):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def visit(known):
    """Opens the page in a browser. Returns what it found."""
    found, done = {}, threading.Event()

    class Page(Handler):
        def do_GET(self):
            page = PAGE.read_text().replace("KNOWN", json.dumps(known), 1)
            self.answer(page.encode(), "text/html")

        def do_POST(self):
            found.update(json.loads(self.sent()))
            self.answer()
            done.set()

    server = serve(Page)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--no-sandbox", "--remote-debugging-port=0", f"--user-data-dir={profile}"]
        page = f"http://localhost:{server.server_port}/"
        log = (Path(profile) / "log").open("w+")
        # The command starts further processes, which end with its group.
        browser = subprocess.Popen([BROWSER, *options, page], stderr=log, start_new_session=True)
        try:
            if not done.wait(90):
                raise AssertionError((Path(profile) / "log").read_text())
        finally:
            os.killpg(browser.pid, signal.SIGKILL)
            browser.wait()
            log.close()
    server.shutdown()
    return found


class AnyOrigin(Handler):
    """A server that permits everything to every origin."""

    seen = []

    def end_headers(self):
        self.send_header("access-control-allow-origin", self.headers.get("origin", "*"))
        self.send_header("access-control-allow-credentials", "true")
        self.send_header("access-control-allow-methods", "*, PUT, DELETE")
        asked = self.headers.get("access-control-request-headers", "*")
        self.send_header("access-control-allow-headers", asked)
        super().end_headers()

    def see(self):
        self.seen.append((self.command, self.path, self.sent()))
        self.answer()

    def do_OPTIONS(self):
        self.answer()

    do_GET = do_POST = do_PUT = do_DELETE = see


class OtherOrigin(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.token = issue("seen by a page")["token"]
        cls.session = session("seen by a page too")
        cls.known = {
            "api": API,
            "stack": STACK,
            "owner": jwt("owner"),
            "service": jwt("service"),
            "secret": cls.token,
            "session": cls.session,
        }

    def test_a_page_of_another_origin_reads_and_changes_nothing(self):
        before = listed()
        found = visit(self.known)
        self.assertGreater(len(found), len(BLIND))
        read = {name: what for name, what in found.items() if what.startswith("read")}
        self.assertEqual(read, {})
        self.assertEqual(listed(), before)
        for secret in [self.token, self.session]:
            self.assertTrue(verdict(secret)["active"])

    def test_the_browser_makes_these_attempts(self):
        server = serve(AnyOrigin)
        found = visit(self.known | {"api": f"http://127.0.0.1:{server.server_port}"})
        server.shutdown()
        unread = {name for name, what in found.items() if not what.startswith("read")}
        self.assertEqual(unread, BLIND)
        made = {(method, path.rsplit("/", 1)[1]) for method, path, _ in AnyOrigin.seen}
        for wanted in [("POST", "management_tokens"), ("POST", "revoke"), ("PUT", "x"), ("DELETE", "x")]:
            self.assertIn(wanted, made)
        bodies = [body for _, _, body in AnyOrigin.seen]
        for name in ["by fetch", "by text", "by form", "by a crafted form", "by multipart"]:
            self.assertTrue(any(name in body or name.replace(" ", "+") in body for body in bodies), name)
        ends = [body for body in bodies if self.session in body]
        self.assertEqual(len(ends), 4, "by fetch, by a form, from nowhere and by a beacon")


if __name__ == "__main__":
    unittest.main()
