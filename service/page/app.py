"""Answers for everything at the metrics' address that is not /metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import resources
from urllib.parse import parse_qs

from gradwire.errors import NotFound
from service.page import answers
from service.store.base import JobStore

FILES: Mapping[str, tuple[str, str]] = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
API = "/api/jobs"
JSON = "application/json"

HEADERS: Mapping[str, str] = {
    # Nothing from elsewhere, nothing inline: what a job is called cannot become a script.
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; base-uri 'none'; "
        "form-action 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """Of HTTP."""

    status: str
    kind: str
    body: bytes
    headers: Mapping[str, str] = field(default_factory=lambda: HEADERS)


@dataclass(frozen=True, slots=True)
class StatusPage:
    """The page's files are for everybody; `is_secret` says for what one has to show the token."""

    store: JobStore

    def is_secret(self, path: str) -> bool:
        """Whether an answer says anything of jobs."""
        return path not in FILES

    def answer(self, path: str, query: str) -> Answer:
        """What a GET gets."""
        if path in FILES:
            name, kind = FILES[path]
            return Answer(status="200 OK", kind=kind, body=_file(name))
        if path == API:
            return _found(lambda: answers.jobs(self.store))
        job_id = path.removeprefix(f"{API}/")
        if job_id != path and "/" not in job_id:
            after = parse_qs(query).get("after", ["0"])[0]
            return _found(lambda: answers.job(self.store, job_id, int(after) if after.isdecimal() else 0))
        return _lost("there is nothing here; the metrics are at /metrics")


def _found(make: Callable[[], bytes]) -> Answer:
    try:
        return Answer(status="200 OK", kind=JSON, body=make())
    except NotFound as error:
        return _lost(error.message)


def _lost(why: str) -> Answer:
    return Answer(status="404 Not Found", kind=JSON, body=json.dumps({"error": why}).encode())


def _file(name: str) -> bytes:
    return resources.files("service.page").joinpath(name).read_bytes()
