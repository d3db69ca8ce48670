"""What the tokenizer classes of transformers 5 make of a vocabulary.

A class with a constructor of its own takes vocabulary, merges and the post-processor from `tokenizer.json` and builds
the rest anew, by its defaults and the options in `tokenizer_config.json`: what `tokenizer.json` says of it does not
count. All other classes take the file as it is. Which class it is follows from `tokenizer_config.json` and from the
model type, as in `AutoTokenizer`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, cast

from flowc.tokenizer.reading import Json

GENERIC = "TokenizersBackend"
"""The class that takes tokenizer.json as it is."""

_SPACE = "\u2581"
_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_TAIL = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_TAIL}"
_QWEN3_5 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}| ?[^\s\p{{L}}\p{{M}}\p{{N}}]+[\r\n]*|{_TAIL}"
)


@dataclass(frozen=True, slots=True)
class Options:
    """What a class is made with: `tokenizer_config.json` over the class's defaults."""

    config: Json
    specials: Mapping[str, str]

    def get(self, key: str, default: Any) -> Any:
        """An option; null is itself where the class's own default is null, else the default."""
        value = self.config.get(key)
        return default if value is None else value


Parts = Callable[[Options], Json]
"""The parts of a tokenizer.json that a class decides: `model` (options only), `normalizer`, `pre_tokenizer`, `decoder`;
`post_processor` where the class makes one too, with the special tokens by name."""


@dataclass(frozen=True, slots=True)
class TokenizerClass:
    """A class with a constructor of its own."""

    model: str
    """WordPiece, BPE or Unigram."""
    parts: Parts
    specials: Mapping[str, str] = field(default_factory=dict[str, str])
    """Special tokens that it has where the files name none."""
    marks: Mapping[str, Json] = field(default_factory=dict[str, Json])
    """How it adds those that are no plain special tokens, by name."""
    vocabulary: tuple[str, ...] = ()
    """The files that hold its vocabulary where there is no tokenizer.json."""
    again: bool = False
    """Whether it adds all special tokens once more, as special ones."""


def _byte_level(add_prefix_space: bool, use_regex: bool = True) -> Json:
    return {"type": "ByteLevel", "add_prefix_space": add_prefix_space, "trim_offsets": True, "use_regex": use_regex}


def _bpe(**options: Any) -> Json:
    usual: Json = {
        "type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
    }  # fmt: skip
    return {**usual, **options}


def _special(name: str, type_id: int = 0) -> Json:
    return {"SpecialToken": {"id": name, "type_id": type_id}}


def _sequence(which: str, type_id: int = 0) -> Json:
    return {"Sequence": {"id": which, "type_id": type_id}}


def _word_piece(o: Options) -> Json:
    return {
        "model": {
            "type": "WordPiece", "unk_token": o.specials["unk_token"], "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
        },
        "normalizer": {
            "type": "BertNormalizer", "clean_text": True,
            "handle_chinese_chars": bool(o.get("tokenize_chinese_chars", True)),
            "strip_accents": o.config.get("strip_accents"), "lowercase": bool(o.get("do_lower_case", True)),
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
    }  # fmt: skip


def _bert(o: Options) -> Json:
    cls, sep = o.specials["cls_token"], o.specials["sep_token"]
    post: Json = {
        "type": "TemplateProcessing",
        "single": [_special(cls), _sequence("A"), _special(sep)],
        "pair": [_special(cls), _sequence("A"), _special(sep), _sequence("B", 1), _special(sep, 1)],
        "special_tokens": dict.fromkeys((cls, sep)),
    }
    return {**_word_piece(o), "post_processor": post}


def _roberta_post(o: Options, trim_offsets: bool, add_prefix_space: bool) -> Json:
    names = {"sep": o.specials["sep_token"], "cls": o.specials["cls_token"]}
    return {
        "type": "RobertaProcessing", **{role: [token, None] for role, token in names.items()},
        "trim_offsets": trim_offsets, "add_prefix_space": add_prefix_space,
    }  # fmt: skip


def _mpnet(o: Options) -> Json:
    return {**_word_piece(o), "post_processor": _roberta_post(o, True, False)}


def _gpt2(o: Options) -> Json:
    space = bool(o.get("add_prefix_space", False))
    return {
        "model": _bpe(continuing_subword_prefix="", end_of_word_suffix=""),
        "normalizer": None, "pre_tokenizer": _byte_level(space), "decoder": _byte_level(True),
    }  # fmt: skip


def _roberta(o: Options) -> Json:
    trim, space = bool(o.get("trim_offsets", True)), bool(o.get("add_prefix_space", False))
    return {**_gpt2(o), "post_processor": _roberta_post(o, trim, space)}


def _qwen(pattern: str) -> Parts:
    def parts(o: Options) -> Json:
        split: Json = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
        space = bool(o.get("add_prefix_space", False))
        return {
            "model": _bpe(continuing_subword_prefix="", end_of_word_suffix=""), "normalizer": {"type": "NFC"},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, _byte_level(space, use_regex=False)]},
            "decoder": _byte_level(True),
        }  # fmt: skip

    return parts


def _visible_spaces(prefix: bool) -> Json:
    strip: list[Json] = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    replace: Json = {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "}
    return {"type": "Sequence", "decoders": [replace, {"type": "ByteFallback"}, {"type": "Fuse"}, *strip]}


def _llama(o: Options) -> Json:
    space = bool(o.get("add_prefix_space", True))
    scheme = ("always" if o.get("legacy", False) else "first") if space else "never"
    return {
        "model": _bpe(fuse_unk=True, byte_fallback=True), "normalizer": None,
        "pre_tokenizer": {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": False},
        "decoder": _visible_spaces(space),
    }  # fmt: skip


def _gemma(o: Options) -> Json:
    return {
        "model": _bpe(fuse_unk=True, byte_fallback=True, unk_token=o.specials["unk_token"]),
        "normalizer": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
        "pre_tokenizer": {
            "type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False,
        },
        "decoder": _visible_spaces(False),
    }  # fmt: skip


def _unigram(unknown: Callable[[Options], int]) -> Parts:
    def parts(o: Options) -> Json:
        scheme = "always" if o.get("add_prefix_space", True) else "never"
        metaspace: Json = {"type": "Metaspace", "replacement": _SPACE, "prepend_scheme": scheme, "split": True}
        bos, eos = o.specials["bos_token"], o.specials["eos_token"]
        ends = [_special(eos), _special(eos)]
        post: Json = {
            "type": "TemplateProcessing",
            "single": [_special(bos), _sequence("A"), _special(eos)],
            "pair": [_special(bos), _sequence("A"), *ends, _sequence("B"), _special(eos)],
            "special_tokens": dict.fromkeys((bos, eos)),
        }
        return {
            "model": {"type": "Unigram", "unk_id": unknown(o), "byte_fallback": False},
            "normalizer": _charsmap(o.config.get("normalizer of the file")),
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace]},
            "decoder": metaspace, "post_processor": post,
        }  # fmt: skip

    return parts


def _charsmap(normalizer: Any) -> Json | None:
    """The compiled character map that a file's normalizer has: the only part of it that these classes keep."""
    found = cast("Json", normalizer) if isinstance(normalizer, dict) else {}
    steps: list[Any] = found.get("normalizers", [found]) if found.get("type") == "Sequence" else [found]
    mappings = [cast("Json", step) for step in steps if isinstance(step, dict)]
    return next((step for step in mappings if step.get("type") == "Precompiled"), None)


def _camembert_unknown(o: Options) -> int:
    pieces = cast("list[Any]", o.config.get("vocabulary of the file") or [])
    return next((i for i, piece in enumerate(pieces) if piece[0] == o.specials["unk_token"]), 0)


_BERT = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]", "mask_token": "[MASK]"}
_ROBERTA = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "sep_token": "</s>", "pad_token": "<pad>",
            "cls_token": "<s>", "mask_token": "<mask>"}  # fmt: skip
_END_OF_TEXT = "<|endoftext|>"
_QWEN = {"eos_token": _END_OF_TEXT, "unk_token": _END_OF_TEXT, "pad_token": _END_OF_TEXT}
_MERGES = ("vocab.json", "merges.txt")
_PIECES = ("sentencepiece.bpe.model",)
_MASK: Json = {"mask_token": {"lstrip": True}}

CLASSES: Mapping[str, TokenizerClass] = {
    "BertTokenizer": TokenizerClass("WordPiece", _bert, _BERT, vocabulary=("vocab.txt",)),
    "MPNetTokenizer": TokenizerClass(
        "WordPiece", _mpnet, {**_ROBERTA, "unk_token": "[UNK]"}, _MASK, vocabulary=("vocab.txt",)
    ),
    "RobertaTokenizer": TokenizerClass("BPE", _roberta, _ROBERTA, vocabulary=_MERGES),
    "GPT2Tokenizer": TokenizerClass(
        "BPE", _gpt2, dict.fromkeys(("bos_token", "eos_token", "unk_token"), _END_OF_TEXT), vocabulary=_MERGES
    ),
    "Qwen2Tokenizer": TokenizerClass("BPE", _qwen(_QWEN2), _QWEN, vocabulary=_MERGES, again=True),
    "Qwen3_5Tokenizer": TokenizerClass("BPE", _qwen(_QWEN3_5), _QWEN, vocabulary=_MERGES),
    "LlamaTokenizer": TokenizerClass(
        "BPE", _llama, {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, vocabulary=("tokenizer.model",)
    ),
    "GemmaTokenizer": TokenizerClass(
        "BPE", _gemma,
        {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>", "pad_token": "<pad>",
         "mask_token": "<mask>"}, vocabulary=("tokenizer.model",),
    ),
    "XLMRobertaTokenizer": TokenizerClass("Unigram", _unigram(lambda _: 3), _ROBERTA, vocabulary=_PIECES),
    "CamembertTokenizer": TokenizerClass("Unigram", _unigram(_camembert_unknown), _ROBERTA, _MASK, vocabulary=_PIECES),
}  # fmt: skip
"""The classes with a constructor of their own, of the families that flowc imports."""

_REGISTERED = {
    **dict.fromkeys(("bert", "distilbert", "nomic_bert"), "BertTokenizer"),
    **dict.fromkeys(("gemma", "gemma2", "gemma3", "gemma3_text"), "GemmaTokenizer"),
    **dict.fromkeys(("qwen2", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("qwen3_5", "qwen3_5_text", "qwen3_5_moe_text"), "Qwen3_5Tokenizer"),
    **dict.fromkeys(("phi3", "modernbert", "mistral"), GENERIC),
    "roberta": "RobertaTokenizer", "xlm-roberta": "XLMRobertaTokenizer", "camembert": "CamembertTokenizer",
    "mpnet": "MPNetTokenizer",
}  # fmt: skip
"""The class that transformers registers for a model type."""

_HUB_IS_WRONG = ("qwen2", "qwen3_5", "qwen3_5_moe_text", "phi3", "modernbert")
"""Model types for which transformers takes the registered class, whatever the files say."""

_ALIASES = {
    **dict.fromkeys(("DistilBertTokenizer", "ElectraTokenizer"), "BertTokenizer"),
    **dict.fromkeys(("BartTokenizer", "LongformerTokenizer"), "RobertaTokenizer"),
    "Phi3Tokenizer": "LlamaTokenizer",
}  # fmt: skip
"""Names that stand for another class."""

_PLAIN = (
    GENERIC, "PreTrainedTokenizer", "PythonBackend", "NomicBertTokenizer", "ModernBertTokenizer", "MistralTokenizer",
    "Qwen3Tokenizer", "Gemma3Tokenizer",
)  # fmt: skip
"""Names of the class that takes tokenizer.json as it is, and names that transformers has no class for."""


def class_of(model_type: str, named: str | None, *, byte_level: bool) -> str:
    """The name of the class that `AutoTokenizer` takes, without `Fast`.

    `named` is the class that the files name; `byte_level` says that tokenizer.json cuts text into bytes.
    """
    named = named.removesuffix("Fast") if named else None
    registered = _REGISTERED.get(model_type)
    if named == "LlamaTokenizer" and byte_level and registered != GENERIC and model_type not in _HUB_IS_WRONG:
        return GENERIC
    if registered is not None and named is not None and registered != named:
        if registered == GENERIC:
            return GENERIC
        chosen = registered if model_type in _HUB_IS_WRONG else named
    else:
        chosen = named or registered or GENERIC
    return GENERIC if chosen in _PLAIN else _ALIASES.get(chosen, chosen)
