"""Requests for the bytes of files. The hub's client does the rest: addresses, tokens, errors."""

from __future__ import annotations

import re
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from huggingface_hub import constants, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._http import get_session, hf_raise_for_status

from rk_gemma.hub.faults import HubError, transport_errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rk_gemma.hub.files import RemoteFile

T = TypeVar("T")
TRIES = 5  # without a byte between them
PAUSE_S, LONGEST_PAUSE_S, LONGEST_WAIT_S = 1.0, 30.0, 300.0
BUSY = {429, 500, 502, 503, 504}
_RESET = re.compile(r"\bt=(\d+)")  # RateLimit: "api";r=0;t=55


@dataclass
class Patience:
    """How often to try again, and what to do meanwhile; `say` is told of a wait that the hub asks for."""

    sleep: Callable[[float], None] = time.sleep
    say: Callable[[str], None] = lambda line: None
    left: int = TRIES

    def reset(self) -> None:
        """Something came: all tries are there again."""
        self.left = TRIES

    def wait(self, error: Exception, name: str) -> None:
        """Wait before the next try; raise `error` where there is none."""
        self.left -= 1
        if self.left <= 0:
            raise error
        asked = retry_after(error)
        if asked > LONGEST_WAIT_S:
            raise error
        if asked:
            self.say(f"{name}: the hub asks to wait {asked:g} s")
        self.sleep(asked or min(LONGEST_PAUSE_S, PAUSE_S * 2 ** (TRIES - 1 - self.left)))


def retry_after(error: Exception) -> float:
    """Seconds that the hub asks to wait; 0 if it does not say."""
    response = getattr(error, "response", None)
    if response is None:
        return 0.0
    reset = _RESET.search(response.headers.get("RateLimit", ""))
    text = response.headers.get("Retry-After", "") or (reset[1] if reset else "")
    try:
        return max(0.0, float(text))
    except ValueError:  # a date: rare, and the tries are apart anyway
        return 0.0


def patiently(call: Callable[[], T], patience: Patience, name: str) -> T:
    """Make a call of the hub's client, again where the hub is busy; where it cannot be reached, nobody waits. Raises
    what it raises."""
    while True:
        try:
            found = call()
        except HfHubHTTPError as error:
            if not is_passing(error):
                raise
            patience.wait(error, name)
        else:
            patience.reset()
            return found


@contextmanager
def opened(file: RemoteFile, start: int, end: int | None = None) -> Iterator[Any]:
    """Ask for the bytes from `start` (to `end`, exclusive). Yields a response of 200, 206 or 416. The address is
    asked for anew each time, because it expires. Raises what huggingface_hub raises."""
    url = hf_hub_url(file.repository, file.path, revision=file.commit)
    headers = {**build_hf_headers(), "Accept-Encoding": "identity"}
    if start or end is not None:
        headers["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
    silence = constants.HF_HUB_DOWNLOAD_TIMEOUT  # the client's own sessions wait for ever
    with get_session().stream("GET", url, headers=headers, follow_redirects=True, timeout=silence) as response:
        if response.status_code >= 400 and response.status_code != 416:
            response.read()  # its message is in there
            hf_raise_for_status(response)
        yield response


def client_errors() -> tuple[type[Exception], ...]:
    """Name what a request may raise."""
    return (HfHubHTTPError, HubError, *transport_errors())


def is_passing(error: Exception) -> bool:
    """Whether a failure may be over at the next try."""
    if isinstance(error, HfHubHTTPError):
        return error.response is not None and error.response.status_code in BUSY
    return True
