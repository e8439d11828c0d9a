"""RKLLMInput and RKLLMInferParam of any layout from Python values."""

from __future__ import annotations

import ctypes as C
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

PROMPT, TOKEN, EMBED, MULTIMODAL = range(4)


@dataclass
class Media:
    """Rows of images, videos or sounds: [items, tokens of one, hidden]. A video's tokens count as one frame."""

    rows: NDArray[np.float32] | None
    start: str = ""
    end: str = ""
    shape: tuple[int, int] | None = None  # items and tokens as told, if not those of rows


@dataclass
class Given:
    """One sequence's input, by what is set."""

    ids: Sequence[int] | None = None
    text: str | bytes | None = None
    rows: NDArray[np.float32] | None = None
    media: dict[str, Media] = field(default_factory=dict)
    role: str | None = None


def _string(text: str | bytes, kept: list[Any]) -> int:
    kept.append(C.create_string_buffer(text.encode() if isinstance(text, str) else text))
    return C.addressof(kept[-1])


def _floats(rows: NDArray[np.float32] | None, kept: list[Any]) -> int | None:
    if rows is None:
        return None
    kept.append(np.ascontiguousarray(rows, np.float32))
    return int(kept[-1].ctypes.data)


def _fill_media(part: Any, name: str, media: Media, kept: list[Any]) -> None:
    items, tokens = media.shape or ((0, 0) if media.rows is None else media.rows.shape[:2])
    own = hasattr(part, name)  # from 1.3.0 each kind has a struct, with its texts
    into = getattr(part, name) if own else part
    setattr(into, f"{name}_embed", _floats(media.rows, kept))
    counts = {"image": ("n_image_tokens", "n_image"), "audio": ("n_audio_tokens", "n_audio"),
              "video": ("n_frame_tokens", "n_video")}[name]  # fmt: skip
    setattr(into, counts[0], tokens)
    if hasattr(into, counts[1]):
        setattr(into, counts[1], items)
    if name == "video":
        into.n_frame_per_video = 1
    if own:
        setattr(into, f"{name}_start", _string(media.start, kept))
        setattr(into, f"{name}_end", _string(media.end, kept))


def _fill(request: Any, given: Given, kept: list[Any]) -> None:
    if given.role is not None:
        request.role = _string(given.role, kept)
    if given.media:
        request.input_type = MULTIMODAL
        request.multimodal_input.prompt = _string(given.text or "", kept)
        for name, media in given.media.items():
            _fill_media(request.multimodal_input, name, media, kept)
    elif given.text is not None:
        request.input_type, request.prompt_input = PROMPT, _string(given.text, kept)
    elif given.rows is not None:
        request.input_type = EMBED
        request.embed_input.embed, request.embed_input.n_tokens = _floats(given.rows, kept), len(given.rows)
    else:
        ids = given.ids or []
        kept.append((C.c_int32 * max(1, len(ids)))(*ids))
        request.input_type = TOKEN
        request.token_input.input_ids, request.token_input.n_tokens = C.addressof(kept[-1]), len(ids)


def input_array(abi: Any, inputs: Sequence[Given]) -> tuple[Any, list[Any]]:
    """The array that rkllm_run takes, and what must live as long as it is read."""
    kept: list[Any] = []
    array = (abi.struct("RKLLMInput") * len(inputs))()
    for request, given in zip(array, inputs, strict=True):
        _fill(request, given, kept)
    return array, kept


def infer_param(
    abi: Any, *, mode: int = 0, new: int = 0, keep: int = 0, sampling: dict[str, float] | None = None,
    lora: str | None = None, save: Path | str | None = None,
) -> tuple[Any, list[Any]]:  # fmt: skip
    """`save` "" stands for a NULL path. Fields that a layout lacks are left out."""
    kept: list[Any] = []
    infer = abi.struct("RKLLMInferParam")(mode=mode)
    for name, value in (("keep_history", keep), ("max_new_tokens", new)):
        if hasattr(infer, name):
            setattr(infer, name, value)
    if sampling:
        neutral = {"temperature": 1.0, "top_p": 1.0, "repeat_penalty": 1.0}
        infer.sampling_params = C.pointer(abi.struct("RKLLMSamplingParam")(**{**neutral, **sampling}))
    if lora is not None:
        infer.lora_params = C.pointer(abi.struct("RKLLMLoraParam")(_string(lora, kept)))
    if save is not None:
        path = _string(str(save), kept) if save else None
        infer.prompt_cache_params = C.pointer(abi.struct("RKLLMPromptCacheParam")(1, path))
    return infer, kept
