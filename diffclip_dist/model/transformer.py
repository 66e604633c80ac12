"""The transformer blocks of encoder and decoders, and the fixed embeddings of positions and timesteps.

Shapes: B windows, S tokens, K kept tokens, D width, H heads, E = D / H, N = window**2.
"""

import math
from typing import Final

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

# Scores whose exponential float32 holds, with room for a sum over a window
LARGEST_SAFE_SCORE: Final = 60.0


def position_embedding(window: int, width: int) -> Tensor:
    """Fixed 2-D sine-cosine positions, float32 (window**2, width): half of the width for rows, half for columns.

    Positions count from the window's centre, so the centre has the same embedding at every window size.

    Args:
        window: side of the window in pixels.
        width: a multiple of 4.
    """
    frequencies_F = torch.exp(-math.log(10000.0) * torch.arange(width // 4, dtype=torch.float64) / (width // 4))
    places_W = torch.arange(window, dtype=torch.float64) - window // 2
    angles_WF = places_W[:, None] * frequencies_F
    axis_WE = torch.cat([angles_WF.sin(), angles_WF.cos()], dim=1)
    rows_NE = axis_WE.repeat_interleave(window, dim=0)
    columns_NE = axis_WE.repeat(window, 1)
    return torch.cat([rows_NE, columns_NE], dim=1).to(torch.float32)


class TimestepEmbedding(nn.Module):
    """A sinusoid of the timestep through a two-layer MLP (DiffCLIP, stage 1: one a modality)."""

    frequencies_F: Tensor

    def __init__(self, sinusoid_width: int, width: int) -> None:
        super().__init__()
        half = sinusoid_width // 2
        self.register_buffer(
            "frequencies_F",
            torch.exp(-math.log(10000.0) * torch.arange(half, dtype=torch.float32) / half),
            persistent=False,
        )
        self.hidden = nn.Linear(2 * half, width)
        self.output = nn.Linear(width, width)

    def forward(self, t_B: Tensor) -> Tensor:
        """Embedding (B, D) of integer timesteps."""
        angles_BF = t_B[:, None].to(torch.float32) * self.frequencies_F
        sinusoid_BE = torch.cat([angles_BF.cos(), angles_BF.sin()], dim=1)
        embedding_BD: Tensor = self.output(F.silu(self.hidden(sinusoid_BE.to(self.hidden.weight.dtype))))
        return embedding_BD


def written_out_attention(query_BHSE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, keep_B11S: Tensor | None) -> Tensor:
    """Scaled dot-product attention (B, H, S, E) as two matrix products and a softmax."""
    scores_BHSS = (query_BHSE * query_BHSE.shape[-1] ** -0.5) @ key_BHSE.transpose(2, 3)
    if keep_B11S is not None:
        scores_BHSS = scores_BHSS.masked_fill(~keep_B11S, -math.inf)
    return torch.softmax(scores_BHSS, dim=-1) @ value_BHSE


def attention_without_gradient(
    query_BHKE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, keep_B11S: Tensor | None
) -> Tensor:
    """The same attention (B, H, K, E) for short sequences on a CPU, where no gradient is wanted.

    Torch's fused kernel is made for long sequences and takes twice as long. A softmax subtracts the highest score
    first, which takes longer than all else; small scores do without.
    """
    batch, heads, length, width = key_BHSE.shape
    query_GKE, key_GSE, value_GSE = (part.flatten(0, 1) for part in (query_BHKE, key_BHSE, value_BHSE))
    scores_GKS = torch.bmm(query_GKE * width**-0.5, key_GSE.transpose(1, 2))
    lowest, highest = scores_GKS.aminmax()
    if keep_B11S is not None:
        scores_GKS.view(batch, heads, -1, length).masked_fill_(~keep_B11S, -math.inf)
    if max(-float(lowest), float(highest)) > LARGEST_SAFE_SCORE:
        scores_GKS -= scores_GKS.amax(dim=2, keepdim=True)
    weight_GKS = scores_GKS.exp_()
    mixed_GKE = torch.bmm(weight_GKS, value_GSE).div_(weight_GKS.sum(dim=2, keepdim=True))
    return mixed_GKE.view(batch, heads, -1, width)


def better_written_out(query_BHSE: Tensor) -> bool:
    """Whether `written_out_attention` is the faster: in bfloat16 on a CPU.

    There the backward pass of torch's fused kernel takes 3 to 7 times as long. In float32 the two are close. The answer
    depends on device and precision alone, so it is the same in every run.
    """
    return query_BHSE.device.type == "cpu" and query_BHSE.dtype == torch.bfloat16


class Attention(nn.Module):
    """Multi-head self-attention."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.output = nn.Linear(width, width)

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None, kept_K: Tensor | None = None) -> Tensor:
        """Attends to the present tokens; ``None`` means all of them.

        Args:
            tokens_BSD: of each window.
            present_BS: bool.
            kept_K: int64, the tokens whose outputs are wanted (B, K, D); ``None`` means all of them.
        """
        batch, length, width = tokens_BSD.shape
        split = self.heads, width // self.heads
        if kept_K is None:
            query_BHKE, key_BHSE, value_BHSE = (
                self.qkv(tokens_BSD).view(batch, length, 3, *split).permute(2, 0, 3, 1, 4).unbind(0)
            )
        else:
            weight_DD, bias_D = self.qkv.weight[:width], self.qkv.bias[:width]
            query_BKD = F.linear(tokens_BSD[:, kept_K], weight_DD, bias_D)
            query_BHKE = query_BKD.view(batch, len(kept_K), *split).transpose(1, 2)
            both_BSD = F.linear(tokens_BSD, self.qkv.weight[width:], self.qkv.bias[width:])
            key_BHSE, value_BHSE = both_BSD.view(batch, length, 2, *split).permute(2, 0, 3, 1, 4).unbind(0)
        keep_B11S = None if present_BS is None else present_BS[:, None, None, :]
        mixed_BHKE = _attend(query_BHKE, key_BHSE, value_BHSE, keep_B11S)
        mixed_BKD: Tensor = self.output(mixed_BHKE.transpose(1, 2).reshape(batch, -1, width))
        return mixed_BKD


def _attend(query_BHKE: Tensor, key_BHSE: Tensor, value_BHSE: Tensor, keep_B11S: Tensor | None) -> Tensor:
    if better_written_out(query_BHKE):
        return written_out_attention(query_BHKE, key_BHSE, value_BHSE, keep_B11S)
    if query_BHKE.device.type == "cpu" and not torch.is_grad_enabled():
        return attention_without_gradient(query_BHKE, key_BHSE, value_BHSE, keep_B11S)
    return F.scaled_dot_product_attention(query_BHKE, key_BHSE, value_BHSE, keep_B11S)


class Block(nn.Module):
    """A pre-normalised transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None, kept_K: Tensor | None = None) -> Tensor:
        """Tokens (B, S, D), or the kept ones alone (B, K, D), see `Attention`."""
        changed_BKD = self.attention(self.attention_norm(tokens_BSD), present_BS, kept_K)
        tokens_BKD = (tokens_BSD if kept_K is None else tokens_BSD[:, kept_K]) + changed_BKD
        out_BKD: Tensor = tokens_BKD + self.mlp(self.mlp_norm(tokens_BKD))
        return out_BKD


class Transformer(nn.Module):
    """A stack of blocks with a final normalisation.

    Attributes:
        recomputes: whether the backward pass computes each block again from its input, instead of keeping the forward
            pass's activations (Chen et al. 2016): a third more operations, and memory of one block at a time.
    """

    def __init__(self, depth: int, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        self.recomputes = False
        self.blocks = nn.ModuleList(Block(width, heads, mlp_ratio) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None = None, kept_K: Tensor | None = None) -> Tensor:
        """Tokens (B, S, D), or the kept ones alone (B, K, D).

        Args:
            tokens_BSD: of each window.
            present_BS: bool, the tokens that are attended to; ``None`` means all of them.
            kept_K: int64, the tokens that are wanted; ``None`` means all of them. The last block computes no others.
        """
        for number, block in enumerate(self.blocks, start=1):
            kept = kept_K if number == len(self.blocks) else None
            if self.recomputes and torch.is_grad_enabled():
                # a block draws no random numbers, so no generator's state has to be kept
                tokens_BSD = checkpoint(
                    block, tokens_BSD, present_BS, kept, use_reentrant=False, preserve_rng_state=False
                )
            else:
                tokens_BSD = block(tokens_BSD, present_BS, kept)
        out_BKD: Tensor = self.norm(tokens_BSD)
        return out_BKD


def recompute_blocks(model: nn.Module) -> None:
    """Makes every transformer of a model recompute its blocks in the backward pass."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recomputes = True
