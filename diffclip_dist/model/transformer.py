"""The transformer blocks of encoder and decoders, and the fixed embeddings of positions and timesteps.

Shapes: B windows, S tokens, D width, H heads, N = window**2.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None) -> Tensor:
        """Attends to the present tokens; ``None`` means all of them."""
        batch, length, width = tokens_BSD.shape
        qkv_3BHSE = self.qkv(tokens_BSD).view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        query_BHSE, key_BHSE, value_BHSE = qkv_3BHSE.unbind(0)
        keep_B11S = None if present_BS is None else present_BS[:, None, None, :]
        attend = written_out_attention if better_written_out(query_BHSE) else F.scaled_dot_product_attention
        mixed_BHSE = attend(query_BHSE, key_BHSE, value_BHSE, keep_B11S)
        mixed_BSD: Tensor = self.output(mixed_BHSE.transpose(1, 2).reshape(batch, length, width))
        return mixed_BSD


class Block(nn.Module):
    """A pre-normalised transformer block."""

    def __init__(self, width: int, heads: int, mlp_ratio: float) -> None:
        super().__init__()
        hidden = int(width * mlp_ratio)
        self.attention_norm = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.mlp_norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, width))

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None) -> Tensor:
        tokens_BSD = tokens_BSD + self.attention(self.attention_norm(tokens_BSD), present_BS)
        out_BSD: Tensor = tokens_BSD + self.mlp(self.mlp_norm(tokens_BSD))
        return out_BSD


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

    def forward(self, tokens_BSD: Tensor, present_BS: Tensor | None = None) -> Tensor:
        for block in self.blocks:
            if self.recomputes and torch.is_grad_enabled():
                # a block draws no random numbers, so no generator's state has to be kept
                tokens_BSD = checkpoint(block, tokens_BSD, present_BS, use_reentrant=False, preserve_rng_state=False)
            else:
                tokens_BSD = block(tokens_BSD, present_BS)
        out_BSD: Tensor = self.norm(tokens_BSD)
        return out_BSD


def recompute_blocks(model: nn.Module) -> None:
    """Makes every transformer of a model recompute its blocks in the backward pass."""
    for module in model.modules():
        if isinstance(module, Transformer):
            module.recomputes = True
