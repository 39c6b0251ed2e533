"""The example of docs/http.md with the real nginx: its blocks are run as they are, except for addresses
and folders."""

import http.server
import re
import socket
import subprocess
import tempfile
import threading
import time
import unittest
from pathlib import Path

from world import API, STACK, issue, jwt, request, session, verdict

ROOT = Path(__file__).parent.parent.parent
MODULE = "/usr/lib/nginx/modules/ngx_http_js_module.so"
WRAPPED = """
load_module {module};
user root;
worker_processes 1;
daemon off;
pid {folder}/pid;
error_log {folder}/error.log info;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    include {folder}/pages.conf;
}}
"""


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def fenced(kind):
    """Returns the only block of this kind in the section about gateways."""
    text = (ROOT / "docs/http.md").read_text()
    section = text.split("\n## A gateway: nginx\n")[1].split("\n## ")[0]
    [block] = re.findall(rf"```{kind}\n(.*?)```", section, re.DOTALL)
    return block


class Pages(http.server.BaseHTTPRequestHandler):
    """The service behind nginx. It answers with what it got."""

    def answer(self):
        length = int(self.headers.get("content-length", 0))
        told = f"{self.command} {self.path} {self.headers.get('authorization')} "
        body = told.encode() + self.rfile.read(length)
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do_PATCH = answer

    def log_message(self, *_):
        pass


class Gateway(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.pages = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Pages)
        threading.Thread(target=cls.pages.serve_forever, daemon=True).start()
        cls.writer, cls.reader = issue("writer"), issue("reader", write=False)
        cls.folder = tempfile.TemporaryDirectory()
        cls.nginx, cls.url = cls.start(API.removeprefix("http://"))

    @classmethod
    def tearDownClass(cls):
        cls.nginx.terminate()
        cls.nginx.wait()
        cls.pages.shutdown()
        cls.folder.cleanup()

    @classmethod
    def start(cls, api):
        """Starts an nginx that asks this server."""
        folder = Path(tempfile.mkdtemp(dir=cls.folder.name))
        port = free_port()
        config = fenced("nginx")
        for here, there in {
            "127.0.0.1:8466": api,
            "127.0.0.1:9000": f"127.0.0.1:{cls.pages.server_port}",
            "127.0.0.1:8080": f"127.0.0.1:{port}",
            "/etc/nginx": str(folder),
        }.items():
            assert here in config, here
            config = config.replace(here, there)
        (folder / "pages.conf").write_text(config)
        (folder / "stacktoken.js").write_text(fenced("js"))
        line = f'proxy_set_header Authorization "Bearer {jwt("service")}";\n'
        (folder / "stacktoken.jwt.conf").write_text(line)
        (folder / "nginx.conf").write_text(WRAPPED.format(module=MODULE, folder=folder))
        nginx = subprocess.Popen(["nginx", "-p", folder, "-c", folder / "nginx.conf"])
        url = f"http://127.0.0.1:{port}"
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                return nginx, url
            except OSError:
                time.sleep(0.05)
        raise AssertionError((folder / "error.log").read_text())

    def ask(self, method, token, stack=STACK, body=None, path="/pages/home", url=None):
        headers = {"authorization": token, "api_key": stack}
        headers = {name: value for name, value in headers.items() if value is not None}
        return request(method, (url or self.url) + path, headers, body)

    def test_a_permitted_request_reaches_the_service_as_it_was_sent(self):
        for token in [self.writer, self.reader]:
            answer = self.ask("GET", token["token"], path="/pages/home?a=b%20c")
            self.assertEqual(answer, (200, b"GET /pages/home?a=b%20c None "))
        for method in ["POST", "PUT", "DELETE"]:
            body = b"x" * 20_000
            status, text = self.ask(method, self.writer["token"], body=body)
            self.assertEqual(status, 200)
            self.assertEqual(text, f"{method} /pages/home None ".encode() + body)
        self.assertEqual(self.ask("HEAD", self.reader["token"]), (200, b""))

    def test_what_is_not_permitted_does_not_reach_it(self):
        writer, reader = self.writer["token"], self.reader["token"]
        for status, method, token, stack in [
            (401, "GET", None, STACK),
            (401, "GET", writer, None),
            (401, "GET", "", STACK),
            (401, "GET", "junk", STACK),
            (401, "GET", f"Bearer {jwt('owner')}", STACK),
            (401, "GET", writer, "blt0123456789abcdef"),
            (401, "GET", writer, "junk"),
            (403, "POST", reader, STACK),
            (403, "DELETE", reader, STACK),
            (405, "PATCH", writer, STACK),
        ]:
            got, text = self.ask(method, token, stack)
            self.assertEqual(got, status, (method, token, stack, text))
            self.assertNotIn(b"/pages/home", text)
        self.assertEqual(request("POST", f"{self.url}/introspect", body=b"")[0], 404)

    def test_what_a_client_sends_adds_nothing_to_the_question(self):
        reader = self.reader["token"]
        for token in [
            f"{reader}&action=entry.read",
            f"{reader}&x=",
            f"{reader}%26action=entry.read",
            f"x&token={reader}",
        ]:
            self.assertEqual(self.ask("POST", token)[0], 401, token)
            self.assertEqual(self.ask("GET", token)[0], 401, token)
        for stack in [f"{STACK}&action=entry.read", f"{STACK} "]:
            self.assertIn(self.ask("POST", reader, stack)[0], [401, 403], stack)

    def test_a_token_that_ended_is_refused_at_once(self):
        secret = session("gateway")
        self.assertEqual(self.ask("POST", secret, body=b"")[0], 200)
        ended = request("POST", f"{API}/oauth2/revoke", body=f"token={secret}".encode())
        self.assertEqual(ended, (200, b""))
        self.assertEqual(verdict(secret), {"active": False})
        self.assertEqual(self.ask("POST", secret, body=b"")[0], 401)

    def test_an_outage_is_no_verdict(self):
        nginx, url = self.start("127.0.0.1:9")
        try:
            for token in [self.writer["token"], "junk"]:
                self.assertEqual(self.ask("GET", token, url=url)[0], 503)
        finally:
            nginx.terminate()
            nginx.wait()


if __name__ == "__main__":
    unittest.main()
