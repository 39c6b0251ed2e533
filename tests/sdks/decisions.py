"""The expected decision for each request of a client. It comes from the tables of the Rust tests,
and from a table of the requests that only the clients here send."""

from pathlib import Path

HERE = Path(__file__).parent
TABLES = HERE.parent / "it" / "ext_authz" / "data"
JAVASCRIPT = TABLES / "javascript.txt"
OTHERS = (TABLES / "other_clients.txt", HERE / "requests.txt")

Request = tuple[str, str]


class Decisions:
    """The decisions for a token with `read` or with `read-write` access."""

    def __init__(self, access: str, *tables: Path) -> None:
        column = {"read-write": 2, "read": 3}[access]
        lines = [line for table in tables for line in table.read_text().splitlines()]
        rows = [line.split(" ") for line in lines if not line.startswith("#")]
        self.exact = {(row[0], row[1]): row[column] for row in rows}
        self.by_path: dict[Request, set[str]] = {}
        for request, decision in self.exact.items():
            self.by_path.setdefault(without_query(request), set()).add(decision)

    def of(self, request: Request) -> str:
        """Returns the decision. If the query is unknown, returns the decision that all requests of
        this path have."""
        if request in self.exact:
            return self.exact[request]
        decisions = self.by_path.get(without_query(request), set())
        assert len(decisions) == 1, f"{request}: expected one decision, found {decisions}"
        return next(iter(decisions))


def without_query(request: Request) -> Request:
    method, path = request
    return method, path.split("?")[0]
