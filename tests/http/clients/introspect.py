"""Introspects a token with a public client of RFC 7662, Authlib. Prints the answer in one line. Run by
.ci/http."""

import os
import sys

from authlib.integrations.requests_client import OAuth2Session
from requests.auth import AuthBase


class Bearer(AuthBase):
    """The credential of the service that introspects."""

    def __call__(self, request):
        request.headers["Authorization"] = f"Bearer {os.environ['JWT']}"
        return request


url = f"{os.environ['API']}/oauth2/introspect/{os.environ['STACK']}"
response = OAuth2Session().introspect_token(
    url, token=os.environ["TOKEN"], token_type_hint="access_token", auth=Bearer()
)
# Only a response with status 200 is a verdict.
if response.status_code != 200:
    sys.exit(response.text)
answer = response.json()
parts = [answer.get(name, "") for name in ("scope", "sub", "aud")]
print(str(answer["active"]).lower(), *parts)
