"""Calls of the Python SDK on other resources of a stack, and calls that only a person may make."""

from collections.abc import Iterator
from functools import partial
from typing import Any

from content import BODY, Call, plain


def settings(stack: Any, file: str) -> Iterator[Call]:
    yield from plain(stack.environments, "development")
    yield from plain(stack.locale, "en-at")
    yield from plain(stack.label, "l")
    yield from plain(stack.extension, "x")
    yield from plain(stack.roles, "r")
    yield from plain(stack.metadata, "m")
    yield lambda: stack.metadata("m").publish(BODY)
    yield lambda: stack.metadata("m").unpublish(BODY)
    yield lambda: stack.locale().set_fallback(BODY)
    yield lambda: stack.locale("en-at").update_fallback(BODY)


def webhooks(stack: Any, file: str) -> Iterator[Call]:
    yield from plain(stack.webhooks, "w")
    yield lambda: stack.webhooks().imports(file)
    yield stack.webhooks("w").export
    yield stack.webhooks("w").executions
    yield lambda: stack.webhooks("w").retry("e1")
    yield lambda: stack.webhooks("w").logs("e1")


def workflows(stack: Any, _: str) -> Iterator[Call]:
    """Yields calls on workflows. `publish_request_approval` sends GET, but the API only has
    POST."""
    yield from plain(stack.workflows, "w")
    yield stack.workflows("w").enable
    yield stack.workflows("w").disable
    yield lambda: stack.workflows("w").set_workflow_stage("blog", "blt1", BODY)
    yield lambda: stack.workflows().publish_request_approval("blog", "blt1")
    yield lambda: stack.workflows().create_publish_rule(BODY)
    yield lambda: stack.workflows().update_publish_rule("p", BODY)
    yield lambda: stack.workflows().delete_publish_rule("p")
    yield lambda: stack.workflows().fetch_publish_rule("p")
    yield lambda: stack.workflows().fetch_publish_rules()
    yield lambda: stack.workflows().fetch_publish_rule_content_type("blog")
    yield lambda: stack.workflows().fetch_tasks()


def releases(stack: Any, _: str) -> Iterator[Call]:
    yield from plain(stack.releases, "r1")
    yield lambda: stack.releases("r1").deploy(BODY)
    yield lambda: stack.releases("r1").clone(BODY)
    yield lambda: stack.releases("r1").item().find()
    for name in ("create", "create_multiple", "update", "delete", "delete_multiple", "move"):
        yield partial(getattr(stack.releases("r1").item(), name), BODY)
    for name in ("publish", "unpublish", "delete", "update", "add_items", "update_items"):
        yield partial(getattr(stack.bulk_operation(), name), BODY)
    yield lambda: stack.bulk_operation().job_status("j1")


def branches(stack: Any, _: str) -> Iterator[Call]:
    for kind, uid in ((stack.branch, "b"), (stack.alias, "al")):
        yield kind().find
        yield kind(uid).fetch
        yield kind(uid).delete
    yield lambda: stack.branch().create(BODY)
    yield lambda: stack.alias("al").assign(BODY)


def variants(stack: Any, _: str) -> Iterator[Call]:
    yield from plain(stack.variant_group, "vg")
    yield from plain(stack.variants, "v")
    yield from plain(stack.variant_group("vg").variants, "v")
    yield lambda: stack.variants().fetchByUIDs(["a", "b"])


def logs(stack: Any, _: str) -> Iterator[Call]:
    yield lambda: stack.auditlog().find()
    yield lambda: stack.auditlog("l").fetch()
    yield lambda: stack.publish_queue().find()
    yield lambda: stack.publish_queue("q1").fetch()
    yield lambda: stack.publish_queue("q1").cancel()


def itself(stack: Any, _: str) -> Iterator[Call]:
    for name in ("fetch", "delete", "users", "settings"):
        yield getattr(stack, name)
    for name in ("update", "update_user_role", "transfer_ownership", "share", "unshare"):
        yield partial(getattr(stack, name), BODY)
    yield lambda: stack.create("o", BODY)
    yield lambda: stack.create_settings(BODY)
    yield lambda: stack.reset_settings(BODY)
    yield lambda: stack.accept_ownership("u", "o")
    yield from plain(stack.management_token, "m")
    yield from plain(stack.delivery_token, "d")


def people(client: Any) -> Iterator[Call]:
    yield lambda: client.organizations().find()
    for name in ("fetch", "roles", "stacks", "logs"):
        yield getattr(client.organizations("o1"), name)
    yield lambda: client.organizations("o1").add_users("{}")
    yield lambda: client.organizations("o1").transfer_ownership("{}")
    yield client.user().fetch
    yield lambda: client.user().update(BODY)
    yield lambda: client.user().activate("code", BODY)
    yield lambda: client.user().forgot_password(BODY)
    yield lambda: client.user().reset_password(BODY)
    yield lambda: client.login("someone@example.com", "-")


ALL = (settings, webhooks, workflows, releases, branches, variants, logs, itself)
