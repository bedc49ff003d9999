"""scripts/training/text_tokenizer.py: what is written comes back whole, and none of it is a control token."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel, GPT2Tokenizer, PreTrainedTokenizerFast

from modeling_looped_gpt2 import LoopedGPT2Config, LoopedGPT2LMHeadModel
from scripts.training.text_file import TextFile
from scripts.training.text_tokenizer import AS_TEXT, build_tokenizer, load_tokenizer


CONTROL = ["<s>", "</s>", "<pad>", "<unk>", "<|endoftext|>", "<extra_id_0>", " ", "\n", "</s", "s>"]
TEXTS = st.lists(st.text() | st.sampled_from(CONTROL)).map("".join)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """Each kind as it is used: made or loaded, and loaded again from where a run keeps it."""
    folder = tmp_path_factory.mktemp("tokenizers")
    (folder / "c.txt").write_text("the cat and the dog. The end <|endoftext|> </s>\n" * 9)
    file = TextFile(folder / "c.txt", "text")
    gpt2 = GPT2Tokenizer().train_new_from_iterator(file.texts(), vocab_size=280)
    gpt2.save_pretrained(folder / "gpt2")
    found = {}
    for name in ("bytes", "bpe:257", "bpe:300", str(folder / "gpt2")):
        found[name] = build_tokenizer(name, file)
        kept = folder / f"kept_{len(found)}"
        found[name].save_pretrained(kept)
        found[f"{name}, kept"] = AutoTokenizer.from_pretrained(kept)
    return found


@settings(max_examples=300, deadline=None, database=None)
@given(text=TEXTS)
def test_any_text_comes_back_whole_and_free_of_control_tokens(tokenizers, text):
    for name, tokenizer in tokenizers.items():
        ids = tokenizer(text, **AS_TEXT)["input_ids"]
        assert tokenizer.decode(ids) == text, name
        assert not set(ids) & set(tokenizer.all_special_ids), name


def test_a_tokenizer_made_here_reads_text_as_text_wherever_it_is_used(tokenizers):
    for name in ("bytes", "bytes, kept", "bpe:300", "bpe:300, kept"):
        tokenizer = tokenizers[name]
        ids = tokenizer(" </s> <|endoftext|> <pad> ", add_special_tokens=False)["input_ids"]
        assert tokenizer.decode(ids) == " </s> <|endoftext|> <pad> "
        assert not set(ids) & set(tokenizer.all_special_ids)


def test_a_loaded_tokenizer_goes_on_reading_its_control_tokens_elsewhere(tokenizers):
    (name,) = (name for name in tokenizers if name.endswith("gpt2"))
    assert tokenizers[name]("a<|endoftext|>")["input_ids"][-1] == tokenizers[name].eos_token_id


def test_the_folder_of_a_looped_model_gives_its_tokenizer_without_its_code(tmp_path, capfd):
    sizes = {"n_embd": 8, "n_head": 2, "vocab_size": 259, "n_positions": 4}
    LoopedGPT2LMHeadModel(LoopedGPT2Config(**sizes)).save_pretrained(tmp_path)
    build_tokenizer("bytes", None).save_pretrained(tmp_path)
    capfd.readouterr()
    assert load_tokenizer(str(tmp_path)).get_vocab() == build_tokenizer("bytes", None).get_vocab()
    assert "".join(capfd.readouterr()).strip() == ""


def save_empty(folder):
    folder.mkdir()


def save_model_without_tokenizer(folder):
    sizes = {"n_embd": 8, "n_head": 2, "vocab_size": 259, "n_positions": 4}
    GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0)).save_pretrained(folder)


def save_broken(content):
    def save(folder):
        folder.mkdir()
        (folder / "tokenizer.json").write_text(content)
        (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "GPT2Tokenizer"}))

    return save


def save_unigram(folder):
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.UnigramTrainer(vocab_size=40, special_tokens=["</s>", "<unk>"], unk_token="<unk>")
    tokenizer.train_from_iterator(["some text </s> with all letters of it"] * 9, trainer)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>").save_pretrained(folder)


UNREADABLE = {
    "empty": (save_empty, "cannot be loaded"),
    "without": (save_model_without_tokenizer, "has no vocabulary"),
    "cut": (save_broken('{"version": "1.0", "mod'), "cannot be loaded"),
    "other": (save_broken("{}"), "cannot be loaded"),
    "list": (save_broken("[]"), "cannot be loaded"),
    "unigram": (save_unigram, "makes a control token of </s> in a text"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_no_tokenizer_is_refused_in_one_line(name, tmp_path):
    save, message = UNREADABLE[name]
    save(tmp_path / name)
    with pytest.raises(ValueError, match=f"`tokenizer` {tmp_path / name} {message}") as refused:
        load_tokenizer(str(tmp_path / name))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("name", ["bpe:", "bpe:9", "bpe:256", "bpe:-300", "bpe:3e2", "bpe:300 ", f"bpe:{10**12}"])
def test_a_vocabulary_that_cannot_be_is_refused(name, tmp_path):
    (tmp_path / "c.txt").write_text("text")
    with pytest.raises(ValueError, match=f"`tokenizer` must be bytes, bpe:N with N >= 257, .* got '{name}'"):
        build_tokenizer(name, TextFile(tmp_path / "c.txt", "text"))
