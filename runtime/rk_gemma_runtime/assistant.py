"""The public object: conversation in, pieces of text out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rk_gemma_runtime.bundle import Bundle
from rk_gemma_runtime.chat import Conversation, Message, render
from rk_gemma_runtime.chat.template import turn_ids
from rk_gemma_runtime.errors import PromptError, UsageError
from rk_gemma_runtime.events import Applied, Degraded
from rk_gemma_runtime.model import NO_LIMIT, Model
from rk_gemma_runtime.options import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self, Unpack

    from rk_gemma_runtime.answer import Answer
    from rk_gemma_runtime.chat import Tokenizer
    from rk_gemma_runtime.events import Event
    from rk_gemma_runtime.jobs import Sampling
    from rk_gemma_runtime.options import Changes, Preference
    from rk_gemma_runtime.reply import Reply

    Turn = Message | Mapping[str, object]


class Assistant:
    """A model and one conversation. Rules of threads and processes as for `Model`, which `model` is."""

    def __init__(
        self,
        bundle: Bundle,
        options: Options | None = None,
        on_notice: Callable[[Degraded], object] | None = None,
        on_remedy: Callable[[Applied], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        *,
        load: bool = True,
    ) -> None:
        """Load tokenizer and model. Blocks. `on_notice` is called when an answer has to come from the CPU although
        the NPU was asked, `on_remedy` when something was changed to make the NPU load, `on_event` for these and all
        else.

        Raises UsageError, BundleError, NpuError, EngineError, NoBackendError.
        """

        def tell(event: Event) -> None:
            if isinstance(event, Degraded) and on_notice is not None:
                on_notice(event)
            if isinstance(event, Applied) and on_remedy is not None:
                on_remedy(event)
            if on_event is not None:
                on_event(event)

        self._conversation = Conversation()
        self.model = Model(bundle, options, tell, load=load)

    @classmethod
    def open(
        cls,
        bundle: str | Path,
        options: Options | None = None,
        *,
        on_notice: Callable[[Degraded], object] | None = None,
        on_remedy: Callable[[Applied], object] | None = None,
        on_event: Callable[[Event], object] | None = None,
        **changes: Unpack[Changes],
    ) -> Self:
        """Open a bundle directory; any field of Options may be given by its name. `backend` auto tries the NPU
        first."""
        chosen = (options or Options()).changed(changes)
        return cls(Bundle.open(bundle), chosen, on_notice, on_remedy, on_event)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def bundle(self) -> Bundle:
        """What was opened."""
        return self.model.bundle

    @property
    def history(self) -> list[Message]:
        """The conversation so far. May be changed, also in place."""
        return self._conversation.history

    @history.setter
    def history(self, turns: Sequence[Message]) -> None:
        self._conversation.history = list(turns)

    @property
    def just_forgot(self) -> bool:
        """Whether the last `chat` was the first that did not send the whole history: the context is full."""
        return self._conversation.just_forgot

    @property
    def last(self) -> Answer | None:
        """The answer that ended last; with several at a time, ask the reply."""
        return self.model.last

    @property
    def backend(self) -> str:
        """npu or cpu: what answers now."""
        return self.model.backend

    @property
    def degraded(self) -> Degraded | None:
        """Why the NPU does not answer, if it was asked, and when it is tried again."""
        return self.model.degraded

    @property
    def remedies(self) -> tuple[Applied, ...]:
        """What was changed to make the NPU load, in order."""
        return self.model.remedies

    @property
    def context(self) -> int:
        """Tokens of prompt and answer together."""
        return self.model.context

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, for looking at its memory."""
        return self.model.worker_pid

    @property
    def tokenizer(self) -> Tokenizer:
        """The bundle's tokenizer. Raises UsageError for an ids-only bundle."""
        return self.model.tokenizer

    def prefer(self, backend: Preference, wait: bool = False) -> None:
        """Change the backend and load it; a refused NPU gets another try. Blocks.

        Raises NpuError, EngineError, NoBackendError; then the preference is what it was. UsageError while an answer
        is in progress, unless `wait`.
        """
        self.model.prefer(backend, wait)

    def chat(
        self,
        message: str | Sequence[Turn],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        wait: bool = False,
    ) -> Reply:
        """Answer, piece by piece. A text goes on with `history` and is added to it with its answer (also with a
        part of it, if the reply is closed early); a list of messages stands alone. Where the context is full the
        oldest exchanges are not sent (`just_forgot` is then true once); `history` keeps them. Where the bundle's chat
        template is none, a text is continued, and stands alone.

        Raises PromptError, TemplateError, UsageError here; the reply raises as Reply says.
        """
        chosen = self.model.sampling(sampling, temperature)
        if self.bundle.manifest.template == "none":
            ids = self._continued(message)
            return self.model.answer(ids, max_tokens=max_tokens, sampling=chosen, wait=wait)
        if isinstance(message, str):
            self._check_text(message)
            turn = _Turn(self._conversation, self.model, message, max_tokens or NO_LIMIT)
            return self.model.answer(
                turn.ids, max_tokens=max_tokens, sampling=chosen, wait=wait, on_end=turn.remember
            )
        if not isinstance(message, (list, tuple)):
            raise UsageError("a message is a text or a list of messages")
        ids = render(message, self.tokenizer).ids
        return self.model.answer(ids, max_tokens=max_tokens, sampling=chosen, wait=wait)

    def generate(
        self,
        ids: Sequence[int],
        *,
        max_tokens: int | None = None,
        temperature: float | None = None,
        sampling: Sampling | None = None,
        wait: bool = False,
    ) -> Reply:
        """Continue token ids as they are, without a template; the answer's `ids` are the new ones. Raises as
        `chat`."""
        chosen = self.model.sampling(sampling, temperature)
        return self.model.answer(ids, max_tokens=max_tokens, sampling=chosen, wait=wait)

    def logits(self, ids: Sequence[int], *, wait: bool = False) -> NDArray[Any]:
        """float32 [tokens, vocabulary]: what the NPU expects after each id. Raises as `Model.rows`."""
        return self.model.rows(ids, wait=wait)

    def hidden_states(self, ids: Sequence[int], *, wait: bool = False) -> NDArray[Any]:
        """float32 [tokens, hidden] after the last layer, on the NPU: text embeddings. Raises as `logits`."""
        return self.model.rows(ids, hidden=True, wait=wait)

    def reset(self, system: str = "") -> None:
        """Start a new conversation, with a system message if one is given."""
        self._conversation.reset(system)

    def abort(self) -> None:
        """Stop the answer in progress; its iterator ends. From any thread."""
        self.model.abort()

    def forget(self) -> None:
        """Drop the engine's prompt cache; the next answer prefills everything. From any thread, at any time."""
        self.model.forget()

    def close(self) -> None:
        """End the worker, from any thread, also in an answer, which then ends. May be called twice; nothing else
        after it."""
        self.model.close()

    def _continued(self, message: object) -> list[int]:
        """Ids of a text for a model that was not trained to talk."""
        tokenizer = self.tokenizer
        if not isinstance(message, str):
            raise UsageError(f"{self.bundle.name} has no chat template; give one text, which is continued")
        if not message.strip():
            raise PromptError("the prompt is empty")
        return [tokenizer.bos, *tokenizer.encode(message)]

    def _check_text(self, text: str) -> None:
        """What can be known of a message before its turn has come."""
        if not text.strip():
            raise PromptError("the prompt is empty")
        self.model.check_length(len(turn_ids(Message("user", text), self.tokenizer)))


class _Turn:
    """A question and its answer, as a turn of a conversation. The history is that of the moment in which it
    begins."""

    def __init__(self, conversation: Conversation, model: Model, text: str, most: int) -> None:
        self._conversation, self._model, self._text, self._most = conversation, model, text, most
        self._generation = -1

    def ids(self) -> tuple[int, ...]:
        """The prompt, when the turn has come."""
        context, limit = self._model.context, self._model.prompt_limit
        self._generation = self._conversation.generation
        room = min(self._most, context // 4)
        return self._conversation.prompt(self._text, self._model.tokenizer, min(context, limit + room), room)

    def remember(self, answer: Answer) -> None:
        """Note what was said, as far as it came."""
        same = self._generation == self._conversation.generation  # else it has been begun anew meanwhile
        if same and answer.text.strip():
            self._conversation.add(self._text, Message("assistant", answer.text, answer.ids))
