"""One tokenizer of a folder's files: what `AutoTokenizer.from_pretrained` makes of them, as a tokenizer.json.

A folder says how text becomes ids in up to eight files, which need not agree. Programs beside transformers read
tokenizer.json alone; so the build writes one that gives transformers' ids, and says what it changed.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from flowc.errors import WeightsError
from flowc.tokenizer.classes import CLASSES, GENERIC, Options, TokenizerClass, class_of
from flowc.tokenizer.reading import Json, read_json, read_text, write_json
from flowc.tokenizer.special import SpecialTokens, Token, add_tokens, special_tokens
from flowc.tokenizer.templates import DEFAULT, field_of, templates

if TYPE_CHECKING:
    import tokenizers

VOCABULARIES = ("vocab.txt", "vocab.json", "merges.txt", "tokenizer.model", "sentencepiece.bpe.model", "tekken.json")
SAVE = "AutoTokenizer.from_pretrained(d).save_pretrained(d) of transformers makes it"


@dataclass(slots=True)
class Assembled:
    """What a folder's tokenizer files come to."""

    files: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """Files that say what the folder means where its own do not: tokenizer.json, tokenizer_config.json."""
    notes: list[str] = field(default_factory=list[str])
    eos: int | None = None
    """Number of the token that ends a text by the tokenizer, if it has one."""


def assemble(folder: Path) -> Assembled:
    """The tokenizer of a folder of HuggingFace files. WeightsError `broken-tokenizer`."""
    made = Assembled()
    config = read_json(folder / "tokenizer_config.json")
    file = folder / "tokenizer.json"
    content = read_json(file)
    name = _class_name(folder, config, content)
    cls = CLASSES.get(name)
    if not content:
        content = _vocabulary(folder, cls)
        if not content:
            _name_what_is_there(folder, made)
            return made
        made.notes.append(f"tokenizer.json is made of {' and '.join(cls.vocabulary)}" if cls else "")
    if cls is None and name != GENERIC:
        made.notes.append(
            f"tokenizer.json is taken as it is: what transformers' {name} changes in it is not known to flowc"
        )
    if config.get("split_special_tokens"):
        made.notes.append("tokenizer_config.json has split_special_tokens, which tokenizer.json cannot say: left out")
    if cls is not None and not _fits(content, cls):
        made.notes.append(f"tokenizer.json is taken as it is: transformers' {name} takes no such vocabulary")
        cls = None
    tokens = _tokens(folder, config, content, cls)
    eos = tokens.named.get("eos_token")
    if cls is None and _has_all(content, tokens):
        made.eos = _number_of(content, eos.text) if eos is not None else None
    else:
        tokenizer = _build(content, config, cls, tokens, file)
        if file.exists():
            _compare(content, tokenizer, name, made)
        else:
            made.files["tokenizer.json"] = _text(tokenizer)
        made.eos = tokenizer.token_to_id(eos.text) if eos is not None else None
    _write_config(folder, config, tokens, made)
    return made


def _class_name(folder: Path, config: Json, content: Json) -> str:
    model = read_json(folder / "config.json")
    named: Any = config.get("tokenizer_class") or model.get("tokenizer_class")
    pre: Any = json.dumps(content.get("pre_tokenizer"))
    return class_of(str(model.get("model_type", "")), named if isinstance(named, str) else None,
                    byte_level='"ByteLevel"' in pre)  # fmt: skip


def _fits(content: Json, cls: TokenizerClass) -> bool:
    """Whether a class can be made of a file's vocabulary; files of old versions do not name their model's type."""
    model: Any = content.get("model")
    return isinstance(model, dict) and cast("Json", model).get("type", cls.model) == cls.model


def _tokens(folder: Path, config: Json, content: Json, cls: TokenizerClass | None) -> SpecialTokens:
    others = ("special_tokens_map.json", "added_tokens.json")
    beside = {name: read_json(folder / name) for name in others}
    if cls is not None:  # a tokenizer that is taken as it is has its own added tokens already
        beside["tokenizer.json"] = content
    defaults = {n: Token(t, cls.marks.get(n, {})) for n, t in cls.specials.items()} if cls else {}
    return special_tokens(config, beside, defaults)


def _has_all(content: Json, tokens: SpecialTokens) -> bool:
    """Whether a tokenizer.json has all tokens already, as they should be: then nothing of it need be built."""
    listed = cast("list[Any]", content.get("added_tokens") or [])
    there: dict[str, Json] = {e["content"]: e for e in listed if isinstance(e, dict) and "content" in e}
    names = {token.text for token in tokens.named.values()}
    for token in tokens.numbered:
        flags = {**token.flags, **({"special": True} if token.text in names else {})}
        if token.text not in there or any(there[token.text].get(k) != v for k, v in flags.items()):
            return False
    return all(token.text in there for token in (*tokens.named.values(), *tokens.extra))


def _build(
    content: Json, config: Json, cls: TokenizerClass | None, tokens: SpecialTokens, file: Path
) -> tokenizers.Tokenizer:
    import tokenizers

    whole = dict(content)
    post: Any = None
    if cls is not None:
        model = cast("Json", content["model"])
        of_file = {"normalizer of the file": content.get("normalizer"), "vocabulary of the file": model.get("vocab")}
        parts = cls.parts(Options({**config, **of_file}, {**cls.specials, **tokens.texts()}))
        post = parts.pop("post_processor", None)
        own = {key: model[key] for key in ("vocab", "merges") if key in model}
        whole |= {**parts, "model": {**cast("Json", parts["model"]), **own}, "added_tokens": []}
    try:
        made = tokenizers.Tokenizer.from_str(json.dumps(whole))
        add_tokens(made, tokens, again=cls is not None and cls.again)
        if post is not None:
            described = json.loads(made.to_str())
            described["post_processor"] = _with_numbers(post, made)
            made = tokenizers.Tokenizer.from_str(json.dumps(described))
    except WeightsError:
        raise
    except Exception as error:  # the library raises bare Exception
        raise WeightsError.of("broken-tokenizer", f"cannot read {file}: {error}") from None
    return made


def _with_numbers(post: Json, tokenizer: tokenizers.Tokenizer) -> Json:
    """A post-processor with the numbers of the tokens that it names."""

    def number(token: str) -> int:
        found = tokenizer.token_to_id(token)
        if found is None:
            raise ValueError(f"it has no token {token}")
        return int(found)

    if post["type"] == "TemplateProcessing":
        ids = {t: {"id": t, "ids": [number(t)], "tokens": [t]} for t in post["special_tokens"]}
        return {**post, "special_tokens": ids}
    return {**post, **{role: [post[role][0], number(post[role][0])] for role in ("sep", "cls")}}


def _text(tokenizer: tokenizers.Tokenizer) -> bytes:
    return (tokenizer.to_str(pretty=True) + "\n").encode()


_PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens")


def _compare(content: Json, tokenizer: tokenizers.Tokenizer, name: str, made: Assembled) -> None:
    """Write tokenizer.json anew where transformers' differs in what decides ids, and say in what."""
    import tokenizers

    was: Json = json.loads(tokenizers.Tokenizer.from_str(json.dumps(content)).to_str())
    now: Json = json.loads(tokenizer.to_str())
    changed = [part for part in _PARTS if was.get(part) != now.get(part)]
    if not changed:
        return
    made.files["tokenizer.json"] = _text(tokenizer)
    if "added_tokens" in changed:
        had = {entry["content"] for entry in was["added_tokens"]}
        new = [entry["content"] for entry in now["added_tokens"] if entry["content"] not in had]
        if new:
            shown = ", ".join(new[:5]) + (f" and {len(new) - 5} more" if len(new) > 5 else "")
            made.notes.append(f"tokenizer.json gets the tokens {shown}, which other files of the tokenizer name")
    rest = [part for part in changed if part not in ("added_tokens", "decoder")]
    if rest:
        made.notes.append(f"tokenizer.json is written as transformers' {name} has it: another {', '.join(rest)}")


def _write_config(folder: Path, config: Json, tokens: SpecialTokens, made: Assembled) -> None:
    """tokenizer_config.json with the names and the template that stand elsewhere; untouched where nothing is new."""
    found = templates(folder, config)
    if found and DEFAULT not in found:
        names = ", ".join(sorted(found))
        made.notes.append(f"the chat templates are {names}, and none is the default: `flowc run --prompt` refuses them")
    new = dict(config)
    if not (folder / "chat_template.jinja").exists() and (field := field_of(found)) is not None:
        new["chat_template"] = field
    extra: Any = new.get("extra_special_tokens")
    for name, text in tokens.texts().items():
        if _text_of(new.get(name)) != text and not (isinstance(extra, dict) and name in extra):
            new[name] = text
    if new != config:
        made.files["tokenizer_config.json"] = write_json(new)


def _text_of(value: Any) -> Any:
    return cast("Json", value).get("content") if isinstance(value, dict) else value


def _vocabulary(folder: Path, cls: TokenizerClass | None) -> Json:
    """The content of a tokenizer.json by the older files of its class; empty where they are not there."""
    if cls is None or not all((folder / name).is_file() for name in cls.vocabulary):
        return {}
    if cls.vocabulary == ("vocab.txt",):
        lines = read_text(folder / "vocab.txt").split("\n")
        words = {line: number for number, line in enumerate(lines[:-1] if lines[-1] == "" else lines)}
        return {"version": "1.0", "model": {"type": "WordPiece", "vocab": words}}
    if "merges.txt" in cls.vocabulary:
        merges = [line.split() for line in read_text(folder / "merges.txt").split("\n")]
        merges = [m for m in merges if m and not m[0].startswith("#")]
        return {"version": "1.0", "model": {"type": "BPE", "vocab": read_json(folder / "vocab.json"), "merges": merges}}
    return {}


def _name_what_is_there(folder: Path, made: Assembled) -> None:
    there = [name for name in VOCABULARIES if (folder / name).is_file()]
    if there:
        made.notes.append(f"no tokenizer comes along: flowc needs tokenizer.json, not {', '.join(there)} ({SAVE})")


def eos_of(tokenizer: Path | None, config: Path | None) -> int | None:
    """Number in a tokenizer.json of what a tokenizer_config.json calls eos_token; None where there is none."""
    named = _text_of(read_json(config).get("eos_token"))
    return _number_of(read_json(tokenizer), named) if isinstance(named, str) else None


def _number_of(content: Json, token: str) -> int | None:
    """A token's number in a tokenizer.json."""
    for entry in cast("list[Any]", content.get("added_tokens") or []):
        if isinstance(entry, dict) and cast("Json", entry).get("content") == token:
            number = cast("Json", entry).get("id")
            return number if type(number) is int else None
    model: Any = content.get("model")
    words: Any = cast("Json", model).get("vocab") if isinstance(model, dict) else None
    number = cast("Json", words).get(token) if isinstance(words, dict) else None
    return number if type(number) is int else None
