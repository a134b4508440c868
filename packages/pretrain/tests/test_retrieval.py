"""Retrieval: hand-made cases, a sorting reference, and the rules about copies and ties."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import normalize
from unveil_pretrain import retrieval
from unveil_pretrain.errors import ConfigError
from unveil_pretrain.retrieval import caption_keys, recalls, retrieval_rows, retrieval_scores


def by_sorting(images, texts, owner, words, k):
    """The scores of two plain loops that sort; wrong candidates go first among equals."""
    similarity = images.double().numpy() @ texts.double().numpy().T
    own = [{words[t] for t in range(len(words)) if owner[t] == i} for i in range(len(images))]
    text = []
    for i in range(len(images)):
        order = sorted(range(len(words)), key=lambda t: (-similarity[i, t], words[t] in own[i]))
        text.append(float(any(words[t] in own[i] for t in order[:k])))
    found = [[] for _ in own]
    for t in range(len(words)):
        order = sorted(range(len(images)), key=lambda i: (-similarity[i, t], words[t] in own[i]))
        found[owner[t]].append(any(words[t] in own[i] for i in order[:k]))
    return text, [float(np.mean(hits)) for hits in found]


@given(st.integers(0, 10_000), st.lists(st.integers(1, 4), min_size=1, max_size=7), st.integers(1, 9))
def test_recalls_are_those_of_sorting(seed, counts, num_words):
    generator = torch.Generator().manual_seed(seed)
    # Whole numbers make every similarity exact and many of them equal.
    images = torch.randint(-2, 3, (len(counts), 3), generator=generator).float()
    texts = torch.randint(-2, 3, (sum(counts), 3), generator=generator).float()
    words = [f"w{int(number)}" for number in torch.randint(0, num_words, (sum(counts),), generator=generator)]
    owner = [image for image, count in enumerate(counts) for _ in range(count)]
    scores = recalls(images, texts, num_texts=torch.tensor(counts), text_keys=caption_keys(words), at=(1, 2, 5))
    for k in (1, 2, 5):
        text, image = by_sorting(images, texts, owner, words, k)
        assert scores[f"text_recall_{k}"].tolist() == text
        assert scores[f"image_recall_{k}"].tolist() == pytest.approx(image)


def three(texts, words=("a", "b", "c")):
    return recalls(
        torch.eye(3), torch.tensor(texts), num_texts=torch.ones(3, dtype=torch.int64), text_keys=caption_keys(words)
    )


def test_a_case_by_hand():
    # Images 0 and 1 have each other's captions, image 2 its own.
    scores = three([[0.0, 1.0, 0.0], [1.0, 0.0, 0.1], [0.0, 0.1, 1.0]])
    assert scores["text_recall_1"].tolist() == [0.0, 0.0, 1.0]
    assert scores["image_recall_1"].tolist() == [0.0, 0.0, 1.0]
    assert scores["text_recall_5"].tolist() == [1.0, 1.0, 1.0]


def test_the_same_words_are_the_same_answer():
    swapped = [[0.0, 1.0, 0.0], [1.0, 0.0, 0.1], [0.0, 0.1, 1.0]]
    assert three(swapped, ("A  dog", "a dog", "c"))["text_recall_1"].tolist() == [1.0, 1.0, 1.0]
    assert three(swapped, ("A  dog", "a dog", "c"))["image_recall_1"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("value", [1.0, float("nan")])
def test_one_point_for_everything_scores_nothing(value):
    scores = three([[value] * 3] * 3)
    assert scores["text_recall_1"].sum() == 0.0
    assert scores["image_recall_1"].sum() == 0.0


def test_captions_of_an_image_share_its_weight():
    texts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    scores = recalls(torch.eye(2), texts, num_texts=torch.tensor([2, 1]), text_keys=caption_keys(["a", "b", "c"]))
    assert scores["image_recall_1"].tolist() == [0.5, 1.0]


def test_many_queries_go_in_parts(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    images, texts = (normalize(torch.randn(num, 8, generator=generator), dim=1) for num in (23, 46))
    given = {"num_texts": torch.full((23,), 2), "text_keys": torch.arange(46) // 3}
    whole = recalls(images, texts, **given)
    monkeypatch.setattr(retrieval, "_QUERIES_AT_ONCE", 5)
    for name, values in recalls(images, texts, **given).items():
        assert values.tolist() == whole[name].tolist()


def test_sizes_that_do_not_fit_are_refused():
    keys = caption_keys(["a", "b"])
    with pytest.raises(ConfigError, match="2 images with 3 captions, but 2 texts"):
        recalls(torch.eye(2), torch.eye(2), num_texts=torch.tensor([1, 2]), text_keys=keys)
    with pytest.raises(ConfigError, match="image 1 has no caption"):
        recalls(torch.eye(2), torch.eye(2), num_texts=torch.tensor([2, 0]), text_keys=keys)


def test_rows_of_parts_are_joined_and_scored_by_view():
    captions = [["a", "b"], ["c"], ["d", "e", "a"]]
    generator = torch.Generator().manual_seed(0)
    whole, masked = torch.randn(2, 3, 4, generator=generator)
    texts = torch.randn(6, 4, generator=generator)
    parts = [
        retrieval_rows({"": whole[:1], "masked": masked[:1]}, texts[:2], captions[:1]),
        retrieval_rows({"": whole[1:], "masked": masked[1:]}, texts[2:], captions[1:]),
    ]
    scores = retrieval_scores({name: torch.cat([part[name] for part in parts]) for name in parts[0]})
    given = {"num_texts": torch.tensor([2, 1, 3]), "text_keys": caption_keys(["a", "b", "c", "d", "e", "a"])}
    for prefix, images in (("", whole), ("masked_", masked)):
        for name, values in recalls(images, texts, **given).items():
            assert scores[prefix + name].tolist() == values.tolist()
    assert len(scores) == 12
