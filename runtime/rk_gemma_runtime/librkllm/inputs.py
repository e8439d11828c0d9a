"""The four kinds of input, and how each layout takes them (RKLLMInput)."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_float, c_int32
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.errors import UsageError
from rk_gemma_runtime.librkllm.abi.layout import InputType
from rk_gemma_runtime.librkllm.rules import require

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from rk_gemma_runtime.librkllm.abi import Layout
    from rk_gemma_runtime.librkllm.library import Library

MEDIA = ("image", "video", "audio")


@dataclass(frozen=True)
class Prompt:
    """Text (RKLLM_INPUT_PROMPT). From 1.2.0 on the library puts its own chat template around it, and reads control
    tokens that the text spells: never give it text of a stranger. `role` user or tool and `thinking` from 1.2.1."""

    text: str
    role: str = "user"
    thinking: bool = False


@dataclass(frozen=True)
class Tokens:
    """Token ids (RKLLM_INPUT_TOKEN): the prompt is exactly this."""

    ids: Sequence[int]


@dataclass(frozen=True)
class Embeddings:
    """float32 [tokens, hidden] (RKLLM_INPUT_EMBED): what enters the first layer, so for Gemma already times
    sqrt(hidden)."""

    rows: NDArray[Any]


@dataclass(frozen=True)
class Media:
    """Encoder outputs for one kind of tag: float32 [items, tokens, hidden], for video [videos, frames, tokens,
    hidden]. Tags and sizes travel with the input from 1.3.0; before, image tags are given at init and sizes from
    1.2.1b1."""

    rows: NDArray[Any]
    start: str = ""
    end: str = ""
    content: str = ""
    width: int = 0
    height: int = 0


@dataclass(frozen=True)
class MultiModal:
    """Text with <image>, <video> or <audio> tags, and what stands for them (RKLLM_INPUT_MULTIMODAL)."""

    text: str
    image: Media | None = None
    video: Media | None = None
    audio: Media | None = None


Input = Prompt | Tokens | Embeddings | MultiModal


def fill(library: Library, request: Any, item: Input) -> list[Any]:
    """Write `item` into a zeroed RKLLMInput; returns what must live as long as the call. Raises UnsupportedCall."""
    if hasattr(request, "role"):
        request.role = b"user"
    if isinstance(item, Tokens):
        return _fill_tokens(request, item)
    if isinstance(item, Prompt):
        return _fill_prompt(library, request, item)
    if isinstance(item, Embeddings):
        request.input_type = InputType.EMBED
        request.embed_input.embed, kept = _floats(item.rows, 2)
        request.embed_input.n_tokens = len(item.rows)
        return [kept]
    return _fill_multimodal(library, request, item)


def _fill_tokens(request: Any, item: Tokens) -> list[Any]:
    if item.ids and not (0 <= min(item.ids) and max(item.ids) < 1 << 31):
        raise UsageError("a token id is not between 0 and 2^31 - 1")
    array = (c_int32 * len(item.ids))(*item.ids)
    request.input_type = InputType.TOKEN
    request.token_input.input_ids = ctypes.cast(array, POINTER(c_int32))
    request.token_input.n_tokens = len(item.ids)
    return [array]


def _fill_prompt(library: Library, request: Any, item: Prompt) -> list[Any]:
    if item.role != "user":
        require(library, "roles", lambda layout: layout.has("RKLLMInput", "role"))
        request.role = c_text(item.role)
    if item.thinking:
        require(library, "enable_thinking", lambda layout: layout.has("RKLLMInput", "enable_thinking"))
        request.enable_thinking = True
    request.input_type = InputType.PROMPT
    request.prompt_input = c_text(item.text)
    return []


def _fill_multimodal(library: Library, request: Any, item: MultiModal) -> list[Any]:
    part = request.multimodal_input
    request.input_type = InputType.MULTIMODAL
    part.prompt = c_text(item.text)
    if not hasattr(part, "image"):
        return _fill_flat_image(library, part, item)
    kept = []
    for kind in MEDIA:
        media = getattr(item, kind)
        if media is None:
            continue
        require(library, f"{kind} input", lambda layout, kind=kind: _takes(layout, kind))  # type: ignore[misc]
        kept.append(_fill_media(getattr(part, kind), kind, media))
    return kept


def _takes(layout: Layout, kind: str) -> bool:
    return layout.has("RKLLMMultiModalInput", kind) or (kind == "image" and not layout.init_takes_struct)


def _fill_flat_image(library: Library, part: Any, item: MultiModal) -> list[Any]:
    """Up to 1.2.3 there are images only, and their tags were given at init."""
    for kind in ("video", "audio"):
        if getattr(item, kind) is not None:
            require(library, f"{kind} input", lambda layout, kind=kind: _takes(layout, kind))  # type: ignore[misc]
    if item.image is None:
        return []
    if item.image.start or item.image.end or item.image.content:
        require(library, "image tags with the input", lambda layout: layout.has("RKLLMMultiModalInput", "image"))
    if item.image.width or item.image.height:
        require(library, "sizes of images", _counts_images)
    part.image_embed, kept = _floats(item.image.rows, 3)
    part.n_image_tokens = item.image.rows.shape[1]
    if hasattr(part, "n_image"):
        part.n_image, part.image_width, part.image_height = len(item.image.rows), item.image.width, item.image.height
    elif len(item.image.rows) != 1:
        require(library, "prompts with several images", _counts_images)
    return [kept]


def _counts_images(layout: Layout) -> bool:
    return layout.has("RKLLMMultiModelInput", "n_image") or layout.has("RKLLMMultiModalInput", "image")


def _fill_media(part: Any, kind: str, media: Media) -> Any:
    pointer, kept = _floats(media.rows, 4 if kind == "video" else 3)
    shape = media.rows.shape
    setattr(part, f"{kind}_embed", pointer)
    for name in ("start", "end", "content"):
        setattr(part, f"{kind}_{name}", c_text(getattr(media, name)) or None)
    if kind == "video":
        part.n_video, part.n_frame_per_video, part.n_frame_tokens = shape[:3]
        part.frame_width, part.frame_height = media.width, media.height
    else:
        setattr(part, f"n_{kind}", shape[0])
        setattr(part, f"n_{kind}_tokens", shape[1])
    if kind == "image":
        part.image_width, part.image_height = media.width, media.height
    return kept


def c_text(text: str) -> bytes:
    """Encode as UTF-8; the library reads up to the first NUL, so one inside would cut the text silently."""
    data = text.encode("utf-8", errors="surrogateescape")
    if b"\0" in data:
        raise UsageError("a text for librkllmrt cannot contain a NUL character")
    return data


def _floats(rows: NDArray[Any], dimensions: int) -> tuple[Any, Any]:
    """Return a pointer to the rows as contiguous float32, and the array that owns them."""
    import numpy as np

    array = np.ascontiguousarray(rows, dtype=np.float32)
    if array.ndim != dimensions or not array.size:
        raise UsageError(f"embeddings of shape {array.shape}: {dimensions} dimensions are needed, none of them empty")
    return array.ctypes.data_as(POINTER(c_float)), array
