"""A stub of the content management API. Its small stack has one resource of each kind."""

import json
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

from upstream import Upstream

Resource = dict[str, Any]

PUBLISHED = {"publish_details": [{"environment": "blt12", "locale": "en-us", "version": 1}]}
TITLE = {"uid": "title", "data_type": "text", "display_name": "Title", "mandatory": True}
PICTURE: Resource = {"uid": "blt2", "filename": "picture.png", "title": "Picture", "is_dir": False}
PICTURE |= {"parent_uid": "blt3", "_version": 1} | PUBLISHED
FOLDER = {"uid": "blt3", "name": "Folder", "is_dir": True, "parent_uid": None}
HOME = {"uid": "blt1", "title": "Home", "locale": "en-us", "_version": 1} | PUBLISHED

# The resources that a GET request lists, by the path of the request.
LISTS: dict[str, list[Resource]] = {
    "stacks/branches": [{"uid": "main", "source": ""}],
    "locales": [
        {"uid": "blt10", "code": "en-us", "name": "English", "fallback_locale": None},
        {"uid": "blt11", "code": "de", "name": "German", "fallback_locale": "en-us"},
    ],
    "environments": [{"uid": "blt12", "name": "development", "urls": []}],
    "extensions": [{"uid": "blt13", "title": "Color", "type": "field", "data_type": "text"}],
    "webhooks": [{"uid": "blt14", "name": "Build", "destinations": []}],
    "taxonomies": [{"uid": "color", "name": "Color"}],
    "global_fields": [{"uid": "seo", "title": "SEO", "schema": [TITLE]}],
    "content_types": [{"uid": "blog", "title": "Blog", "schema": [TITLE], "options": {}}],
    "content_types/blog/entries": [HOME],
    "roles": [{"uid": "blt15", "name": "Writer", "rules": [], "roles": []}],
    "workflows": [{"uid": "blt16", "name": "Review", "workflow_stages": []}],
    "labels": [{"uid": "blt17", "name": "News", "content_types": ["blog"], "parent": []}],
}


class Stack(Upstream):
    """A small stack. `public` is the URL below which its picture can be downloaded."""

    public = ""

    def body(self, method: str, path: str) -> object:
        parts = urlsplit(path)
        name = parts.path.removeprefix("/v3/")
        query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
        if method != "GET":
            return self.made(name)
        if name == "assets":
            return self.assets(query)
        if name in LISTS:
            return self.listed(name, LISTS[name], query)
        return self.single(name)

    def assets(self, query: dict[str, str]) -> object:
        if json.loads(query.get("query", "{}")).get("is_dir"):
            return self.listed("assets", [FOLDER], query)
        return self.listed("assets", [PICTURE | {"url": f"{self.public}/picture.png"}], query)

    def listed(self, name: str, items: list[Resource], query: dict[str, str]) -> object:
        plural = name.rsplit("/", 1)[-1]
        if query.get("count") == "true":
            return {plural: len(items)}
        return {plural: items, "count": len(items)}

    def single(self, name: str) -> object:
        folder, _, uid = name.rpartition("/")
        matches = [item for item in LISTS.get(folder, []) if uid in (item["uid"], item.get("code"))]
        return {singular(folder): matches[0]} if matches else {}

    def made(self, name: str) -> object:
        return {singular(name): {"uid": "blt9"}, "notice": "made"}


def singular(name: str) -> str:
    plural = name.rsplit("/", 1)[-1]
    return re.sub("ies$", "y", plural) if plural.endswith("ies") else plural.removesuffix("s")
