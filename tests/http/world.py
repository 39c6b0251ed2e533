"""The `stacktoken dev` that .ci/http has started, for the tests in this folder."""

import json
import os
import subprocess
import urllib.error
import urllib.request
from pathlib import Path
from urllib.parse import urlencode

API = os.environ["API"]
GRPC = os.environ["GRPC"]
DATA = Path(os.environ["DATA"])
STACK = "blt00c0ffee00c0ffee"
TOKENS = "/v3/stacks/management_tokens"
GRANT = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT_TYPE = "urn:ietf:params:oauth:token-type:jwt"


def jwt(name):
    """Returns the JWT of a person, the service or the workload of `dev`."""
    return (DATA / f"{name}.jwt").read_text().strip()


def request(method, url, headers=None, body=None):
    """Returns the status and the body of the answer."""
    asked = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(asked, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def form(path, parameters, headers=None):
    """Sends a form. Returns the status and the answer, which is JSON or empty."""
    body = urlencode(parameters).encode()
    status, text = request("POST", API + path, headers, body)
    return status, json.loads(text or "null")


def _cms(method, below="", body=None):
    headers = {"authtoken": jwt("owner"), "api_key": STACK, "content-type": "application/json"}
    status, text = request(method, API + TOKENS + below, headers, body)
    assert status < 300, (status, text)
    return json.loads(text)


def issue(name, write=True):
    """Issues a token, and returns it with its secret."""
    acl = {"read": True, "write": write}
    token = {"name": name, "scope": [{"module": "entry", "acl": acl}], "expires_on": None}
    return _cms("POST", body=json.dumps({"token": token}).encode())["token"]


def listed():
    """Returns all tokens of the stack."""
    return _cms("GET", "?limit=100")["tokens"]


def verdict(secret):
    """Returns the answer about a secret."""
    headers = {"authorization": f"Bearer {jwt('service')}"}
    status, answer = form(f"/oauth2/introspect/{STACK}", {"token": secret}, headers)
    assert status == 200, (status, answer)
    return answer


def session(name):
    """Issues a federated token, and returns the secret of a session of it."""
    command = [os.environ["STACKTOKEN_BIN"], "issue", "--server", f"http://{GRPC}"]
    command += ["--stack", STACK, "--jwt-file", DATA / "owner.jwt", "--name", name]
    command += ["--access", "read-write", "--expires", "1h"]
    command += ["--issuer", "dev", "--claim", "sub=publisher"]
    uid = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
    parameters = {"grant_type": GRANT, "subject_token_type": JWT_TYPE}
    parameters |= {"subject_token": jwt("workload"), "audience": STACK, "token_uid": uid}
    status, answer = form("/oauth2/token", parameters)
    assert status == 200, (status, answer)
    return answer["access_token"]
