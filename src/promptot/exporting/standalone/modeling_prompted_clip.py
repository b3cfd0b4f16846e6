"""A transformers CLIP with learned prompts, and a classifier of fixed names on top.

Needs transformers and torch, and not promptot, which wrote this folder:

    AutoModelForImageClassification.from_pretrained("this/folder", trust_remote_code=True)

The CLIPModel inside is transformers' own; hooks put the learned tokens where they belong. What
`get_text_features` reads must be written in `config.template`: the learned context takes the place
of its first words.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel, PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import ImageClassifierOutput


class PromptedCLIPConfig(PretrainedConfig):
    """A CLIPConfig (`clip`) and how many tokens and prompted blocks each tower has.

    `template` says how to write names for `get_text_features`, such as "a photo of a {}."; of
    several, normalise, average and normalise their features. It is None where what was learned
    serves the names of the classifier only.

    `problem_type` is "multi_label_classification" where the probability of a class is the sigmoid
    of its logit, and none of the classes is a possible answer; pipelines read it. Else it is None,
    and probabilities are a softmax.
    """

    model_type = "prompted_clip"

    def __init__(
        self,
        clip: dict[str, Any] | None = None,
        vision_tokens: int = 0,
        vision_blocks: int = 0,
        text_tokens: int = 0,
        text_blocks: int = 0,
        template: str | list[str] | None = None,
        **kwargs: Any,
    ) -> None:
        self.clip = clip or {}
        self.vision_tokens = vision_tokens
        self.vision_blocks = vision_blocks
        self.text_tokens = text_tokens
        self.text_blocks = text_blocks
        self.template = template
        super().__init__(**kwargs)


class PromptedCLIPForImageClassification(PreTrainedModel):
    """Logits over fixed names; `get_image_features` and `get_text_features` for any others."""

    config_class = PromptedCLIPConfig
    base_model_prefix = "prompted_clip"
    main_input_name = "pixel_values"
    _no_split_modules = ("CLIPEncoderLayer",)

    def __init__(self, config: PromptedCLIPConfig) -> None:
        super().__init__(config)
        shape = CLIPConfig(**config.clip)
        self.clip = CLIPModel(shape)
        self.vision_prompts = _tokens(
            config.vision_blocks, config.vision_tokens, shape.vision_config.hidden_size
        )
        self.text_prompts = _tokens(
            config.text_blocks, config.text_tokens, shape.text_config.hidden_size
        )
        self.classifier = nn.Linear(shape.projection_dim, config.num_labels)
        self._insert_prompts()
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        labels: Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> ImageClassifierOutput | tuple[Tensor, ...]:
        """Logits [B, C] of images [B, 3, R, R]; the loss too if there are labels [B]."""
        logits = self.classifier(self.get_image_features(pixel_values))
        loss = None if labels is None else self._loss(logits, labels)
        if return_dict is False:
            return (logits,) if loss is None else (loss, logits)
        return ImageClassifierOutput(loss=loss, logits=logits)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The cross-entropy; with sigmoids that of every class, summed over the classes."""
        if self.config.problem_type != "multi_label_classification":
            return F.cross_entropy(logits, labels)
        own = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
        total = F.binary_cross_entropy_with_logits(logits, own, reduction="sum")
        return total / len(logits)

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """L2-normalised features [B, D]."""
        return _normalised(self.clip.get_image_features(pixel_values=pixel_values))

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """L2-normalised features [C, D] of names written in `config.template`."""
        found = self.clip.get_text_features(input_ids=input_ids, attention_mask=attention_mask)
        return _normalised(found)

    def _insert_prompts(self) -> None:
        vision, text = self.clip.vision_model, self.clip.text_model
        if len(self.vision_prompts):
            kept = vision.embeddings.num_positions
            vision.pre_layrnorm.register_forward_pre_hook(
                lambda module, args: (_put(args[0], self.vision_prompts[0], kept),)
            )
            _replace_in_blocks(vision.encoder.layers, self.vision_prompts, kept)
        if len(self.text_prompts):
            text.embeddings.token_embedding.register_forward_hook(
                lambda module, args, output: _put(output, self.text_prompts[0], 1)
            )
            _replace_in_blocks(text.encoder.layers, self.text_prompts, 1)


def _tokens(blocks: int, tokens: int, width: int) -> nn.ParameterList:
    return nn.ParameterList(nn.Parameter(torch.zeros(tokens, width)) for _ in range(blocks))


def _replace_in_blocks(layers: Sequence[nn.Module], prompts: nn.ParameterList, start: int) -> None:
    """Give each block but the first its own tokens, from position `start` on."""
    for depth in range(1, len(prompts)):

        def hook(
            module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], depth: int = depth
        ) -> tuple[tuple[Any, ...], dict[str, Any]]:
            if args:
                return (_put(args[0], prompts[depth], start), *args[1:]), kwargs
            x = _put(kwargs["hidden_states"], prompts[depth], start)
            return args, {**kwargs, "hidden_states": x}

        layers[depth].register_forward_pre_hook(hook, with_kwargs=True)


def _put(x: Tensor, tokens: Tensor, start: int) -> Tensor:
    """`tokens` [n, W] at the positions from `start` on of every row of x [B, L, W]."""
    tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :start], tokens, x[:, start + tokens.shape[1] :]], dim=1)


def _normalised(found: Any) -> Tensor:
    # transformers 5 gives an output with the projected feature inside, earlier ones the feature
    features = found if isinstance(found, Tensor) else found.pooler_output
    return F.normalize(features, dim=-1)
