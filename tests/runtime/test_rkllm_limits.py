"""Numbers and lengths that no model has, in files whose form is right."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from rkllmkit import U32, U64, Rkllm, gemma_keys

from rk_gemma_runtime.rkllmfile.cursor import CHUNK
from rk_gemma_runtime.rkllmfile.describe import Description, describe
from rk_gemma_runtime.rkllmfile.kinds import MAGIC, foreign_kind
from rk_gemma_runtime.rkllmfile.layout import BUDGET, outline
from rk_gemma_runtime.rkllmfile.source import BytesSource

HUGE = (1 << 63, (1 << 64) - 1)


def read(**keys: Any) -> Description:
    found = describe(BytesSource(Rkllm(keys=gemma_keys(**keys)).data()))
    assert found.kind.name == "rkllm"
    return found


@pytest.mark.parametrize(
    ("field", "key", "given"),
    [
        *(("npu_cores", "rkllm.core_num", ("u64", value)) for value in (0, 17, 99, *HUGE)),
        *(("npu_cores", "rkllm.core_num", ("i32", value)) for value in (-1, -(1 << 31))),
        ("npu_cores", "rkllm.core_num", ("bool", True)),
        *(("max_context", "rkllm.max_context", ("u64", value)) for value in (0, (1 << 20) + 1, *HUGE)),
        ("max_context", "rkllm.max_context", ("i64", -4096)),
        ("vocab", "tokenizer.ggml.tokens", ("strings", [])),
    ],
)
def test_an_impossible_number_is_left_out_with_a_note(field: str, key: str, given: tuple[str, Any]) -> None:
    found = read(**{key: given})
    assert found.fields[field] is None
    assert sum(f"its {field} of" in note for note in found.notes) == 1, found.notes


@pytest.mark.parametrize("value", [0, (1 << 24) + 1, *HUGE])
def test_an_impossible_vocabulary_that_only_a_key_states(value: int) -> None:
    found = read(**{"gemma2.vocab_size": ("u64", value), "tokenizer.ggml.tokens": None})
    assert found.fields["vocab"] is None and any("its vocab of" in note for note in found.notes)


@pytest.mark.parametrize("name", ["bos", "eos"])
@pytest.mark.parametrize("given", [("u32", 256), ("u32", 4294967295), ("i32", -1), ("u64", HUGE[1]), ("f32s", [2.0])])
def test_an_id_that_the_vocabulary_does_not_have(name: str, given: tuple[str, Any]) -> None:
    found = read(**{f"tokenizer.ggml.{name}_token_id": given})
    assert (found.bos if name == "bos" else found.eos) in {None, ()}
    assert given[0] == "f32s" or any(f"its {name} id" in note for note in found.notes)


def test_ids_beside_impossible_ones_stay() -> None:
    assert read(**{"tokenizer.ggml.eos_token_id": ("u32s", [1, 4294967295, 107])}).eos == (1, 107)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.5])
def test_numbers_that_are_not_whole(value: float) -> None:
    found = read(**{"tokenizer.ggml.eos_token_id": ("f32s", [value]), "gemma2.block_count": ("f64s", [value])})
    assert (found.eos, found.shape) == ((), {})


@pytest.mark.parametrize("key", ["embedding_length", "block_count", "attention.head_count", "feed_forward_length"])
@pytest.mark.parametrize("value", [0, (1 << 24) + 1, *HUGE])
def test_an_impossible_shape_is_left_out(key: str, value: int) -> None:
    found = read(**{f"gemma2.{key}": ("u64", value)})
    assert found.shape == {} and any("its shape" in note for note in found.notes)


class Large(BytesSource):
    """A head in a file of any size: zeros follow. Counts what is read."""

    def __init__(self, head: bytes, size: int) -> None:
        super().__init__(head)
        self.size, self.taken = size, 0

    def read(self, offset: int, length: int) -> bytes:
        length = min(length, self.size - offset)
        self.taken += length
        return super().read(offset, length).ljust(length, b"\0")


@pytest.mark.parametrize("count", [123, 123 + 256, 0x7B22, (0x7B << 56) + 123])
def test_an_rkllm_is_not_taken_for_safetensors(count: int) -> None:
    assert foreign_kind(Large(MAGIC + U32.pack(3) + U64.pack(count), 15 << 30)) is None


@pytest.mark.parametrize("mask", [b"\1\2\3\4", b"abcd"])
def test_nor_one_under_another_mask(mask: bytes) -> None:
    assert foreign_kind(Large(mask + U32.pack(3) + U64.pack(123), 30 << 30)) is None


class Strided(Large):
    """Strings of 2 MiB wherever one looks, after a head."""

    def read(self, offset: int, length: int) -> bytes:
        self.taken += length
        head = BytesSource.read(self, offset, length)
        return head if offset < 24 else head + U64.pack(2 * CHUNK) * ((length - len(head)) // 8)


def key(name: str, value: bytes) -> bytes:
    return U64.pack(len(name)) + name.encode() + value


def test_strings_that_lie_far_apart_are_read_within_a_budget() -> None:
    array = key("tokenizer.ggml.tokens", U32.pack(9) + U32.pack(8) + U64.pack(1 << 20))
    source = Strided(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array, 1 << 50)
    found = outline(source)
    assert found is not None and "64 MiB" in found.fault and not found.cut
    assert source.taken <= BUDGET + CHUNK


def test_a_vocabulary_of_a_million_is_within_the_budget() -> None:
    array = key("tokenizer.ggml.tokens", U32.pack(9) + U32.pack(8) + U64.pack(1 << 20))
    token = U64.pack(16) + b"x" * 16
    found = outline(BytesSource(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + array + token * (1 << 20)))
    assert found is not None and found.fault == "" and found.entries[0].length == 1 << 20
