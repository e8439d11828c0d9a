"""The hub's refusals as one line: what, where, what to do."""

from __future__ import annotations

import importlib
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import get_session

from rk_gemma_runtime.errors import InputError, RkGemmaError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

WORDS = 200


class HubError(RkGemmaError):
    """The hub could not be reached, or failed. What was downloaded stays, and the same command goes on."""


def transport_errors() -> tuple[type[Exception], ...]:
    """Name what the client's HTTP library raises when a connection fails: another library with each of its majors."""
    library: Any = importlib.import_module(type(get_session()).__module__.partition(".")[0])
    return (library.RequestError, library.InvalidURL)


@contextmanager
def hub_faults(repository: str, revision: str = "") -> Iterator[None]:
    """Turn what huggingface_hub raises into this product's errors."""
    try:
        yield
    except HFValidationError as error:
        raise UsageError(f"{repository}: not the name of a repository; it has the form OWNER/NAME") from error
    except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
        raise HubError(f"{repository}: {_unreached(error)}") from error
    except HfHubHTTPError as error:
        raise explain(error, repository, revision) from error
    except transport_errors() as error:
        raise HubError(f"{repository}: {endpoint()} cannot be reached: {_short(error)}") from error


@contextmanager
def a_hubs_answer(repository: str) -> Iterator[None]:
    """Turn what an answer of another kind (a login page, a proxy's) makes of the client into HubError."""
    try:
        yield
    except HfHubHTTPError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, HFValidationError):
            raise
        raise HubError(f"{repository}: {endpoint()} did not answer as a hub does: {_short(error)}") from error


def endpoint() -> str:
    """Return the hub's address, without a password that may stand in it."""
    return re.sub(r"//[^/@]*@", "//", constants.ENDPOINT)


def explain(error: HfHubHTTPError, repository: str, revision: str) -> RkGemmaError:
    """Say it in one line."""
    place = f"{endpoint()}/{repository}"
    if isinstance(error, GatedRepoError):
        return InputError(
            f"{repository}: gated: sign in, open {place} and accept its licence, make a token that may read"
            " (settings, access tokens), and give it as HF_TOKEN or by `hf auth login`"
        )
    if isinstance(error, DisabledRepoError):
        return InputError(f"{repository}: disabled by the hub")
    if isinstance(error, RevisionNotFoundError):
        return InputError(f"{repository}: no revision {revision or 'main'}")
    if isinstance(error, EntryNotFoundError):
        return InputError(f"{repository}: a file of it is not there any longer; run the command again")
    status = error.response.status_code if error.response is not None else 0
    if "invalid credentials" in _said(error).lower():
        return InputError(
            f"{repository}: the hub does not know this token; renew HF_TOKEN, or unset it (`hf auth logout`)"
        )
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return InputError(f"{repository}: no such repository on {endpoint()}, or a private one (HF_TOKEN)")
    if status == 429:
        return HubError(f"{repository}: the hub asks to wait (too many requests); try again later, or give HF_TOKEN")
    return HubError(f"{repository}: the hub answered {status or 'with an error'}: {_short(error)}")


def _unreached(error: Exception) -> str:
    if constants.HF_HUB_OFFLINE:
        return "not in the cache, and HF_HUB_OFFLINE is set"
    return f"{endpoint()} cannot be reached: {_short(error)}"


def _said(error: HfHubHTTPError) -> str:
    """What the hub says in words."""
    headers = error.response.headers if error.response is not None else {}
    return f"{headers.get('X-Error-Message', '')} {error.server_message or ''} {error}"


def _short(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    words = re.sub(r"\?[^\s'\"]+", "", " ".join(str(cause).split()))  # of an address: signatures are in there
    return words[:WORDS] or type(cause).__name__
