"""A `config.json`, read field by field; what nobody reads is refused at the end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from flowc.errors import Diagnostics, Span, SpecError, WeightsError
from flowc.text.source import MapNode, plain, read_spec

_MISSING: Any = object()

NEUTRAL = frozenset({
    "architectures", "model_type", "transformers_version", "torch_dtype", "dtype", "_name_or_path", "name_or_path",
    "use_cache", "initializer_range", "initializer_factor", "gradient_checkpointing", "pretraining_tp",
    "attention_dropout", "attention_probs_dropout_prob", "hidden_dropout_prob", "hidden_dropout", "classifier_dropout",
    "embd_pdrop", "resid_pdrop", "dropout", "seq_classif_dropout", "qa_dropout", "return_dict", "output_hidden_states",
    "output_attentions", "id2label", "label2id", "num_labels", "problem_type", "task_specific_params",
    "finetuning_task", "bos_token_id", "eos_token_id", "pad_token_id", "sep_token_id", "cls_token_id", "mask_token_id",
    "unk_token_id", "decoder_start_token_id", "cache_implementation", "chunk_size_feed_forward", "is_encoder_decoder",
    "_attn_implementation", "_attn_implementation_autoset", "attn_implementation", "tokenizer_class", "prefix",
    "auto_map", "language", "license", "router_aux_loss_coef", "output_router_logits", "router_jitter_noise",
    "layerdrop", "feature_extractor_type", "image_processor_type", "encoder_stride", "model_name", "_commit_hash",
    "transformers.js_config", "unsloth_fixed", "unsloth_version", "torchscript", "tf_legacy_loss", "use_bfloat16",
    "max_length", "min_length", "do_sample", "early_stopping", "num_beams", "num_beam_groups", "diversity_penalty",
    "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty", "no_repeat_ngram_size",
    "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores", "return_dict_in_generate",
    "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "exponential_decay_length_penalty",
    "suppress_tokens", "begin_suppress_tokens",
})  # fmt: skip
"""Fields that cannot change the numbers of one forward pass in evaluation mode."""

_NEUTRAL_VALUES: Mapping[str, Any] = {
    "pruned_heads": {}, "is_decoder": False, "add_cross_attention": False, "cross_attention_hidden_size": None,
    "tie_encoder_decoder": False,
}  # fmt: skip
"""Fields of every class that cannot change the numbers while they have these values."""


class Config:
    """Fields of a checkpoint's configuration. Every read is remembered; `finish` refuses what was never read."""

    def __init__(self, data: Mapping[str, Any], name: str, node: MapNode | None = None) -> None:
        self.data = dict(data)
        self._given = tuple(data)
        self.name = name
        self._node = node
        self._read: set[str] = set()
        self._problems = Diagnostics()

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read a `config.json`. WeightsError when there is none; SpecError when it is not a JSON object."""
        if not path.is_file():
            raise WeightsError.of("missing-file", f"'{path}' is not there, so the model's configuration is not known")
        node = read_spec(path)
        if not isinstance(node, MapNode):
            raise SpecError.of("bad-type", "a configuration is a JSON object", node.span)
        return cls(cast("dict[str, Any]", plain(node)), path.name, node)

    def assume(self, defaults: Mapping[str, Any]) -> None:
        """Values of the family's HuggingFace class for fields that the file leaves out; an explicit null stays null."""
        self.data = {**defaults, **self.data}

    @property
    def architecture(self) -> str:
        """The model class that the checkpoint was saved from, or an empty text."""
        names = self.data.get("architectures")
        return str(cast("list[Any]", names)[0]) if isinstance(names, list) and names else ""

    def span(self, key: str) -> Span | None:
        """Place of a field's value."""
        value = self._node.get(key) if self._node is not None else None
        return value.span if value is not None else None

    def has(self, key: str) -> bool:
        """Whether a field is there and not null."""
        return self.data.get(key) is not None

    def get(self, key: str, default: Any = None) -> Any:
        """A field as it is; null counts as absent."""
        self._read.add(key)
        value = self.data.get(key)
        return default if value is None else value

    def _typed(self, key: str, kinds: tuple[type, ...], what: str, default: Any) -> Any:
        value = self.get(key, default)
        if value is _MISSING:
            raise SpecError.of(
                "missing-field", f"{self.name} has no field '{key}'", self._node.span if self._node else None
            )
        if value is not default and (not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds)):
            raise SpecError.of(
                "bad-type", f"field '{key}' of {self.name} must be {what}, not {value!r}", self.span(key)
            )
        return value

    def part(self, key: str) -> Config:
        """A configuration inside this one; what it leaves unread is its own `finish` to report."""
        value = self._typed(key, (dict,), "a mapping", _MISSING)
        node = self._node.get(key) if self._node is not None else None
        return Config(value, f"'{key}' of {self.name}", node if isinstance(node, MapNode) else None)

    def int(self, key: str, default: Any = _MISSING) -> Any:
        """A whole number."""
        return self._typed(key, (int,), "a whole number", default)

    def float(self, key: str, default: Any = _MISSING) -> Any:
        """A number, as a float."""
        value = self._typed(key, (int, float), "a number", default)
        return float(value) if value is not None else None

    def bool(self, key: str, default: Any = _MISSING) -> Any:
        """True or false."""
        return self._typed(key, (bool,), "true or false", default)

    def text(self, key: str, default: Any = _MISSING) -> Any:
        """A text."""
        return self._typed(key, (str,), "a text", default)

    def list(self, key: str, default: Any = _MISSING) -> Any:
        """A list."""
        return self._typed(key, (list,), "a list", default)

    def choice(self, key: str, choices: Mapping[str, Any], default: Any = _MISSING) -> Any:
        """A text that must be a key of `choices`; returns what it stands for there."""
        value = self.text(key, default)
        if value not in choices:
            self.refuse(key, f"flowc knows {', '.join(choices)}")
            return next(iter(choices.values()))
        return choices[value]

    def only(self, key: str, *allowed: Any, why: str = "") -> None:
        """Refuse a field unless it is absent or has one of these values."""
        self._read.add(key)
        value = self.data.get(key)
        if value is not None and not any(
            (value == a and type(value) is type(a)) or _same_number(value, a) for a in allowed
        ):
            self.refuse(key, why or (f"flowc supports {', '.join(map(repr, allowed))}" if allowed else ""))

    def skip(self, *keys: str) -> None:
        """Fields that cannot change the numbers in this family."""
        self._read.update(keys)

    def refuse(self, key: str, why: str = "") -> None:
        """Collect a refusal of a field's value."""
        self._read.add(key)
        value = self.data.get(key)
        message = f"field '{key}' of {self.name} is {value!r}, which flowc does not reproduce"
        self._problems.error("unsupported-config", message, self.span(key), why)

    def _hint(self, key: str) -> str:
        if self._node is None:
            return ""  # of metadata that nobody can take out
        if key == "quantization_config":
            return "the weights are quantised in a way that flowc does not read; the original ones are needed"
        return "remove it if it does not matter"

    def finish(self) -> None:
        """Raise SpecError with all refusals and with every field that was never read; null says nothing."""
        for key in self._given:
            value = self.data[key]
            if value is None:
                continue
            if key in _NEUTRAL_VALUES and value == _NEUTRAL_VALUES[key]:
                continue
            if key not in self._read and key not in NEUTRAL and not key.startswith("_"):
                message = f"field '{key}' of {self.name} is not known to this importer and might change the numbers"
                self._problems.error("unknown-config", message, self.span(key), self._hint(key))
        self._problems.raise_if_any()


def _same_number(a: Any, b: Any) -> bool:
    numbers = (int, float)
    return (
        isinstance(a, numbers)
        and isinstance(b, numbers)
        and not isinstance(a, bool)
        and not isinstance(b, bool)
        and a == b
    )
