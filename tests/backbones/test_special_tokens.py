"""Names with a model's special tokens are refused: the libraries read such a text in part only."""

from __future__ import annotations

from pathlib import Path

import pytest
from test_transformers_models import SHAPES, save_model

from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError


@pytest.fixture(scope="module", params=["openai", "hf", "bundled"])
def model(
    request: pytest.FixtureRequest, clip_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Backbone:
    if request.param == "hf":
        folder = tmp_path_factory.mktemp("hf")
        save_model(folder, SHAPES["odd-1"])
        return load_backbone(f"hf:{folder}")
    return load_backbone(
        {"openai": f"openai:{clip_file}", "bundled": "bundled:tiny"}[request.param]
    )


def specials(model: Backbone) -> list[str]:
    """What the tokenizer of each library takes for the start and the end."""
    return {
        "openai": ["<start_of_text>", "<end_of_text>", "<END_OF_TEXT>"],
        "hf": ["<|startoftext|>", "<|endoftext|>"],
        "bundled": ["[SOS]", "[EOS]"],
    }[model.name.partition(":")[0]]


@pytest.mark.parametrize("pattern", ["cat{}dog", "{}", "cat {}", "{}{} cat"])
def test_a_name_with_a_special_token_is_refused(model: Backbone, pattern: str) -> None:
    for special in specials(model):
        name = pattern.replace("{}", special)
        with pytest.raises(PromptotError, match="The class .* start or the end of a text.*Leave"):
            model.tokenize(["bird", name])
        with pytest.raises(PromptotError, match="The class "):
            model.tokenize_names(["bird", name], 4)


def test_a_template_with_one_is_blamed_itself(model: Backbone) -> None:
    for special in specials(model):
        with pytest.raises(PromptotError, match="The template 'a .* start or the end"):
            model.tokenize(["cat"], f"a {special} {{}}.")
        with pytest.raises(PromptotError, match="The context 'of .* start or the end"):
            model.tokenize_names(["cat"], 2, f"of {special}")


def test_what_is_special_elsewhere_is_read_as_the_library_does(clip_file: Path) -> None:
    from open_clip import SimpleTokenizer

    text = "cat<|endoftext|>dog <|startoftext|>"  # plain characters for open_clip
    ids = SimpleTokenizer()([text])[0].tolist()
    tokenizer = load_backbone(f"openai:{clip_file}").tokenizer
    assert tokenizer.encode(text) == ids[: ids.index(49407) + 1]


def test_what_only_looks_alike_is_a_name(model: Backbone) -> None:
    names = ["<|end|>", "eos", "<endoftext>", "a | b"]
    assert len(model.encode_text(model.tokenize(names))) == len(names)
