"""The test hub (hubserver.py), asked by the real client and by plain HTTP: who may read what, and refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hubask import MODEL, NAME, SIZE, ask, gemma, link_to, whole
from hubeffects import Status, Then, rate_limited
from hubrepo import Repo
from hubserver import HubServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

client = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed; `make check` installs it")

errors = pytest.importorskip("huggingface_hub.errors")


class TestAccess:
    @pytest.mark.parametrize("gated", ["auto", "manual"])
    @pytest.mark.parametrize("file", ["README.md", MODEL])
    def test_a_gated_repository(self, hub: HubServer, download: Callable[..., bytes], gated: str, file: str) -> None:
        repo = hub.add(gemma(gated=gated, tokens={"hf_ok"}))
        for token, status, told in ((False, 401, "must be authenticated"), ("hf_stranger", 403, "authorized list")):
            with pytest.raises(errors.GatedRepoError, match=told) as error:
                download(file, token)
            assert error.value.response.status_code == status
            info = client.HfApi(hub.url, token=token).model_info(NAME)
            assert info.gated == gated and len(info.siblings) == 5
            with pytest.raises(errors.GatedRepoError):
                client.HfApi(hub.url, token=token).auth_check(NAME)
        assert download(file, "hf_ok") == whole(repo.file(file))
        client.HfApi(hub.url, token="hf_ok").auth_check(NAME)

    @pytest.mark.parametrize("missing", [401, 404])
    @pytest.mark.parametrize("name", ["o/absent", NAME])
    def test_missing_and_private_look_alike(self, only_here: None, name: str, missing: int) -> None:
        with HubServer(missing=missing) as hub:
            hub.add(gemma(private=True, tokens={"hf_ok"}))
            for token, status in ((False, missing), ("hf_stranger", 404)):
                # Only over https does the client take a 401 without a code for a missing repository.
                kind = errors.RepositoryNotFoundError if status == 404 else errors.HfHubHTTPError
                with pytest.raises(kind) as error:
                    client.HfApi(hub.url, token=token).model_info(name)
                assert error.value.response.status_code == status
            assert client.HfApi(hub.url, token="hf_ok").model_info(NAME).private

    def test_a_token_that_nobody_has(self, hub: HubServer) -> None:
        hub.add(gemma())
        with pytest.raises(errors.HfHubHTTPError, match="Invalid credentials") as error:
            client.HfApi(hub.url, token="hf_typo").model_info(NAME)
        assert not isinstance(error.value, errors.RepositoryNotFoundError)

    def test_disabled(self, hub: HubServer) -> None:
        hub.add(gemma(disabled=True))
        with pytest.raises(errors.DisabledRepoError):
            client.HfApi(hub.url, token=False).model_info(NAME)

    def test_missing_file_and_revision(self, hub: HubServer, download: Callable[..., bytes], tmp_path: Path) -> None:
        repo = hub.add(gemma())
        with pytest.raises(errors.EntryNotFoundError):
            download("absent.rkllm")
        assert [path.parent.name for path in tmp_path.rglob("absent.rkllm")] == [repo.commit().sha]
        with pytest.raises(errors.RevisionNotFoundError):
            download(revision="absent")
        with pytest.raises(errors.RevisionNotFoundError):
            client.HfApi(hub.url, token=False).model_info(NAME, revision="absent")


class TestStatus:
    @pytest.mark.parametrize(
        ("code", "kind"),
        [
            ("RepoNotFound", errors.RepositoryNotFoundError),
            ("RevisionNotFound", errors.RevisionNotFoundError),
            ("EntryNotFound", errors.EntryNotFoundError),
        ],
    )
    def test_codes(self, hub: HubServer, download: Callable[..., bytes], code: str, kind: type[Exception]) -> None:
        hub.add(gemma())
        hub.fault(Status(404, code, "told"), at="resolve", times=1)
        with pytest.raises(kind, match="told"):
            download()
        assert len(download()) == SIZE

    def test_401_without_a_code(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        hub.add(gemma())
        hub.fault(Status(401))
        for call in (download, lambda: client.HfApi(hub.url, token=False).model_info(NAME)):
            with pytest.raises(errors.HfHubHTTPError) as error:
                call()
            assert error.value.response.status_code == 401
            assert "x-error-code" not in error.value.response.headers

    @pytest.mark.parametrize("form", ["Retry-After", "RateLimit"])
    @pytest.mark.parametrize("times", [1, 3])
    def test_too_many_requests(
        self, hub: HubServer, download: Callable[..., bytes], slept: list[float], form: Any, times: int
    ) -> None:
        hub.add(gemma())
        fault = hub.fault(rate_limited(7, form), at="cdn", times=times)
        assert len(download()) == SIZE
        assert slept == [8.0] * times and fault.struck == times

    @pytest.mark.parametrize("status", [500, 502, 503, 504])
    def test_a_server_in_trouble(self, hub: HubServer, download: Callable[..., bytes], status: int) -> None:
        hub.add(gemma())
        hub.fault(Status(status), at="cdn", times=2)
        for _ in range(2):
            with pytest.raises(errors.HfHubHTTPError) as error:
                download()
            assert error.value.response.status_code == status
        assert len(download()) == SIZE

    def test_only_what_fits_is_struck(self, hub: HubServer) -> None:
        hub.add(gemma())
        hub.add(Repo("o/other", {MODEL: b"x"}))
        hub.fault(Status(500), at="resolve", repo="c01zaut/*", file="*.rkllm", method="GET", skip=1, times=2)
        path = f"/{NAME}/resolve/main"
        assert [ask(hub.url, f"{path}/{MODEL}").status for _ in range(5)] == [302, 500, 500, 302, 302]
        hub.clear_faults()
        hub.fault(Status(500), at="resolve", repo=NAME, file="*.rkllm", method="GET")
        others = [
            f"{path}/README.md",
            f"/api/models/{NAME}",
            f"/{NAME}/raw/main/{MODEL}",
            "/o/other/resolve/main/" + MODEL,
        ]
        assert [ask(hub.url, other).status for other in others] == [200, 200, 200, 302]
        assert ask(hub.url, f"{path}/{MODEL}", "HEAD").status == 302
        hub.clear_faults()
        hub.fault(Status(500), at="api")
        assert [ask(hub.url, path).status for path in (f"/api/models/{NAME}/refs", f"/{NAME}")] == [500, 200]

    def test_an_expired_link_is_asked_for_again(self, hub: HubServer, download: Callable[..., bytes]) -> None:
        hub.add(gemma())
        hub.fault(Then(hub.expire_links), at="resolve", method="GET", times=1)
        assert ask(hub.cdn_url, link_to(hub)).status == 403
        assert len(download()) == SIZE
