"""Who may read what on the test hub, and the answers to those who may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hubreply import refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from hubreply import Asked, Reply
    from hubrepo import Repo
    from hubroute import Route

CONTENTS = ("resolve", "raw", "blob", "auth-check")


def find(repos: Mapping[str, Repo], name: str) -> Repo | None:
    """Return the repository of a name or of a former name."""
    if name in repos:
        return repos[name]
    return next((repo for repo in repos.values() if name in repo.former_names), None)


def refused(
    asked: Asked, way: Route, repo: Repo | None, known: Collection[str], missing: int, url: str
) -> Reply | None:
    """Return why a request gets nothing, or None if it may go on.

    A private repository looks like a missing one; a gated one lists its files and keeps their contents.
    """
    token = token_of(asked)
    if token is not None and token not in known:
        return refusal(401, None, "Invalid credentials in Authorization header")
    if repo is None or (repo.private and token not in repo.tokens):
        if token is None and missing == 401:
            return refusal(401, None, "Invalid username or password.")
        return refusal(404, "RepoNotFound", "Repository not found")
    if repo.disabled:
        return refusal(403, None, "Access to this resource is disabled.")
    if way.where in CONTENTS and not repo.may_read_files(token):
        return _gate(repo, token, url)
    return refusal(404, None, "Not found") if way.where == "unknown" else None


def token_of(asked: Asked) -> str | None:
    """Return the token that a request carries."""
    kind, _, token = (asked.authorization or "").partition(" ")
    return token if kind.lower() == "bearer" else None


def _gate(repo: Repo, token: str | None, url: str) -> Reply:
    text = f"Access to model {repo.name} is restricted"
    if token is None:
        return refusal(401, "GatedRepo", f"{text}. You must be authenticated to access it.")
    told = f"{text} and you are not in the authorized list. Visit {url}/{repo.name} to ask for access."
    return refusal(403, "GatedRepo", told)
