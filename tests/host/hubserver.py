"""A server on this machine that speaks the hub's protocol, for tests of a download. Standard library only.

    with HubServer() as hub:
        repo = hub.add(Repo("o/model", {"README.md": b"# m", "m.rkllm": LargeFile(10 * GB, head=...)}))
        hub.fault(Cut(1000), at="cdn", file="*.rkllm", times=1)
        ...                                   # HF_ENDPOINT is hub.url; then look at hub.requests, hub.cdn_requests

Three listeners, because clients tell them apart by host name: the hub on 127.0.0.1, the CDN on localhost, and a
mirror on 127.0.0.2 (`mirror_url`) that answers HEAD itself and sends GET of a file to the hub by 301.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from hubaccess import find, refused
from hubapi import ApiAnswers
from hubfaults import Fault, Target, Where
from hubfiles import FileAnswers, Links, from_cdn, missing_file, page
from hubreply import Asked, Reply, refusal
from hubroute import Route, route
from hubwire import Listener

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path
    from types import TracebackType

    from hubeffects import Effect
    from hubrepo import Commit, Repo

MISTAKE = "the test hub itself failed:\n"


class HubServer:
    """The hub, its CDN and a mirror. Leave the `with` block, or call `close`, to end every thread.

    `accounts` are tokens that the hub knows and no repository needs to have let in; any other token that no
    repository names is refused as invalid. Without a token, a repository that does not exist answers `missing`.
    """

    def __init__(
        self, accounts: Iterable[str] = ("hf_stranger",), *, page_size: int = 1000, missing: int = 401,
        link_lifetime: float = 3600,
    ) -> None:  # fmt: skip
        self.accounts = set(accounts)
        self.page_size = page_size
        self.missing = missing
        self.requests: list[Asked] = []
        self.cdn_requests: list[Asked] = []
        self.mirror_requests: list[Asked] = []
        self.mistakes: list[str] = []
        self.repos: dict[str, Repo] = {}
        self._links = Links(link_lifetime)
        self._faults: list[Fault] = []
        self._lock = threading.Lock()
        self._listeners = [
            self._listen("127.0.0.1", self.requests, self._hub),
            self._listen("localhost", self.cdn_requests, self._cdn),
            self._listen("127.0.0.2", self.mirror_requests, self._mirror),
        ]
        self.url, self.cdn_url, self.mirror_url = (listener.url for listener in self._listeners)

    def add(self, repo: Repo) -> Repo:
        """Publish a repository and return it."""
        self.repos[repo.name] = repo
        return repo

    def fault(
        self, *effects: Effect, at: Where = "", repo: str = "*", file: str = "*", method: str | None = None,
        skip: int = 0, times: int | None = None,
    ) -> Fault:  # fmt: skip
        """Let effects strike the requests that fit, after the first `skip`, `times` times (always if None)."""
        fault = Fault(effects, at, repo, file, method, skip, times)
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        """Let everything go well again."""
        with self._lock:
            self._faults.clear()

    def expire_links(self) -> None:
        """Make every signed link that was given out so far invalid."""
        self._links.pass_time(self._links.lifetime)

    def environment(self, home: Path) -> dict[str, str]:
        """Return what a child process needs in its environment to see this hub, a home of its own, and no other."""
        off = ("XET", "TELEMETRY", "UPDATE_CHECK", "PROGRESS_BARS", "IMPLICIT_TOKEN")
        return {"HF_ENDPOINT": self.url, "HF_HOME": str(home), "NO_PROXY": "*", "no_proxy": "*",
                **{f"HF_HUB_DISABLE_{name}": "1" for name in off}}  # fmt: skip

    def close(self) -> None:
        """End all connections and join all threads. May be called twice."""
        while self._listeners:
            self._listeners.pop().close()

    def __enter__(self) -> HubServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self.close()
        if error is None and self.mistakes:
            raise RuntimeError(MISTAKE + "\n".join(self.mistakes))

    def _listen(self, host: str, record: list[Asked], answer: Callable[[Asked], tuple[Target, Reply]]) -> Listener:
        def recorded(asked: Asked) -> Reply:
            record.append(asked)
            target, reply = answer(asked)
            with self._lock:
                struck = [fault for fault in self._faults if fault.strikes(asked.method, target)]
            for effect in (effect for fault in struck for effect in fault.effects):
                reply = effect(reply)
            return reply

        return Listener(host, recorded, self.mistakes)

    def _cdn(self, asked: Asked) -> tuple[Target, Reply]:
        link = self._links.find(asked)
        target = Target("cdn", link.repo, link.file) if link is not None else Target("cdn")
        return target, from_cdn(asked, link)

    def _hub(self, asked: Asked, mirror: bool = False) -> tuple[Target, Reply]:
        way = route(asked)
        return Target(way.where, way.repo, way.file), self._answer(asked, way, mirror)

    def _mirror(self, asked: Asked) -> tuple[Target, Reply]:
        target, reply = self._hub(asked, mirror=True)
        if target.where == "resolve" and asked.method == "GET":
            reply = Reply(301, {"Location": self.url + asked.path})
        return target, reply

    def _answer(self, asked: Asked, way: Route, mirror: bool) -> Reply:
        repo = find(self.repos, way.repo)
        if repo is not None and repo.name != way.repo:
            return Reply(307, {"Location": way.renamed(asked, repo.name)})
        known = self.accounts.union(*(each.tokens for each in self.repos.values()))
        no = refused(asked, way, repo, known, self.missing, self.url)
        if no is not None or repo is None:
            return no or refusal(404)
        commit = repo.find(way.revision)
        if commit is None:
            return refusal(404, "RevisionNotFound", f"Invalid rev id: {way.revision}")
        return self._from_api(asked, way, repo, commit, mirror) or self._from_file(asked, way, repo, commit, mirror)

    def _from_api(self, asked: Asked, way: Route, repo: Repo, commit: Commit, mirror: bool) -> Reply | None:
        answers = ApiAnswers(repo, commit)
        if way.where == "tree":
            return answers.tree(asked, way.file, self.page_size, self.mirror_url if mirror else self.url)
        plain: dict[str, Callable[[], Reply]] = {
            "info": lambda: answers.info(asked), "revision": lambda: answers.info(asked), "refs": answers.refs,
            "paths-info": lambda: answers.paths_info(asked), "auth-check": lambda: Reply(200),
            "page": lambda: page(repo.name),
        }  # fmt: skip
        return plain[way.where]() if way.where in plain else None

    def _from_file(self, asked: Asked, way: Route, repo: Repo, commit: Commit, mirror: bool) -> Reply:
        if way.file not in commit.files:
            return missing_file(repo, commit)
        answers = FileAnswers(repo, commit, way.file, self.url)
        if way.where == "resolve":
            return answers.resolve(asked, self._links, self.cdn_url, mirror)
        return answers.raw(asked) if way.where == "raw" else page(way.file)
