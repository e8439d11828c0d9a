"""A bundle without a chat template: a text is continued as it is, and stands alone."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest
import yaml
from runtimekit import one_line

from rk_gemma_runtime import PromptError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rk_gemma_runtime.assistant import Assistant

pytestmark = pytest.mark.board
TEXT = "Errno 14 is"


@pytest.fixture
def base_bundle(demo_bundle: Path, tmp_path: Path) -> Path:
    bundle = tmp_path / "base"
    shutil.copytree(demo_bundle, bundle)
    tree = yaml.safe_load((demo_bundle / "bundle.yaml").read_text())
    (bundle / "bundle.yaml").unlink()
    (bundle / "bundle.yaml").write_text(yaml.safe_dump({**tree, "chat": {"template": "none"}}))
    return bundle


@pytest.mark.parametrize("backend", ["npu", "cpu"])
def test_a_text_is_continued(backend: str, base_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(base_bundle, backend)
    tokenizer = gemma.tokenizer
    list(gemma.generate([tokenizer.bos, *tokenizer.encode(TEXT)], max_tokens=12, temperature=0))
    assert gemma.last is not None
    wanted = gemma.last.ids
    for _ in range(2):  # nothing of the first is remembered
        list(gemma.chat(TEXT, max_tokens=12, temperature=0))
        assert gemma.last.ids == wanted
    assert gemma.history == []


def test_messages_have_no_form_there(base_bundle: Path, assistant: Callable[..., Assistant]) -> None:
    gemma = assistant(base_bundle, "cpu")
    with pytest.raises(UsageError, match="no chat template"):
        gemma.chat([{"role": "user", "content": TEXT}])
    with pytest.raises(PromptError, match="empty"):
        gemma.chat("  ")
    with pytest.raises(PromptError, match="tokens"):
        gemma.chat("a b c " * 10_000)


def test_on_the_command_line(
    base_bundle: Path, cli: Callable[..., object], board: Callable[..., dict[str, str]]
) -> None:
    done = cli("run", base_bundle, TEXT, "--temperature", 0, "--max-tokens", 4, env=board())
    assert done.returncode == 0
    assert "cut off" in one_line(done.stderr)
    assert done.stdout.strip()
