"""The hub's refusals as one line: what, where, what to do."""

from __future__ import annotations

import importlib
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
    return (library.TransportError, OSError)


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
        raise HubError(f"{repository}: {constants.ENDPOINT} cannot be reached: {_short(error)}") from error


def explain(error: HfHubHTTPError, repository: str, revision: str) -> RkGemmaError:
    """Say it in one line."""
    place = f"{constants.ENDPOINT}/{repository}"
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
    if isinstance(error, RepositoryNotFoundError) or status == 401:
        return InputError(f"{repository}: no such repository on {constants.ENDPOINT}, or a private one (HF_TOKEN)")
    if status == 429:
        return HubError(f"{repository}: the hub asks to wait (too many requests); try again later, or give HF_TOKEN")
    return HubError(f"{repository}: the hub answered {status or 'with an error'}: {_short(error)}")


def _unreached(error: Exception) -> str:
    if constants.HF_HUB_OFFLINE:
        return "not in the cache, and HF_HUB_OFFLINE is set"
    return f"{constants.ENDPOINT} cannot be reached: {_short(error)}"


def _short(error: Exception) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, Exception) else error
    return " ".join(str(cause or type(error).__name__).split())[:WORDS] or type(error).__name__
