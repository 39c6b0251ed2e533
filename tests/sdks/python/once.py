"""Makes one call of the Python SDK and prints its outcome."""

import json

from observe import STACK, connect, outcome

print(json.dumps(outcome(connect().stack(STACK).content_types().find)))
