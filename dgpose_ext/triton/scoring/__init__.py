"""Imports all that max_margin_loss calls: torch.compile does not see an import in mid-trace."""

from dgpose_ext.triton.scoring import max_margin_loss, max_margin_topk

__all__ = ["max_margin_loss", "max_margin_topk"]
