"""Calls of the Python SDK on content."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

Call = Callable[[], Any]

BODY = {"title": "Home"}


def content_types(stack: Any, file: str) -> Iterator[Call]:
    kind = stack.content_types("blog")
    yield lambda: stack.content_types().find()
    yield lambda: stack.content_types().create(BODY)
    yield lambda: stack.content_types().imports(file)
    for name in ("fetch", "delete", "references", "export"):
        yield getattr(kind, name)
    yield lambda: kind.update(BODY)
    yield lambda: kind.set_field_visibility_rules(BODY)


def entries(stack: Any, file: str) -> Iterator[Call]:
    entry = stack.content_types("blog").entry("blt1")
    yield lambda: stack.content_types("blog").entry().find()
    yield lambda: stack.content_types("blog").entry().create(BODY)
    yield lambda: stack.content_types("blog").entry().imports(file)
    for name in ("fetch", "delete", "references", "languages", "unlocalize", "export"):
        yield getattr(stack.content_types("blog").entry("blt1"), name)
    yield lambda: stack.content_types("blog").entry("blt1").update(BODY)
    yield lambda: stack.content_types("blog").entry("blt1").localize(BODY)
    yield lambda: entry.version_naming(3, BODY)
    yield lambda: entry.publish(BODY)
    yield lambda: entry.unpublish(BODY)
    yield lambda: entry.includeVariants("true", "v")


def entry_variants(stack: Any, _: str) -> Iterator[Call]:
    yield lambda: stack.content_types("blog").entry("blt1").variants().find()
    for name in ("fetch", "delete", "versions"):
        yield getattr(stack.content_types("blog").entry("blt1").variants("v", "main"), name)
    for name in ("update", "publish", "unpublish"):
        variant = stack.content_types("blog").entry("blt1").variants("v", "main")
        yield partial(getattr(variant, name), BODY)


def assets(stack: Any, file: str) -> Iterator[Call]:
    asset = stack.assets("blt2")
    yield lambda: stack.assets().find()
    yield lambda: stack.assets().upload(file)
    for name in ("fetch", "delete", "download", "rte", "version", "references"):
        yield getattr(asset, name)
    for name in ("update", "generate", "update_asset_revision", "publish", "unpublish"):
        yield partial(getattr(asset, name), BODY)
    yield lambda: asset.replace(file)
    yield lambda: asset.version_naming(3, BODY)
    yield lambda: asset.version_delete(3)
    yield lambda: asset.specific_asset_type("images")


def folders(stack: Any, _: str) -> Iterator[Call]:
    for name in ("specific_folder", "subfolders", "get_subfolders", "folder", "delete_folder"):
        yield partial(getattr(stack.assets(), name), "f1")
    yield lambda: stack.assets().folder_by_name()
    yield lambda: stack.assets().create_folder(BODY)
    yield lambda: stack.assets().update_or_move("f1", BODY)


def global_fields(stack: Any, file: str) -> Iterator[Call]:
    yield lambda: stack.global_fields().imports(file)
    yield stack.global_fields("seo").export
    yield from plain(stack.global_fields, "seo")


def taxonomies(stack: Any, _: str) -> Iterator[Call]:
    taxonomy = stack.taxonomy("tax")
    yield from plain(stack.taxonomy, "tax")
    yield from plain(taxonomy.terms, "x")
    yield lambda: taxonomy.terms().search("abc")
    yield lambda: taxonomy.terms("x").move(BODY)
    yield taxonomy.terms("x").ancestors
    yield taxonomy.terms("x").descendants


def plain(kind: Callable[..., Any], uid: str) -> Iterator[Call]:
    """Yields the five calls that almost every kind of resource has."""
    yield lambda: kind().find()
    yield lambda: kind().create(BODY)
    yield lambda: kind(uid).fetch()
    yield lambda: kind(uid).update(BODY)
    yield lambda: kind(uid).delete()


ALL = (content_types, entries, entry_variants, assets, folders, global_fields, taxonomies)
